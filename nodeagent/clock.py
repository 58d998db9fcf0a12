"""Time as the agent sees it. It is passed in, so that tests of an hour's patience take a moment and are the same every time."""

import time
from datetime import UTC, datetime
from typing import Protocol

from store.lease import boot_clock


class Clock(Protocol):
    """``now`` is for what is written down and for deadlines that others wrote, the other two (seconds) for what is waited for."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def boottime(self) -> float:
        """Goes on while the machine is suspended, as leases do."""
        ...


class SystemClock:
    """The machine's own."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return boot_clock()
