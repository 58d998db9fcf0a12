"""What a move costs, learnt from the moves that were made: freeze = fixed + bytes / bandwidth (least squares).

The defaults are those of a fast machine. On others the first few moves, however they were made, tell how much slower everything is,
and the ways that were hardly ever taken are reckoned with that.
"""

from collections.abc import Iterable
from statistics import linear_regression, median

from crds.job import MigrationMode
from crds.migration import Migration, MigrationPhase
from reconciler.planning.mode import DEFAULTS
from reconciler.planning.types import MoveCost
from reconciler.world import job_key

FEW, ENOUGH = 2, 5
"""Moves from which on they tell how slow the machines are; moves of one way from which on these alone are believed."""
SLOWNESS = (0.2, 200.0)
"""Bounds of what few moves may say."""
NEWEST = 50
"""Moves that count: the machines may have changed since the older ones."""
FIXED = (0.02, 60.0)
"""Bounds in seconds."""
BANDWIDTH = (10e6, 10e9)
"""Bounds in bytes a second."""
WIDE = (10e6, 1e12)
"""The same where most of the memory is not moved in the freeze."""


def calibrate(migrations: Iterable[Migration]) -> MoveCost:
    """Of stopping moves, by which balancing reckons."""
    known = _done(migrations)
    stopping = [m for m in known if _mode(m) == MigrationMode.STOP]
    return _fit(stopping, MoveCost(), _slowness(known), BANDWIDTH)


def calibrate_modes(migrations: Iterable[Migration]) -> dict[MigrationMode, MoveCost]:
    """For each way of moving, by the job's memory; for pre-copy, by what of it is left for the freeze."""
    known = _done(migrations)
    slowness = _slowness(known)
    by_mode = {mode: [m for m in known if _mode(m) == mode] for mode in DEFAULTS}
    return {mode: _fit(found, DEFAULTS[mode], slowness, WIDE) for mode, found in by_mode.items()}


def _done(migrations: Iterable[Migration]) -> list[Migration]:
    """Those that were made and measured, oldest first."""
    done = [m for m in migrations if m.status.phase == MigrationPhase.SUCCEEDED and m.status.freeze_ms is not None]
    return sorted(done, key=lambda m: (m.status.finished_at is not None and m.status.finished_at.timestamp(), m.name))


def _mode(migration: Migration) -> MigrationMode:
    return migration.status.mode or MigrationMode.STOP


def written(migrations: Iterable[Migration]) -> dict[str, float]:
    """By the job's key: the share of its memory that the latest pre-copy left for the freeze."""
    done = [m for m in _done(migrations) if _mode(m) == MigrationMode.PRE_COPY and m.status.memory and m.status.frozen_bytes]
    return {job_key(m.namespace, m.spec.job): min(1.0, m.status.frozen_bytes / m.status.memory) for m in done}


def _size(migration: Migration) -> int:
    """Bytes by which the freeze is reckoned: the job's memory, or what a pre-copy left of it."""
    status = migration.status
    if _mode(migration) == MigrationMode.PRE_COPY and status.frozen_bytes:
        return status.frozen_bytes
    return status.memory or status.bytes


def _slowness(done: list[Migration]) -> float:
    """How many times as long as by default the latest moves froze their jobs."""
    if len(done) < FEW:
        return 1.0
    ratios = [(m.status.freeze_ms or 0.0) / 1000 / DEFAULTS[_mode(m)].freeze(_size(m)) for m in done[-NEWEST:]]
    return min(max(median(ratios), SLOWNESS[0]), SLOWNESS[1])


def _fit(done: list[Migration], default: MoveCost, slowness: float, bounds: tuple[float, float]) -> MoveCost:
    """Moves of one size tell the fixed part only."""
    done = done[-NEWEST:]
    if len(done) < ENOUGH:
        return MoveCost(fixed=default.fixed * slowness, bandwidth=default.bandwidth / slowness)
    sizes = [float(_size(m)) for m in done]
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
