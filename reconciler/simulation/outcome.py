"""What came of a simulated run, and what of it is worth telling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from reconciler.planning import undone
from reconciler.planning.types import Cause, NodeView
from reconciler.planning.undone import UNDONE_WITHIN
from reconciler.simulation.work import NEVER, Work

ANNOUNCED = frozenset({Cause.ROTATION, Cause.OWNER, Cause.HOME})
"""Causes of moves that are meant to be undone some time."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A move: begun at ``time``, over at ``end``. ``ok`` False: it failed, the job went on where it was."""

    time: float
    job: str
    source: str
    destination: str
    end: float = NEVER
    ok: bool = True
    cause: Cause = Cause.LOAD
    reason: str = ""


@dataclass(slots=True)
class Outcome:
    """What came of it. Times are seconds since the start."""

    starts: dict[str, float] = field(default_factory=dict)
    """When each job was given a node."""
    ends: dict[str, float] = field(default_factory=dict)
    moves: list[Moved] = field(default_factory=list)
    frozen: float = 0.0
    """Sum of all freezes."""
    decisions: int = 0
    loads: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By node: (time, runnable tasks by core from then on); only when asked for."""

    @property
    def makespan(self) -> float:
        """When the last job ended."""
        return max(self.ends.values(), default=0.0)

    @property
    def failed(self) -> int:
        """Moves that failed."""
        return sum(not move.ok for move in self.moves)

    def returns(self, within: float = UNDONE_WITHIN) -> list[tuple[float, float]]:
        """Moves that brought a job back to a node it had left at most ``within`` seconds before, as (left, sent back)."""
        return undone.returns(self._steps(), within)

    def wasted(self) -> int:
        """Returns although no job had come or ended in between: the first move was wrong when it was made."""
        return len(undone.wasted(self._steps(), [*self.starts.values(), *self.ends.values()]))

    def _steps(self) -> list[undone.Step]:
        announced = (Cause.ROTATION, Cause.OWNER, Cause.HOME)
        return [
            undone.Step(move.time, move.job, move.source, move.destination, move.cause in announced)
            for move in self.moves
            if move.ok
        ]


def slowdowns(outcome: Outcome, works: Sequence[Work], nodes: Sequence[NodeView]) -> list[float]:
    """(completion - arrival) / the time it would have taken alone on the best node; one for each job that ended."""
    return [(outcome.ends[work.name] - work.arrival) / work.best(list(nodes)) for work in works if work.name in outcome.ends]


def ideal(nodes: Sequence[NodeView], works: Sequence[Work]) -> float:
    """No schedule ends sooner, for jobs that are all there at the start: all cores busy all the time, or the longest job alone."""
    power = sum(node.cpu_capacity * node.speed for node in nodes)
    return max(sum(work.cpu_seconds for work in works) / power, max((work.best(list(nodes)) for work in works), default=0.0))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def jain(values: Sequence[float]) -> float:
    """Jain's fairness: 1 when all fare alike, 1/n when one has all."""
    return sum(values) ** 2 / (len(values) * sum(v * v for v in values)) if any(values) else 1.0
