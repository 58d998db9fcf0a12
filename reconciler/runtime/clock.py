"""Time as the reconciler sees it. It is passed in everywhere, so that a test of an hour's patience takes a millisecond."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol

from store.lease import boot_clock


class Clock(Protocol):
    """``now`` is for what is written down, ``monotonic`` (seconds) for what is waited for."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def boottime(self) -> float:
        """Like ``monotonic``, but goes on while the machine is suspended: for leases."""
        ...

    async def sleep_until(self, moment: float) -> None:
        """Until ``monotonic`` says so; at once when it does."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return boot_clock()

    async def sleep_until(self, moment: float) -> None:
        await asyncio.sleep(max(moment - self.monotonic(), 0.0))
