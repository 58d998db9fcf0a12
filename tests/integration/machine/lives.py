"""Lives of daemons that may end between any two effects.

Every effect of a daemon passes a seam: a call of the store, of the engine, a moment of the hooks. A ``Life`` counts these crossings
and ends at the one it was told to; from then on every seam refuses, so that nothing a dead daemon's ``finally`` does has an effect.
"""

import asyncio
from collections.abc import Awaitable, Callable

from nodeagent.engine import Copy
from store.memory import MemoryKV
from tests.fakes.engine import AgentCrashed, Knobs


class Life:
    """Of one daemon. ``ended`` is called once, at its end; ``witness`` at each of its moments, before it passes."""

    def __init__(self, name: str, ended: Callable[[], None], witness: Callable[[str, Copy], Awaitable[None]] | None = None) -> None:
        self.name = name
        self.over = False
        self.left: int | None = None
        """Crossings that are left; None for no limit."""
        self.crossings: list[str] = []
        """The last ones, for people."""
        self._ended = ended
        self._witness = witness
        """Sees its moments, before anything else does."""

    def cross(self, where: str) -> None:
        """Raises AgentCrashed when it is over, or ends here."""
        if not self.over:
            self.crossings = [*self.crossings[-30:], where]
            if self.left is None:
                return
            self.left -= 1
            if self.left >= 0:
                return
            self.end()
        raise AgentCrashed(f"{self.name} is dead")

    def end(self) -> None:
        """SIGKILL."""
        if not self.over:
            self.over = True
            self._ended()

    # --- the seams ---

    async def at(self, moment: str, copy: Copy) -> None:
        """As the agent's hooks."""
        if self._witness is not None and not self.over:
            await self._witness(moment, copy)
        self.cross(moment)
        await asyncio.sleep(0)
        self.cross(moment)

    def guard_store(self, kv: MemoryKV) -> MemoryKV:
        """Its connection."""
        kv.hook = lambda call, moment: self.cross(f"{call} {moment}")
        return kv

    def guard_engine(self, knobs: Knobs) -> Knobs:
        """Its engine."""
        knobs.hook = self.cross
        return knobs
