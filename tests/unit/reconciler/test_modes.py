"""The way of a move is chosen, written down for people, and told to both ends."""

from typing import Any

import pytest

from crds.job import MigrationMode
from crds.load import JobLoad
from crds.meta import find_condition
from crds.migration import MigrationPhase
from crds.network import FEATURE
from reconciler.controllers.snapshot import take_snapshot

from .house import House

MEMORY = 1 << 30
BOTH = [FEATURE, "post-copy"]


async def ready(house: House, cpu: float, features: list[str] | None = None, **migration: Any) -> None:
    """An idle (or busy) job of 1 GiB on n1."""
    for name, agent in house.agents.items():
        agent.beat(features=features if features is not None and name == "n2" else BOTH, memory=8 * MEMORY)
    await house.run("w", on="n1", migration=migration)
    await house.settle()
    house.agents["n1"].load(memory=8 * MEMORY, jobs={"default/w": JobLoad(cpu_demand=cpu, memory=MEMORY)})
    house.agents["n2"].load(memory=8 * MEMORY)
    await house.settle()


@pytest.mark.parametrize(
    ("cpu", "budget", "features", "expected"),
    [
        (0.0, None, BOTH, MigrationMode.STOP),
        (0.0, "500ms", BOTH, MigrationMode.POST_COPY),
        (0.0, "500ms", [FEATURE], MigrationMode.STOP),
        (1.0, "500ms", BOTH, MigrationMode.STOP),
        (0.0, "10s", BOTH, MigrationMode.STOP),
    ],
)
async def test_auto(cpu: float, budget: str | None, features: list[str], expected: MigrationMode) -> None:
    async with House("n1", "n2") as house:
        await ready(house, cpu, features, freeze_budget=budget)
        house.agents["n1"].holds = {"send"}
        await house.migrate("w", "n2")
        await house.settle()
        status = await house.migration()
        assert (status.phase, status.mode, status.memory) == (MigrationPhase.MOVING, expected, MEMORY)
        assert status.mode_reason.startswith(f"{expected}: ") and status.predicted_freeze_ms is not None
        for node in ("n1", "n2"):
            placed = house.world.placements.find(node, "default/w")
            assert placed and placed.value.move and placed.value.move.mode == expected
        house.agents["n1"].holds = set()
        await house.settle()
        assert (await house.job("w")).moves[0].mode == expected


async def test_a_hard_budget_that_nothing_fits_refuses_with_all_predictions() -> None:
    async with House("n1", "n2") as house:
        await ready(house, 1.0, freeze_budget="100ms", hard_budget=True)
        await house.migrate("w", "n2")
        await house.settle()
        status = await house.migration()
        failed = find_condition(status.conditions, "Failed")
        assert status.phase == MigrationPhase.FAILED and failed and failed.reason == "FreezeBudgetExceeded"
        for word in ("100 ms", "stop ", "post-copy: for mostly idle jobs", "pre-copy: node/n1"):
            assert word in status.message
        assert house.running() == ["n1"]


async def test_a_way_that_was_asked_for_is_taken_or_refused_by_name() -> None:
    async with House("n1", "n2") as house:
        await ready(house, 1.0)
        await house.migrate("w", "n2", mode="post-copy")
        await house.settle()
        assert (await house.migration()).mode == MigrationMode.POST_COPY
        await house.migrate("w", "n1", name="back", mode="pre-copy")
        await house.settle()
        back = await house.migration("back")
        assert back.phase == MigrationPhase.FAILED and "pre-copy" in back.message
        assert house.running() == ["n2"]


async def test_the_jobs_own_wish_counts_when_the_move_has_none() -> None:
    async with House("n1", "n2") as house:
        await ready(house, 1.0, mode="post-copy")
        await house.migrate("w", "n2")
        await house.settle()
        assert (await house.migration()).mode == MigrationMode.POST_COPY


async def test_a_node_that_is_too_full_for_images_is_left_by_post_copy() -> None:
    async with House("n1", "n2") as house:
        await ready(house, 1.0)
        jobs = {"default/w": JobLoad(cpu_demand=1.0, memory=MEMORY)}
        house.agents["n1"].load(memory=8 * MEMORY, used=7 * MEMORY + MEMORY // 2, jobs=jobs)
        await house.migrate("w", "n2")
        await house.settle()
        status = await house.migration()
        assert status.mode == MigrationMode.POST_COPY and "node/n1 has 512Mi of memory free" in status.mode_reason


async def test_what_a_precopy_left_for_the_freeze_tells_how_much_the_job_writes() -> None:
    async with House("n1", "n2") as house:
        await ready(house, 1.0, mode="pre-copy")
        for agent in house.agents.values():
            agent.beat(features=[*BOTH, "pre-copy"], memory=8 * MEMORY)
        house.agents["n2"].frozen_bytes = MEMORY // 50
        await house.migrate("w", "n2")
        await house.settle()
        first = await house.migration()
        assert (first.phase, first.frozen_bytes) == (MigrationPhase.SUCCEEDED, MEMORY // 50)
        house.agents["n2"].load(memory=8 * MEMORY, jobs={"default/w": JobLoad(cpu_demand=1.0, memory=MEMORY)})
        await house.settle()
        [job] = take_snapshot(house.world, house.clock.now()).jobs
        assert job.written == pytest.approx(0.02)
        await house.migrate("w", "n1", name="back")
        await house.settle()
        back = await house.migration("back")
        assert first.predicted_freeze_ms and back.predicted_freeze_ms
        assert back.predicted_freeze_ms < 0.2 * first.predicted_freeze_ms, "a busy job was taken for one that writes much"
