"""What a move costs, learnt from the moves that were made: freeze = fixed + bytes / bandwidth (least squares)."""

from collections.abc import Iterable
from statistics import linear_regression, median

from crds.job import MigrationMode
from crds.migration import Migration, MigrationPhase
from reconciler.planning.mode import DEFAULTS
from reconciler.planning.types import MoveCost

ENOUGH = 5
"""Moves from which on they are believed."""
NEWEST = 50
"""Moves that count: the machines may have changed since the older ones."""
FIXED = (0.02, 5.0)
"""Bounds in seconds."""
BANDWIDTH = (10e6, 10e9)
"""Bounds in bytes a second."""
WIDE = (10e6, 1e12)
"""The same where most of the memory is not moved in the freeze."""


def calibrate(migrations: Iterable[Migration]) -> MoveCost:
    """Of stopping moves, by which balancing reckons. The default until there are ``ENOUGH`` of them."""
    stopping = [m for m in migrations if m.status.mode in (None, MigrationMode.STOP)]
    return _fit(stopping, MoveCost(), BANDWIDTH)


def calibrate_modes(migrations: Iterable[Migration]) -> dict[MigrationMode, MoveCost]:
    """For each way of moving, by the job's memory; the default of those that were not taken ``ENOUGH`` times."""
    known = list(migrations)
    by_mode = {mode: [m for m in known if (m.status.mode or MigrationMode.STOP) == mode] for mode in DEFAULTS}
    return {mode: _fit(found, DEFAULTS[mode], WIDE) for mode, found in by_mode.items()}


def _fit(migrations: list[Migration], default: MoveCost, bounds: tuple[float, float]) -> MoveCost:
    """Moves of one size tell the fixed part only."""
    done = [m for m in migrations if m.status.phase == MigrationPhase.SUCCEEDED and m.status.freeze_ms is not None]
    done = sorted(done, key=lambda m: (m.status.finished_at is not None and m.status.finished_at.timestamp(), m.name))[-NEWEST:]
    if len(done) < ENOUGH:
        return default
    sizes = [float(m.status.memory or m.status.bytes) for m in done]
    freezes = [(m.status.freeze_ms or 0.0) / 1000 for m in done]
    bandwidth = _bandwidth(sizes, freezes, default, bounds)
    fixed = median(freeze - size / bandwidth for size, freeze in zip(sizes, freezes, strict=True))
    return MoveCost(fixed=min(max(fixed, FIXED[0]), FIXED[1]), bandwidth=bandwidth)


def _bandwidth(sizes: list[float], freezes: list[float], default: MoveCost, bounds: tuple[float, float]) -> float:
    """From the slope, if the sizes differ enough to have one."""
    if max(sizes) < 2 * min(sizes) + 1e6:
        return default.bandwidth
    slope = linear_regression(sizes, freezes).slope
    return min(max(1 / slope, bounds[0]), bounds[1]) if slope > 0 else default.bandwidth
