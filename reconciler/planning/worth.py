"""What a move is worth to the job that moves: how much sooner it ends, against the time it stands still.

A runnable task gets its share of the cores, at most one: with D tasks on c cores it takes max(1, D/c) times as long as alone. How
long the job will still run nobody knows; of heavy-tailed life times age is about the expected rest (Harchol-Balter, Downey).
"""

from dataclasses import dataclass

from reconciler.planning.types import JobView, MoveCost

SPARE = 0.3
"""A destination must be better still if the job were so much bigger: MOSIX's 130 %. It keeps noise from moving anything (a job
measured 30 % too small) and makes an undoing impossible: what is better by a margin in one direction is not in the other."""

IDLE = 0.1
"""Runnable tasks, smoothed, below which a job waits rather than computes: CPU elsewhere is no use to it."""


@dataclass(frozen=True, slots=True)
class Worth:
    """A job's change of node in figures."""

    speedup: float
    """How many times sooner what remains is done."""
    gain: float
    """Share of the remaining time that is saved, net of the freeze. Negative: the freeze costs more than is saved."""
    freeze: float
    """Seconds that the job is expected to stand still."""


def stretch(load: float) -> float:
    """How many times longer than alone a task takes where ``load`` tasks by core are runnable."""
    return max(1.0, load)


def worth(job: JobView, load_here: float, load_there: float, cost: MoveCost) -> Worth:
    """``load_there`` counts the job already."""
    speedup = stretch(load_here) / stretch(load_there)
    remaining = max(job.age, job.resident_for, 1e-3)
    busy = min(1.0, job.cpu_demand)
    freeze = cost.freeze(job.memory)
    return Worth(speedup, (1 - 1 / speedup) * busy - freeze / remaining, freeze)
