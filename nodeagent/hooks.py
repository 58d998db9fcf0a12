"""Named moments in the life of a job, at which tests may let the agent die or wait. In production nothing happens there.

Every name is "<part>.<moment>"; those of a move lie before and after each step of crds.states, so that every boundary can be hit.
"""

from typing import Protocol

from nodeagent.engine import Copy


class Hooks(Protocol):
    """What is called at each moment."""

    async def at(self, moment: str, copy: Copy) -> None: ...


class NoHooks:
    """Production."""

    async def at(self, moment: str, copy: Copy) -> None:
        return
