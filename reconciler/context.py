"""What every controller is given. Nothing in it belongs to one controller or outlives one leadership."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime

from crds.meta import Resource
from reconciler.runtime.clock import Clock
from reconciler.world import World
from store.events import EventRecorder
from store.store import Store


class Stopwatch:
    """How long something has been so, by this leader's own clock. It starts when the leader first sees it so.

    Forgotten with the leadership: a new leader is patient once more, which errs on the side of leaving things alone.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[Hashable, float] = {}

    def running(self, what: Hashable) -> float:
        """Seconds since it was first seen; 0 the first time."""
        now = self._clock.monotonic()
        return now - self._since.setdefault(what, now)

    def restart(self, what: Hashable) -> None:
        """It happened just now."""
        self._since[what] = self._clock.monotonic()

    def passed(self, what: Hashable) -> float:
        """Seconds since ``restart``; infinite when it never happened."""
        since = self._since.get(what)
        return float("inf") if since is None else self._clock.monotonic() - since

    def stop(self, what: Hashable) -> None:
        """It is not so (any more)."""
        self._since.pop(what, None)


def random_ticket() -> str:
    """A word nobody can guess."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Context:
    """``store`` carries the leadership's guard: what it writes is refused by etcd once somebody else leads."""

    world: World
    store: Store
    recorder: EventRecorder
    """Tells after the fact, so a failure to tell undoes nothing: it is only logged."""
    clock: Clock
    stopwatch: Stopwatch
    reached: Callable[[int], Awaitable[None]]
    """Waits until the world shows this revision, which must be that of one's own write."""
    ticket: Callable[[], str] = random_ticket
    choosing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from looking for a node until the choice shows in the world, so that two jobs do not both take the last place."""

    def now(self) -> datetime:
        return self.clock.now()

    async def tell(self, obj: Resource, reason: str, message: str) -> None:
        """Records that something went as it should."""
        await self.recorder.record(obj, "Normal", reason, message)

    async def warn(self, obj: Resource, reason: str, message: str) -> None:
        """Records that somebody may have to act."""
        await self.recorder.record(obj, "Warning", reason, message)
