"""An event loop whose time passes only when nothing is left to do: hours in a second, the same every time.

``time()`` starts at 1000 and jumps to the next timer whenever no callback is ready. Work for threads is done at once, in the loop's
own thread, so nothing happens beside it. Sockets may be used whose both ends are in this loop and which pass on at once, that is
those of a socketpair. ``Clock`` gives the same time to whoever must not read the machine's own.
"""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

START = 1000.0
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class StuckError(AssertionError):
    """Nothing is ready and nothing ever will be: everybody waits for somebody."""


class _Selector(selectors.BaseSelector):
    """Waiting is what makes time pass; there is none while a file is ready. The loop's own pipe, its first file, never is."""

    def __init__(self) -> None:
        self.now = START
        self._files = selectors.EpollSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._files.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._files.select(0) if len(self._files.get_map()) > 1 else []
        if ready:
            return ready
        if timeout is None:
            raise StuckError("everybody waits, and no timer runs")
        self.now += max(timeout, 0.0)
        return []

    def close(self) -> None:
        self._files.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._files.get_map()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.get_key(fileobj)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module's text."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        """Done when it returns."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever awaits it handles it
            future.set_exception(error)
        return future


class Clock:
    """The loop's time, for the agents, the reconciler and the store."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.time()

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.time() - START)

    def boottime(self) -> float:
        return self._loop.time()

    async def sleep_until(self, moment: float) -> None:
        await asyncio.sleep(max(moment - self.monotonic(), 0.0))
