"""Checkpoints: ordered, answered, kept as many as wanted, taken by themselves, and gone with their job."""

import itertools

import pytest

from crds.checkpoint import Checkpoint, CheckpointPhase, CheckpointStatus
from crds.job import Job, JobPhase
from crds.placement import Role
from store.errors import NotFound

from .house import House


async def status(house: House, name: str = "c") -> CheckpointStatus:
    return (await house.store.get(Checkpoint, name)).status


async def names(house: House) -> list[str]:
    return [c.name for c in (await house.store.list(Checkpoint)).items]


async def test_it_is_taken_where_the_job_runs() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n2")
        await house.settle()
        await house.checkpoint()
        await house.settle()
        found = await status(house)
        assert (found.phase, found.node, found.bytes, found.freeze_ms, found.digest) == (CheckpointPhase.READY, "n2", 7, 50.0, "d")
        assert found.path.startswith("checkpoints/c-")
        assert (await house.job("w")).checkpoint == "c"
        assert "CheckpointTaken w" in await house.events()
        assert house.placements() == {"n2": (Role.RUN, 1)}


async def test_one_that_cannot_be_taken_has_failed() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        house.agents["n1"].spoils = "io_uring"
        await house.checkpoint()
        await house.settle()
        found = await status(house)
        assert (found.phase, found.message) == (CheckpointPhase.FAILED, "io_uring")
        assert (await house.job("w")).checkpoint is None
        assert "CheckpointFailed w" in await house.events()


async def test_two_at_once_are_taken_one_after_the_other() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        await house.checkpoint(name="a")
        await house.checkpoint(name="b")
        await house.settle()
        assert {(await status(house, name)).phase for name in "ab"} == {CheckpointPhase.READY}


async def test_it_waits_until_the_job_runs() -> None:
    async with House("n1") as house:
        house.agents["n1"].holds = {"start"}
        await house.run("w")
        await house.settle()
        await house.checkpoint()
        await house.settle()
        assert (await status(house)).phase == CheckpointPhase.PENDING
        house.agents["n1"].holds = set()
        await house.settle()
        assert (await status(house)).phase == CheckpointPhase.READY


async def test_a_move_comes_first_and_it_is_taken_afterwards() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1")
        await house.settle()
        house.agents["n1"].holds = {"keep"}
        await house.checkpoint()
        await house.settle()
        await house.migrate("w", "n2")
        await house.settle()
        found = await status(house)
        assert (found.phase, found.node) == (CheckpointPhase.READY, "n2")


@pytest.mark.parametrize("hold", ["start", "keep"])
async def test_after_its_deadline_it_has_failed(hold: str) -> None:
    async with House("n1") as house:
        house.agents["n1"].holds = {hold}
        await house.run("w")
        await house.settle()
        await house.checkpoint(deadline=30)
        await house.advance(40)
        found = await status(house)
        assert found.phase == CheckpointPhase.FAILED and "within its deadline" in found.message


async def test_of_an_ended_or_unknown_job_there_is_none() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        house.agents["n1"].holds = {"keep"}
        await house.checkpoint()
        await house.settle()
        house.agents["n1"].finish("default/w")
        await house.settle()
        found = await status(house)
        assert found.phase == CheckpointPhase.FAILED and "JobEnded" in found.message


async def test_the_newest_are_kept_and_the_files_of_others_are_removed() -> None:
    async with House("n1") as house:
        await house.run("w", checkpoint={"keep": 2})
        await house.settle()
        for number in range(4):
            await house.checkpoint(name=f"c{number}")
            await house.advance(1)
        assert await names(house) == ["c2", "c3"]
        report = house.world.reports.find("n1", "default/w")
        assert report is not None and report.value.discarded


async def test_a_deleted_one_stays_until_its_files_are_removed() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        await house.checkpoint()
        await house.settle()
        house.agents["n1"].holds = {"discard"}
        await house.store.delete(Checkpoint, "c")
        await house.settle()
        assert await names(house) == ["c"]
        house.agents["n1"].holds = set()
        await house.settle()
        assert await names(house) == []


async def test_they_go_with_the_job() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        await house.checkpoint()
        await house.settle()
        await house.store.delete(Job, "w", "default")
        await house.advance(40)
        assert await names(house) == []
        with pytest.raises(NotFound):
            await house.job("w")


async def test_of_an_ended_job_one_can_be_deleted() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        await house.checkpoint()
        await house.settle()
        house.agents["n1"].finish("default/w")
        await house.settle()
        await house.store.delete(Checkpoint, "c")
        await house.settle()
        assert await names(house) == []


async def test_by_itself_after_each_interval() -> None:
    async with House("n1") as house:
        await house.run("w", checkpoint={"interval": "60s", "keep": 3})
        await house.advance(30)
        assert await names(house) == []
        await house.advance(40)
        assert len(await names(house)) == 1
        await house.advance(300)
        found = (await house.store.list(Checkpoint)).items
        assert len(found) == 3
        assert {c.spec.requested_by for c in found} == {"interval"}
        times = sorted(c.metadata.creation_timestamp for c in found if c.metadata.creation_timestamp)
        assert all(59 <= (b - a).total_seconds() <= 65 for a, b in itertools.pairwise(times))
        house.agents["n1"].finish("default/w")
        await house.advance(200)
        assert (await house.job("w")).phase == JobPhase.SUCCEEDED
        assert len(await names(house)) == 3


async def test_failures_of_the_interval_do_not_pile_up() -> None:
    async with House("n1") as house:
        await house.run("w", checkpoint={"interval": "60s"})
        house.agents["n1"].spoils = "io_uring"
        await house.advance(600)
        assert len(await names(house)) == 1
