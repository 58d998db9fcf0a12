"""Time that stands still until a test moves it."""

import asyncio
import heapq
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class VirtualClock:
    """``reconciler.runtime.clock.Clock`` for tests."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep_until(self, moment: float) -> None:
        if moment <= self.seconds:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (moment, self._count, future))
        await future

    def next_alarm(self) -> float | None:
        """When the next sleeper wakes up, None when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def move_to(self, seconds: float) -> None:
        """Wakes all whose time has come."""
        self.seconds = max(self.seconds, seconds)
        while self._sleepers and self._sleepers[0][0] <= self.seconds:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
