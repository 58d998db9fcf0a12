"""The agent's own half of fencing: how long it may count on being known, and what follows when that time is over.

The deadline is (moment the last renewal was *sent* that found our alive key in place) + TTL - margin, by the clock that goes on in
a suspended machine. etcd lets the key run out later than at that moment + TTL, so all has stopped before anybody can miss us. And
whoever counts a TTL from the moment on at which the key was gone, for whatever reason, comes later than the deadline, too; that is
the promise that reports carry (``promise``). The guard beside us does the same from the file we write; see guard.py.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from pathlib import Path

from nodeagent import guard
from nodeagent.beat import Beat
from nodeagent.engine import Engine
from nodeagent.errors import EngineFailed
from store.errors import Unavailable
from store.lease import boot_clock

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks at least
LOOK_AT_ALL = 10.0  # seconds between two looks at each job, while all is well
LATE = 2.0  # seconds too late with the next look: then this agent hung or was stopped, and the guard may have acted
LEAST_MARGIN = 0.5  # seconds


def margin(ttl: float) -> float:
    """Seconds for everything to stand still before a lease of ``ttl`` seconds can run out."""
    return max(LEAST_MARGIN, ttl / 10)


class Fence:
    """One node's. ``hold`` moves the deadline, ``run`` acts when it has passed."""

    def __init__(self, run: Path, engine: Engine, *, ttl: float, clock: Callable[[], float] = boot_clock) -> None:
        self._run = run
        self._engine = engine
        self._ttl = ttl
        self._clock = clock
        run.mkdir(parents=True, exist_ok=True)
        self._deadline = guard.read_deadline(str(run))
        self.unguarded = self._what_is_missing()
        """Why nobody would act on this node if its agent hung; "" when the guard would."""

    @property
    def passed(self) -> bool:
        """Whether jobs have to stand still now. Not before the first session since the machine was started."""
        return self._deadline is not None and self._deadline <= self._clock()

    @property
    def promise(self) -> float | None:
        """Seconds after the end of our heartbeat in which every job here stands still, come what may. None: nobody can say."""
        return None if self.unguarded else self._ttl

    def hold(self, lease: float) -> None:
        """A session stands, its lease does not end before ``lease`` (on our clock)."""
        self._deadline = lease - margin(self._ttl)
        guard.write_deadline(str(self._run), self._deadline)

    def check(self) -> None:
        """Before anything is let run. Raises Unavailable when that is not allowed now."""
        if self._deadline is None or self.passed:
            raise Unavailable("this node has no session with etcd at the moment: nothing is let run before it has one")

    async def act(self) -> None:
        """When the deadline has passed: makes everything stand still, or ends it."""
        if not self.passed:
            return
        try:
            for line in await self._engine.fence():
                log.error("this node lost touch with etcd: %s", line)
        except (EngineFailed, OSError) as error:
            log.error("this node lost touch with etcd, and its jobs could not be stopped: %s", error)

    async def run(self, look: Callable[[], Awaitable[None]], beat: Beat) -> None:
        """Until cancelled. ``look`` is called again and again, so that everybody sees what stands still, whoever made it."""
        looked, due, worried = 0.0, 0.0, True
        while True:
            await self.act()
            self._look_for_guard()
            now = self._clock()
            worried |= self._left() < LOOK or now - due > LATE
            if worried or now - looked >= LOOK_AT_ALL:
                looked, worried = now, self._left() < LOOK
                await look()
            due = self._clock() + LOOK
            if 0 < self._left() < LOOK:
                await asyncio.sleep(max(0.01, self._left()))
            else:
                await beat.sleep(LOOK)

    def _look_for_guard(self) -> None:
        found = self._what_is_missing()
        if found and found != self.unguarded:
            log.error("nothing stops the jobs here when this agent hangs: %s", found)
        self.unguarded = found

    def _what_is_missing(self) -> str:
        return guard.absent(str(self._run)) if self._engine.fences else "there is no freezer: mount cgroup2, start the agent again"

    def _left(self) -> float:
        """Seconds to the deadline; infinite before the first session."""
        return math.inf if self._deadline is None else self._deadline - self._clock()
