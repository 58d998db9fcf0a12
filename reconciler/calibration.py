"""What a move costs, learnt from the moves that were made: freeze = fixed + bytes / bandwidth (least squares)."""

from collections.abc import Iterable
from statistics import linear_regression, median

from crds.migration import Migration, MigrationPhase
from reconciler.planning.types import MoveCost

ENOUGH = 5
"""Moves from which on they are believed."""
NEWEST = 50
"""Moves that count: the machines may have changed since the older ones."""
FIXED = (0.02, 5.0)
"""Bounds in seconds."""
BANDWIDTH = (10e6, 10e9)
"""Bounds in bytes a second."""


def calibrate(migrations: Iterable[Migration]) -> MoveCost:
    """The default until there are ``ENOUGH`` moves. Moves of one size tell the fixed part only."""
    done = [m for m in migrations if m.status.phase == MigrationPhase.SUCCEEDED and m.status.freeze_ms is not None]
    done = sorted(done, key=lambda m: (m.status.finished_at is not None and m.status.finished_at.timestamp(), m.name))[-NEWEST:]
    if len(done) < ENOUGH:
        return MoveCost()
    sizes = [float(m.status.bytes) for m in done]
    freezes = [(m.status.freeze_ms or 0.0) / 1000 for m in done]
    bandwidth = _bandwidth(sizes, freezes)
    fixed = median(freeze - size / bandwidth for size, freeze in zip(sizes, freezes, strict=True))
    return MoveCost(fixed=min(max(fixed, FIXED[0]), FIXED[1]), bandwidth=bandwidth)


def _bandwidth(sizes: list[float], freezes: list[float]) -> float:
    """From the slope, if the sizes differ enough to have one."""
    if max(sizes) < 2 * min(sizes) + 1e6:
        return MoveCost().bandwidth
    slope = linear_regression(sizes, freezes).slope
    return min(max(1 / slope, BANDWIDTH[0]), BANDWIDTH[1]) if slope > 0 else MoveCost().bandwidth
