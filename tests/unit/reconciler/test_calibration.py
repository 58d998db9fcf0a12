"""Learning what a move costs."""

from datetime import timedelta

import pytest

from crds.job import MigrationMode
from crds.meta import Metadata
from crds.migration import Migration, MigrationPhase, MigrationSpec
from reconciler.calibration import FEW, calibrate, calibrate_modes, written
from reconciler.planning.mode import DEFAULTS
from reconciler.planning.types import MoveCost

from .virtual_clock import EPOCH


def moved(number: int, size: int, seconds: float) -> Migration:
    migration = Migration(metadata=Metadata(name=f"m{number}"), spec=MigrationSpec(job="w"))
    status = migration.status
    status.phase, status.bytes, status.freeze_ms = MigrationPhase.SUCCEEDED, size, seconds * 1000
    status.finished_at = EPOCH + timedelta(seconds=number)
    return migration


def test_one_move_teaches_nothing() -> None:
    assert calibrate([moved(0, 10**9, 9.0)]) == MoveCost()


def test_a_few_moves_tell_how_slow_the_machines_are_for_every_way_of_moving() -> None:
    usual = DEFAULTS[MigrationMode.STOP].freeze(10**9)
    found = calibrate_modes([moved(n, 10**9, 30 * usual) for n in range(FEW)])
    for mode, default in DEFAULTS.items():
        assert found[mode].freeze(10**8) == pytest.approx(30 * default.freeze(10**8))
    assert calibrate([moved(n, 10**9, 30 * usual) for n in range(FEW)]).freeze(10**8) == pytest.approx(
        30 * MoveCost().freeze(10**8)
    )


def test_different_sizes_teach_both_parts() -> None:
    found = calibrate([moved(n, n * 100_000_000, 0.1 + n * 1.0) for n in range(8)])
    assert found.fixed == pytest.approx(0.1) and found.bandwidth == pytest.approx(100e6)


def test_equal_sizes_teach_the_fixed_part() -> None:
    found = calibrate([moved(n, 400_000_000, 1.5) for n in range(8)])
    assert found.bandwidth == MoveCost().bandwidth and found.fixed == pytest.approx(0.5)


def test_nonsense_stays_within_bounds() -> None:
    found = calibrate([moved(n, n * 10**9, 100.0 - n) for n in range(8)])
    assert 0.02 <= found.fixed <= 60 and found.bandwidth == MoveCost().bandwidth


def test_old_moves_are_forgotten() -> None:
    old = [moved(n, 10**6, 4.0) for n in range(100)]
    new = [moved(n, 10**6, 0.1) for n in range(100, 160)]
    assert calibrate([*new, *old]).fixed < 0.2


def by(mode: MigrationMode, number: int, memory: int, seconds: float) -> Migration:
    migration = moved(number, 1_000_000, seconds)
    migration.status.mode, migration.status.memory = mode, memory
    return migration


def test_each_way_of_moving_is_learnt_by_itself_and_from_the_memory_of_the_job() -> None:
    post = [by(MigrationMode.POST_COPY, n, n * 1_000_000_000, 0.05 + n * 0.1) for n in range(1, 9)]
    stop = [by(MigrationMode.STOP, n, n * 1_000_000_000, 0.5 + n * 2.0) for n in range(1, 9)]
    found = calibrate_modes([*post, *stop])
    assert found[MigrationMode.POST_COPY].freeze(10_000_000_000) == pytest.approx(1.05)
    assert found[MigrationMode.STOP].freeze(10_000_000_000) == pytest.approx(20.5)
    assert found[MigrationMode.PRE_COPY].freeze(10**9) < DEFAULTS[MigrationMode.PRE_COPY].freeze(10**9) * 1.5, "never taken"
    assert calibrate([*post, *stop]) == found[MigrationMode.STOP], "balancing reckons with stopping moves"


def precopied(number: int, memory: int, rest: int, seconds: float) -> Migration:
    migration = by(MigrationMode.PRE_COPY, number, memory, seconds)
    migration.status.bytes, migration.status.frozen_bytes = memory + rest, rest
    return migration


def test_a_precopy_is_learnt_from_what_was_left_for_the_freeze() -> None:
    done = [precopied(n, 1_000_000_000, n * 10_000_000, 0.2 + n * 0.05) for n in range(1, 9)]
    found = calibrate_modes(done)[MigrationMode.PRE_COPY]
    assert found.fixed == pytest.approx(0.2) and found.bandwidth == pytest.approx(200e6)


def test_how_much_a_job_writes_is_what_its_latest_precopy_left() -> None:
    stopped = by(MigrationMode.STOP, 3, 1_000_000_000, 2.0)
    assert written([precopied(2, 100, 30, 1.0), precopied(1, 100, 90, 1.0), stopped]) == {"default/w": 0.3}
    assert written([precopied(1, 100, 900, 1.0)]) == {"default/w": 1.0}
