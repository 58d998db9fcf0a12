"""The queue of keys to look at. It holds three promises that make controllers easy to write.

1. A key that waits is there once, however often it was added: what changed ten times is looked at once.
2. A key that is being worked on is given to nobody else: a controller never races against itself.
3. A key added while it is being worked on is given out again afterwards: the work may have read the state before the change.

A key may also be due later (a timer, a pause after a failure). Of several due times the earliest counts, because looking too
early costs a glance and looking too late costs the user's time. Only work that was done replaces what was due: ``take`` forgets
it, and the outcome says when to look again.
"""

import asyncio
import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

from reconciler.runtime.clock import Clock

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """For any number of adders and one taker. What is due first is taken first, what is due at once in the order of its coming."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        """Entries that were overtaken by an earlier one stay until they come up."""
        self._count = 0
        self._working: set[K] = set()
        self._held: dict[K, float] = {}
        """Due times of keys that are being worked on."""
        self._changed = asyncio.Event()

    def add(self, key: K, after: float = 0.0) -> None:
        """``key`` is due in ``after`` seconds, unless it is due earlier."""
        due = self._clock.monotonic() + max(after, 0.0)
        if key in self._working:
            self._held[key] = min(due, self._held.get(key, due))
        elif key not in self._due or due < self._due[key]:
            self._push(key, due)

    async def take(self) -> K:
        """Waits for a key that is due and that nobody works on. Call ``done`` with it afterwards, whatever happened."""
        while True:
            key = self._pop()
            if key is not None:
                return key
            await self._wait()

    def done(self, key: K) -> None:
        """The work on ``key`` has ended; it may be given out again."""
        self._working.discard(key)
        if key in self._held:
            self._push(key, self._held.pop(key))

    @property
    def idle(self) -> bool:
        """Nothing is due now and nothing is being worked on."""
        now = self._clock.monotonic()
        return not self._working and all(due > now for due in self._due.values())

    def pending(self) -> dict[K, float]:
        """What waits, and in how many seconds it is due; for people who wonder."""
        now = self._clock.monotonic()
        return {key: max(due - now, 0.0) for key, due in self._due.items()}

    def _push(self, key: K, due: float) -> None:
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
        self._changed.set()

    def _pop(self) -> K | None:
        """The first key that is due, now being worked on; None when none is."""
        self._drop_overtaken()
        if not self._heap or self._heap[0][0] > self._clock.monotonic():
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._working.add(key)
        return key

    def _drop_overtaken(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    async def _wait(self) -> None:
        """Until the next key becomes due or another one is added."""
        self._changed.clear()
        waits: set[asyncio.Task[object]] = {asyncio.create_task(self._changed.wait())}
        if self._heap:
            waits.add(asyncio.create_task(self._clock.sleep_until(self._heap[0][0])))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
