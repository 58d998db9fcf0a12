"""Waiting for something to become true in etcd: watched, not polled; over outages and compactions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from mxctl.core.session import CALL_SECONDS, Session
from store.informer import Difference, Informer

T = TypeVar("T")

FIRST_LOOK = CALL_SECONDS + 1  # seconds to list everything once


class Watched:
    """A prefix that is being watched: ``informer`` says how things stand, ``changes`` what happened since it was asked last."""

    def __init__(self, informer: Informer) -> None:
        self.informer = informer
        self._news: asyncio.Queue[Difference] = asyncio.Queue()
        informer.subscribe(lambda *difference: self._news.put_nowait(difference))

    async def changes(self) -> Sequence[Difference]:
        """Waits for the next change; all that happened by now, in order."""
        news = [await self._news.get()]
        while not self._news.empty():
            news.append(self._news.get_nowait())
        return news

    def forget(self) -> None:
        """Passes over what has happened so far."""
        while not self._news.empty():
            self._news.get_nowait()


@asynccontextmanager
async def watching(session: Session, prefix: str) -> AsyncIterator[Watched]:
    """Lists the prefix and keeps up with it. Raises Failure when etcd does not answer at first; later outages are waited over."""
    informer = Informer(session.kv, prefix)
    watched = Watched(informer)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(informer.run())
        try:
            async with asyncio.timeout(FIRST_LOOK):
                await informer.synced.wait()
        except TimeoutError as error:
            raise session.unreachable(f"no answer within {FIRST_LOOK:g} s") from error
        watched.forget()
        yield watched
        running.cancel()


async def until(session: Session, prefix: str, answer: Callable[[Informer], T | None], seconds: float | None) -> T:
    """What ``answer`` says as soon as it is not None, asked again after every change. Raises TimeoutError after ``seconds``."""
    async with asyncio.timeout(seconds), watching(session, prefix) as watched:
        while (found := answer(watched.informer)) is None:
            await watched.changes()
        return found
