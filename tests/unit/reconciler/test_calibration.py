"""Learning what a move costs."""

from datetime import timedelta

import pytest

from crds.meta import Metadata
from crds.migration import Migration, MigrationPhase, MigrationSpec
from reconciler.calibration import ENOUGH, calibrate
from reconciler.planning.types import MoveCost

from .virtual_clock import EPOCH


def moved(number: int, size: int, seconds: float) -> Migration:
    migration = Migration(metadata=Metadata(name=f"m{number}"), spec=MigrationSpec(job="w"))
    status = migration.status
    status.phase, status.bytes, status.freeze_ms = MigrationPhase.SUCCEEDED, size, seconds * 1000
    status.finished_at = EPOCH + timedelta(seconds=number)
    return migration


def test_few_moves_teach_nothing() -> None:
    assert calibrate([moved(n, 10**9, 9.0) for n in range(ENOUGH - 1)]) == MoveCost()


def test_different_sizes_teach_both_parts() -> None:
    found = calibrate([moved(n, n * 100_000_000, 0.1 + n * 1.0) for n in range(8)])
    assert found.fixed == pytest.approx(0.1) and found.bandwidth == pytest.approx(100e6)


def test_equal_sizes_teach_the_fixed_part() -> None:
    found = calibrate([moved(n, 400_000_000, 1.5) for n in range(8)])
    assert found.bandwidth == MoveCost().bandwidth and found.fixed == pytest.approx(0.5)


def test_nonsense_stays_within_bounds() -> None:
    found = calibrate([moved(n, n * 10**9, 100.0 - n) for n in range(8)])
    assert 0.02 <= found.fixed <= 5 and found.bandwidth == MoveCost().bandwidth


def test_old_moves_are_forgotten() -> None:
    old = [moved(n, 10**6, 4.0) for n in range(100)]
    new = [moved(n, 10**6, 0.1) for n in range(100, 160)]
    assert calibrate([*new, *old]).fixed < 0.2
