"""The destination has taken the job and is lost before it could say that it runs: who may let the frozen copy go on, and when."""

import pytest

from crds import keys
from crds.cluster import Cluster, ClusterSpec
from crds.job import Job, JobPhase
from crds.meta import Metadata, find_condition
from crds.migration import Migration, MigrationPhase
from crds.placement import Role

from .house import House

FROM_CHECKPOINT = {"restart": {"policy": "FromCheckpoint"}}
JOB = "default/w"


async def lost(house: House, **spec: object) -> None:
    """The job stands frozen at n1, n2 has claimed it and is silent from now on."""
    await house.store.create(Cluster(metadata=Metadata(name="c"), spec=ClusterSpec(node_grace_period=5.0)))
    await house.run("w", on="n1", **spec)
    await house.settle()
    house.agents["n2"].holds.add("continue")
    await house.migrate("w", to="n2")
    await house.settle()
    assert house.agents["n2"].copies[JOB].state == "committed"
    house.agents["n2"].die()
    await house.settle()


async def back(house: House) -> None:
    house.agents["n2"].holds.clear()
    house.agents["n2"].up = True
    house.agents["n2"].beat()
    await house.advance(2)


async def test_it_goes_on_at_the_source_once_the_destination_must_have_fenced_itself() -> None:
    async with House("n1", "n2") as house:
        await lost(house, **FROM_CHECKPOINT)
        await house.advance(14)
        assert house.running() == []
        await house.advance(3)
        assert house.running() == ["n1"]
        assert house.placements() == {"n1": (Role.RUN, 3), "n2": (Role.DROP, 3)}
        job, migration = await house.job("w"), await house.migration()
        assert (job.phase, job.node, job.restarts, job.message) == (JobPhase.RUNNING, "n1", 1, "")
        assert migration.phase == MigrationPhase.FAILED
        assert "goes on at node/n1 as it was when it was frozen" in migration.message
        await back(house)
        assert house.placements() == {"n1": (Role.RUN, 3)}
        assert JOB not in house.agents["n2"].copies
        assert house.running() == ["n1"]
        assert house.kv.server.get(keys.claim("n2", "default", "w")) is None


async def test_a_destination_that_comes_back_in_time_keeps_the_job() -> None:
    async with House("n1", "n2") as house:
        await lost(house, **FROM_CHECKPOINT)
        await house.advance(14)
        await back(house)
        assert house.running() == ["n2"]
        assert (await house.migration()).phase == MigrationPhase.SUCCEEDED


async def test_without_a_policy_people_decide() -> None:
    async with House("n1", "n2") as house:
        await lost(house)
        await house.advance(6)
        assert "within 15 s of silence" in (await house.job("w")).message
        await house.advance(100)
        job, migration = await house.job("w"), await house.migration()
        assert house.running() == []
        assert "mxctl migrate --cancel m" in job.message
        assert migration.message == job.message
        condition = find_condition(job.conditions, "Running")
        assert condition is not None
        assert (condition.status, condition.reason) == ("Unknown", "NodeLost")
        await house.change(Migration, "m", lambda found: setattr(found.spec, "cancelled", True))
        await house.advance(1)
        assert house.running() == ["n1"]
        assert (await house.migration()).phase == MigrationPhase.FAILED
        await back(house)
        assert house.running() == ["n1"]


async def test_without_a_policy_it_goes_on_at_the_destination_when_that_is_back() -> None:
    async with House("n1", "n2") as house:
        await lost(house)
        await house.advance(100)
        await back(house)
        assert house.running() == ["n2"]
        job = await house.job("w")
        assert (job.phase, job.message) == (JobPhase.RUNNING, "")


@pytest.mark.parametrize("promise", [None])
async def test_a_node_that_promised_nothing_is_waited_for_without_end(promise: float | None) -> None:
    async with House("n1", "n2") as house:
        house.agents["n2"].fenced_after = promise
        await lost(house, **FROM_CHECKPOINT)
        await house.advance(1000)
        assert house.running() == []
        assert "bring node/n2 back" in (await house.job("w")).message


async def test_a_new_leader_counts_the_silence_anew() -> None:
    async with House("n1", "n2") as house:
        await lost(house, **FROM_CHECKPOINT)
        await house.advance(14)
        await house.stop()
        await house.start()
        await house.advance(10)
        assert house.running() == []
        await house.advance(10)
        assert house.running() == ["n1"]


async def test_a_job_that_is_deleted_meanwhile_comes_to_rest_and_goes_with_its_node() -> None:
    async with House("n1", "n2") as house:
        await lost(house)
        await house.store.delete(Job, "w", "default")
        await house.advance(30)
        assert "node/n2 does not answer" in (await house.job("w")).message
        await back(house)
        await house.advance(31)
        assert house.kv.server.get(keys.object_key(Job, "w", "default")) is None
        assert house.running() == []
