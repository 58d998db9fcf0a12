"""What a move is worth to the job that moves: how much sooner it ends, against the time it stands still. In columns.

A runnable task gets its share of the cores, at most one: with D tasks on c cores of speed v it takes max(1, D/c) / v times as long
as alone on a core of speed 1. How long the job will still run nobody knows; of heavy-tailed life times age is about the expected
rest (Harchol-Balter, Downey).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crds.job import MigrationMode
from reconciler.planning.mode import hot
from reconciler.planning.picture import Floats, Ints, Picture, floats
from reconciler.planning.types import MoveCost

SPARE = 0.3
"""A destination must be better still if the job were so much bigger: MOSIX's 130 %. It keeps noise from moving anything (a job
measured 30 % too small) and makes an undoing impossible: what is better by a margin in one direction is not in the other."""

NEAR, HOME = 0.05, 0.02
"""The share by which a destination may be dearer and still be taken, because jobs are there that it talks to, or as its home."""

IDLE = 0.1
"""Runnable tasks, smoothed, below which a job waits rather than computes: CPU elsewhere is no use to it."""


def stretch(load: ArrayLike, speed: ArrayLike = 1.0) -> NDArray[np.float64]:
    """How many times longer than alone at speed 1 a task takes where ``load`` tasks by power are runnable."""
    return np.asarray(np.maximum(1.0 / np.asarray(speed), np.asarray(load)))


def remaining(picture: Picture, rows: Ints) -> Floats:
    """Seconds that these jobs are expected to go on: as long as they ran."""
    return np.maximum(np.maximum(picture.jobs.age[rows], picture.jobs.resident[rows]), 1e-3)


def freezes(picture: Picture, rows: Ints) -> Floats:
    """Seconds that a move of each of these jobs is expected to stop it, in the mode in which it would be moved."""
    snapshot, memory = picture.snapshot, picture.jobs.memory[rows]
    plain = _freeze(snapshot.move_cost, memory)
    if not snapshot.mode_costs:
        return plain
    views = [picture.jobs.views[row] for row in rows]
    for mode, cost in snapshot.mode_costs.items():
        mine = np.array([view.mode == mode for view in views], np.bool_)
        if mine.any():
            sent = memory[mine]
            if mode == MigrationMode.PRE_COPY:
                sent = sent * hot(picture.jobs.demand[rows][mine], floats(views, "written")[mine])
            plain[mine] = _freeze(cost, sent)
    return plain


def _freeze(cost: MoveCost, memory: Floats) -> Floats:
    return np.asarray(cost.fixed + memory / cost.bandwidth)
