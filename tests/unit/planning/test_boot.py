"""How far a boot is, in words."""

from datetime import UTC, datetime, timedelta

import pytest

from crds.machine import STAGES, BootTimeline
from reconciler.planning.boot import PATIENCE, judge, with_agent

START = datetime(2026, 11, 1, tzinfo=UTC)


def reached(stage: str) -> BootTimeline:
    """A stage a second, up to this one."""
    stages = STAGES[: STAGES.index(stage) + 1]
    return BootTimeline.model_validate({name: START + timedelta(seconds=number) for number, name in enumerate(stages)})


@pytest.mark.parametrize("stage", PATIENCE)
def test_a_boot_under_way_is_neither_good_nor_bad_until_patience_ends(stage: str) -> None:
    boot = reached(stage)
    since = getattr(boot, stage)
    early = judge(boot, "", since + timedelta(seconds=1))
    assert (early.booted, early.reason, early.look_again) == (None, "Booting", PATIENCE[stage] - 1)
    late = judge(boot, "", since + timedelta(seconds=PATIENCE[stage]))
    assert late.booted is False
    assert late.reason == f"StuckAfter{stage.capitalize()}"
    assert late.look_again is None


def test_a_problem_is_told_at_once() -> None:
    verdict = judge(reached("kernel"), "mount of /images: Connection refused", START)
    assert (verdict.booted, verdict.message) == (False, "mount of /images: Connection refused")


def test_a_boot_ends_with_the_agent() -> None:
    verdict = judge(reached("agent"), "an old problem", START)
    assert (verdict.booted, verdict.message) == (True, "from its first sign to its agent in 4.0 s")


def test_a_heartbeat_of_the_boot_before_is_not_this_boots() -> None:
    boot = reached("root")
    assert with_agent(boot, None, START - timedelta(minutes=5)) == boot
    assert with_agent(reached("kernel"), None, START + timedelta(minutes=5)).agent is None


def test_the_moment_stays_when_the_heartbeat_is_lost_and_goes_with_the_next_boot() -> None:
    heard = START + timedelta(seconds=30)
    first = with_agent(reached("root"), None, heard)
    assert first.agent == heard
    assert with_agent(reached("root"), first, None) == first
    later = reached("root").model_copy(update={"root": START + timedelta(hours=1)})
    assert with_agent(later, first, None).agent is None
