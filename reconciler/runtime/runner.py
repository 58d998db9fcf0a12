"""Turns changes into work, and works.

A change of the world becomes work keys by the controllers' watches, work keys wait in one queue, and up to ``concurrency`` of them
are worked on at a time. ``run`` ends in one way only: Fenced, when somebody else leads. Failures of single keys never end it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence

from crds import keys
from reconciler.context import Context
from reconciler.runtime.declare import Controller, Watch
from reconciler.runtime.dispatcher import Dispatcher, Work
from reconciler.runtime.queue import WorkQueue
from reconciler.world import Delta

log = logging.getLogger(__name__)

CONCURRENCY = 16
TIME_LIMIT = 60.0  # seconds of one piece of work; all calls inside have their own, shorter ones
SHORTEST = 0.001
"""Seconds between two looks at a key that nothing changed: a rounding error in a wait must not become a busy loop."""


class Runner:
    """Runs controllers over one world. Make a new one for each leadership."""

    def __init__(self, controllers: Sequence[Controller], context: Context, *, concurrency: int = CONCURRENCY) -> None:
        self.queue: WorkQueue[Work] = WorkQueue(context.clock)
        self._controllers = tuple(controllers)
        self._context = context
        self._dispatcher = Dispatcher(context)
        self._room = asyncio.Semaphore(concurrency)
        self._watches: dict[str, list[tuple[Watch, Controller]]] = defaultdict(list)
        for declared in controllers:
            for watch in declared.watches:
                self._watches[watch.prefix.split("/", 1)[0]].append((watch, declared))

    async def run(self) -> None:
        """The world must be complete when this is called. Raises Fenced; ends otherwise only by being cancelled."""
        self._context.world.subscribe(self.changed)
        try:
            for declared in self._controllers:
                for key in declared.start(self._context.world):
                    self.queue.add(Work(declared, key))
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._room.acquire()
                    work = await self.queue.take()
                    tasks.create_task(self._work(work), name=str(work))
        finally:
            self._context.world.unsubscribe(self.changed)

    def changed(self, delta: Delta) -> None:
        """A change of the world; called by it."""
        text = delta.key.removeprefix(keys.ROOT)
        for watch, declared in self._watches[delta.parts[0]]:
            if text.startswith(watch.prefix):
                for key in watch.touched(delta, self._context.world):
                    self.queue.add(Work(declared, key))

    async def _work(self, work: Work) -> None:
        after: float | None = None
        try:
            async with asyncio.timeout(TIME_LIMIT):
                after = await self._dispatcher.run(work)
        except TimeoutError:
            log.error("%s: took more than %.0f s and was stopped, will be tried again", work, TIME_LIMIT)
            after = 0.0
        finally:
            self.queue.done(work)
            self._room.release()
        if after is not None:
            self.queue.add(work, max(after, SHORTEST))
