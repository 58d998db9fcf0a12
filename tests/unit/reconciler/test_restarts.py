"""What follows when a job fails or its node is lost, by its restart policy; and that never two copies of it are wanted at once."""

import pytest

from crds.checkpoint import Checkpoint, CheckpointPhase
from crds.job import Job, JobPhase
from crds.meta import find_condition
from crds.placement import Placement, Role
from store.errors import NotFound

from .house import House

ANEW = {"policy": "OnFailure"}
FROM_CHECKPOINT = {"policy": "FromCheckpoint"}


async def running(house: House, *checkpoints: str, **spec: object) -> None:
    """On n1, with these checkpoints, the last the newest."""
    await house.run("w", on="n1", **spec)
    await house.settle()
    for name in checkpoints:
        await house.checkpoint(name=name)
        await house.advance(1)


def cut(house: House, node: str = "n1") -> None:
    """Like a power cut."""
    house.agents[node].copies.clear()
    house.agents[node].die()


def back(house: House, node: str = "n1") -> None:
    house.agents[node].up = True
    house.agents[node].beat()


def placement(house: House, node: str) -> Placement:
    seen = house.world.placements.find(node, "default/w")
    assert seen is not None
    return seen.value


async def test_never_leaves_a_failure_alone() -> None:
    async with House("n1") as house:
        await running(house)
        house.agents["n1"].finish("default/w", 3)
        await house.advance(60)
        job = await house.job("w")
        assert (job.phase, job.exit_code, job.restarts, job.life) == (JobPhase.FAILED, 3, 0, 0)


async def test_on_failure_starts_anew_after_growing_pauses_until_the_limit() -> None:
    async with House("n1") as house:
        await running(house, restart={**ANEW, "limit": 3})
        pauses = []
        for number in range(1, 4):
            house.agents["n1"].finish("default/w", 3)
            await house.settle()
            job = await house.job("w")
            assert job.phase == JobPhase.PENDING and "exit code 3" in job.message
            began = house.clock.seconds
            while (await house.job("w")).phase != JobPhase.RUNNING:
                await house.advance(0.25)
            pauses.append(house.clock.seconds - began)
            job = await house.job("w")
            assert (job.restarts, job.failures, job.life, job.exit_code) == (number, number, number, None)
            assert house.running() == ["n1"]
        assert all(expected <= found <= expected + 1 for expected, found in zip((1, 2, 4), pauses, strict=True)), pauses
        house.agents["n1"].finish("default/w", 3)
        await house.settle()
        job = await house.job("w")
        assert job.phase == JobPhase.FAILED and "restarted 3 times, and no more are allowed" in job.message
        assert "Restarting w" in await house.events()


async def test_success_is_no_failure() -> None:
    async with House("n1") as house:
        await running(house, restart=ANEW)
        house.agents["n1"].finish("default/w", 0)
        await house.advance(10)
        assert (await house.job("w")).phase == JobPhase.SUCCEEDED


async def test_on_failure_from_the_newest_checkpoint() -> None:
    async with House("n1") as house:
        await running(house, "a", "b", restart=FROM_CHECKPOINT)
        house.agents["n1"].finish("default/w", 1)
        await house.settle()
        job = await house.job("w")
        assert (job.phase, job.restore) == (JobPhase.PENDING, "b")
        await house.advance(2)
        job = await house.job("w")
        assert (job.phase, job.restarts, job.restore) == (JobPhase.RUNNING, 1, None)
        assert job.reason == "went on from checkpoint/b"
        assert placement(house, "n1").role == Role.RUN
        assert "Restored w" in await house.events()


async def test_without_a_checkpoint_a_failure_is_left_to_people() -> None:
    async with House("n1") as house:
        await running(house, restart=FROM_CHECKPOINT)
        house.agents["n1"].finish("default/w", 1)
        await house.advance(10)
        job = await house.job("w")
        assert job.phase == JobPhase.FAILED and "no checkpoint" in job.message


@pytest.mark.parametrize(("policy", "reason"), [(ANEW, "Placed"), (FROM_CHECKPOINT, "went on from checkpoint/a")])
async def test_a_lost_node_gives_its_jobs_back(policy: dict[str, str], reason: str) -> None:
    async with House("n1", "n2") as house:
        await running(house, "a", restart=policy)
        cut(house)
        await house.advance(10)
        assert (await house.job("w")).node == "n1", "it may come back yet"
        assert house.running() == []
        await house.advance(60)
        job = await house.job("w")
        assert (job.phase, job.node, job.restarts, job.failures) == (JobPhase.RUNNING, "n2", 1, 0)
        assert policy == ANEW or job.reason == reason
        assert house.running() == ["n2"]
        assert placement(house, "n1").role == Role.DROP
        back(house)
        await house.settle()
        assert house.placements() == {"n2": (Role.RUN, job.epoch)}
        assert house.world.reports.find("n1", "default/w") is None
        assert house.running() == ["n2"]


async def test_never_leaves_the_job_with_its_lost_node() -> None:
    async with House("n1", "n2") as house:
        await running(house, "a")
        house.agents["n1"].die()
        await house.advance(120)
        job = await house.job("w")
        assert (job.phase, job.node) == (JobPhase.UNKNOWN, "n1")
        back(house)
        await house.settle()
        assert (await house.job("w")).phase == JobPhase.RUNNING


async def test_a_node_that_promised_nothing_keeps_its_jobs() -> None:
    """Fencing is keep, or there is no guard: the job may run there as long as the node is silent."""
    async with House("n1", "n2") as house:
        house.agents["n1"].fenced_after = None
        await running(house, "a", restart=FROM_CHECKPOINT)
        house.agents["n1"].die()
        await house.advance(600)
        job = await house.job("w")
        assert (job.phase, job.node) == (JobPhase.UNKNOWN, "n1")
        assert house.running() == ["n1"]


async def test_a_node_that_returns_in_time_keeps_its_jobs() -> None:
    async with House("n1", "n2") as house:
        await running(house, "a", restart=FROM_CHECKPOINT)
        house.agents["n1"].die()
        await house.advance(12)
        back(house)
        await house.advance(60)
        job = await house.job("w")
        assert (job.phase, job.node, job.restarts) == (JobPhase.RUNNING, "n1", 0)


async def test_a_stale_copy_is_ended_when_its_node_returns() -> None:
    async with House("n1", "n2") as house:
        await running(house, "a", restart=FROM_CHECKPOINT)
        house.agents["n1"].die()  # the copy stands still there
        await house.advance(60)
        back(house)
        await house.settle()
        assert house.running() == ["n2"]
        assert list(house.placements()) == ["n2"]


async def test_without_a_checkpoint_the_job_stays_with_its_lost_node() -> None:
    async with House("n1", "n2") as house:
        await running(house, restart=FROM_CHECKPOINT)
        house.agents["n1"].die()
        await house.advance(60)
        job = await house.job("w")
        assert (job.phase, job.node) == (JobPhase.UNKNOWN, "n1") and "no checkpoint to go on from" in job.message
        back(house)
        await house.settle()
        assert (await house.job("w")).phase == JobPhase.RUNNING


async def test_a_damaged_checkpoint_gives_way_to_the_one_before() -> None:
    async with House("n1", "n2") as house:
        await running(house, "a", "b", restart=FROM_CHECKPOINT)
        house.agents["n2"].damaged = {"b"}
        cut(house)
        await house.advance(60)
        job = await house.job("w")
        assert (job.phase, job.node, job.reason) == (JobPhase.RUNNING, "n2", "went on from checkpoint/a")
        assert (job.restarts, job.life) == (1, 2)
        bad = (await house.store.get(Checkpoint, "b")).status
        assert bad.phase == CheckpointPhase.FAILED and "its checksum differs" in bad.message
        assert house.running() == ["n2"]


async def test_when_all_are_damaged_the_job_has_failed() -> None:
    async with House("n1", "n2") as house:
        await running(house, "a", "b", restart=FROM_CHECKPOINT)
        house.agents["n2"].damaged = {"a", "b"}
        cut(house)
        await house.advance(60)
        job = await house.job("w")
        condition = find_condition(job.conditions, "Failed")
        assert job.phase == JobPhase.FAILED and condition is not None and condition.reason == "NoCheckpoint"
        assert house.running() == []


async def test_the_node_that_restores_is_lost_too() -> None:
    async with House("n1", "n2", "n3") as house:
        await running(house, "a", restart=FROM_CHECKPOINT)
        await house.advance(1)
        cut(house)
        await house.advance(60)
        second = (await house.job("w")).node
        assert second is not None
        cut(house, second)
        await house.advance(60)
        job = await house.job("w")
        assert job.phase == JobPhase.RUNNING and job.node not in ("n1", second)
        assert job.restarts == 2
        back(house)
        back(house, second)
        await house.settle()
        assert list(house.placements()) == [job.node]


async def test_lost_in_a_restart_of_its_machine_it_goes_on_too() -> None:
    async with House("n1", "n2") as house:
        await running(house, "a", restart={**FROM_CHECKPOINT, "limit": 0})
        house.agents["n1"].lose("default/w")
        await house.advance(5)
        job = await house.job("w")
        assert (job.phase, job.restarts, job.failures) == (JobPhase.RUNNING, 1, 0)


async def test_a_move_is_decided_before_anything_else() -> None:
    async with House("n1", "n2", "n3") as house:
        await running(house, "a", restart=FROM_CHECKPOINT)
        house.agents["n2"].holds = {"commit", "refuse"}
        await house.migrate("w", "n2", deadline=20)
        await house.settle()
        assert set(house.placements()) == {"n1", "n2"}
        cut(house)
        await house.advance(10)
        assert set(house.placements()) == {"n1", "n2"}
        await house.advance(90)
        job = await house.job("w")
        assert job.phase == JobPhase.RUNNING and job.node != "n1" and job.restarts == 1
        assert len(house.running()) == 1


async def test_a_job_that_waits_for_its_next_life_can_be_deleted() -> None:
    async with House("n1") as house:
        await running(house, restart=ANEW)
        for _ in range(4):
            house.agents["n1"].finish("default/w", 1)
            await house.advance(9)
        house.agents["n1"].finish("default/w", 1)
        await house.settle()
        assert (await house.job("w")).phase == JobPhase.PENDING
        await house.store.delete(Job, "w", "default")
        await house.settle()
        with pytest.raises(NotFound):
            await house.job("w")


async def test_deletion_does_not_wait_for_the_lost_node() -> None:
    async with House("n1", "n2") as house:
        await running(house, "a", restart=FROM_CHECKPOINT)
        cut(house)
        await house.advance(60)
        await house.store.delete(Job, "w", "default")
        await house.advance(5)
        with pytest.raises(NotFound):
            await house.job("w")
        assert house.running() == []


async def test_a_new_leader_goes_on_where_the_old_one_was() -> None:
    async with House("n1", "n2") as house:
        await running(house, "a", restart=FROM_CHECKPOINT)
        cut(house)
        for _ in range(12):
            await house.advance(7)
            await house.stop()
            await house.start()
        await house.advance(60)
        job = await house.job("w")
        assert (job.phase, job.node, job.restarts) == (JobPhase.RUNNING, "n2", 1)


async def test_a_moved_job_carries_its_life_along() -> None:
    async with House("n1", "n2") as house:
        await running(house, restart=ANEW)
        house.agents["n1"].finish("default/w", 1)
        await house.advance(3)
        here = (await house.job("w")).node
        there = "n2" if here == "n1" else "n1"
        await house.migrate("w", there)
        await house.settle()
        job = await house.job("w")
        assert (job.phase, job.node, job.life) == (JobPhase.RUNNING, there, 1)
        assert placement(house, there).life == 1


async def test_a_job_that_is_deleted_between_two_lives_is_given_to_a_node_that_removes_its_directory() -> None:
    async with House("n1", "n2") as house:
        await running(house, restart=ANEW)
        house.agents["n1"].finish("default/w", 3)
        await house.settle()
        job = await house.job("w")
        assert (job.phase, job.node) == (JobPhase.PENDING, None)
        await house.store.delete(Job, "w")
        await house.reconciled()
        assert house.placements() == {"n1": (Role.INHERIT, job.epoch + 1)}
        await house.advance(10)
        assert house.placements() == {}
        with pytest.raises(NotFound):
            await house.job("w")


async def test_without_a_ready_node_such_a_job_waits() -> None:
    async with House("n1") as house:
        await running(house, restart=ANEW)
        house.agents["n1"].finish("default/w", 3)
        await house.settle()
        cut(house)
        await house.advance(60)
        await house.store.delete(Job, "w")
        await house.advance(10)
        assert "Ready node" in (await house.store.get(Job, "w")).status.message
        back(house)
        await house.advance(20)
        with pytest.raises(NotFound):
            await house.job("w")
