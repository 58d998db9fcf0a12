"""Runs of several methods on the same jobs, and their figures side by side."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from reconciler.planning.types import Cause, NodeView
from reconciler.simulation.cluster import Simulation
from reconciler.simulation.methods import Method
from reconciler.simulation.outcome import Outcome, ideal, jain, quantile, slowdowns
from reconciler.simulation.work import Physics, Work


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to."""

    mean: float
    """Slowdown, as p95, p99 and worst."""
    p95: float
    p99: float
    worst: float
    fairness: float
    """Jain's, of the slowdowns."""
    makespan: float
    bound: float
    """Makespan by the ideal one of jobs that are all there at the start."""
    jobs: int
    moves: int
    failed: int
    returned: int
    """Moves undone within 10 minutes; all other news counts as no excuse."""
    wasted: int
    """Of these, those undone although no job came or ended in between."""
    rotations: int
    frozen: float
    decisions: int

    def to_data(self) -> dict[str, Any]:
        """For JSON."""
        return {name: round(v, 4) if isinstance(v := getattr(self, name), float) else v for name in self.__slots__}


def simulate(
    method: Method,
    nodes: Sequence[NodeView],
    works: Sequence[Work],
    physics: Physics,
    *,
    seed: int = 0,
    trace: bool = False,
    patient: bool = False,
    progress: Callable[[int], None] = lambda ended: None,
) -> Outcome:
    """One run. Time-sharing is the method's."""
    return Simulation(
        nodes,
        works,
        method.decide,
        method.place(Random(seed)),
        physics=replace(physics, aged=method.aged),
        interval=method.interval,
        seed=seed,
        trace=trace,
        patient=patient,
        progress=progress,
    ).run()


def figures(outcome: Outcome, nodes: Sequence[NodeView], works: Sequence[Work]) -> Figures:
    """Of a run."""
    slow = slowdowns(outcome, works, nodes)
    begin = min((work.arrival for work in works), default=0.0)
    makespan = outcome.makespan - begin
    best = ideal(nodes, works)
    return Figures(
        mean=statistics.mean(slow) if slow else 0.0,
        p95=quantile(slow, 0.95),
        p99=quantile(slow, 0.99),
        worst=max(slow, default=0.0),
        fairness=jain(slow),
        makespan=makespan,
        bound=makespan / best if best else 0.0,
        jobs=len(slow),
        moves=len(outcome.moves),
        failed=outcome.failed,
        returned=len(outcome.returns()),
        wasted=outcome.wasted(),
        rotations=sum(move.cause is Cause.ROTATION for move in outcome.moves),
        frozen=outcome.frozen,
        decisions=outcome.decisions,
    )
