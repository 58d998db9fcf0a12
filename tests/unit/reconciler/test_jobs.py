"""A job's life: placed, started, ended, deleted, and what may come between."""

import pytest

from crds import keys
from crds.job import Job, JobPhase
from crds.meta import find_condition, is_true
from crds.node import Node
from crds.placement import Placement, Role
from crds.report import JobReport, ReportPhase
from store.errors import NotFound
from store.kv import Delete, Put

from .house import House

RUN = Role.RUN


async def test_a_job_is_placed_started_and_mirrored() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n2")
        await house.settle()
        job = await house.job("w")
        assert (job.phase, job.node, job.epoch) == (JobPhase.RUNNING, "n2", 1)
        assert is_true(job.conditions, "Scheduled") and is_true(job.conditions, "Running")
        assert house.placements() == {"n2": (RUN, 1)}
        assert {"Scheduled w", "Started w"} <= set(await house.events())


async def test_before_its_agent_acts_a_job_is_starting() -> None:
    async with House("n1") as house:
        house.agents["n1"].up = False
        await house.run("w")
        await house.settle()
        assert (await house.job("w")).phase == JobPhase.STARTING


@pytest.mark.parametrize(("code", "phase", "condition"), [(0, JobPhase.SUCCEEDED, "Complete"), (3, JobPhase.FAILED, "Failed")])
async def test_the_end_is_mirrored_and_placement_and_report_stay(code: int, phase: JobPhase, condition: str) -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        house.agents["n1"].finish("default/w", code)
        await house.settle()
        job = await house.job("w")
        assert (job.phase, job.exit_code) == (phase, code)
        assert is_true(job.conditions, condition) and not is_true(job.conditions, "Running")
        assert house.placements() == {"n1": (RUN, 1)}
        assert house.world.reports.find("n1", "default/w") is not None
        assert "Finished w" in await house.events()


async def test_a_job_that_fits_nowhere_says_why_for_each_node_and_is_placed_when_a_node_appears() -> None:
    async with House("n1", "n2") as house:
        for name in ("n1", "n2"):
            await house.change(Node, name, lambda node: setattr(node.spec, "unschedulable", True))
        await house.run("w")
        await house.settle()
        job = await house.job("w")
        condition = find_condition(job.conditions, "Scheduled")
        assert job.phase == JobPhase.PENDING and condition is not None and condition.reason == "NoNodeFits"
        assert "n1" in condition.message and "n2" in condition.message
        await house.add_node("n3")
        await house.settle()
        assert (await house.job("w")).node == "n3"


async def test_many_jobs_at_once_are_spread_as_if_they_had_come_one_by_one() -> None:
    async with House("n1", "n2", "n3", "n4") as house:
        for number in range(8):
            await house.run(f"w{number}")
        await house.settle()
        nodes = [(await house.job(f"w{number}")).node for number in range(8)]
        assert sorted(nodes) == ["n1", "n1", "n2", "n2", "n3", "n3", "n4", "n4"]


async def test_delete_stops_the_job_and_frees_the_name() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        assert not await house.store.delete(Job, "w", "default")
        await house.settle()
        with pytest.raises(NotFound):
            await house.job("w")
        assert house.running() == [] and house.placements() == {}
        await house.run("w")
        await house.settle()
        assert (await house.job("w")).phase == JobPhase.RUNNING


async def test_a_job_that_was_never_placed_goes_at_once() -> None:
    async with House() as house:
        await house.run("w")
        await house.settle()
        await house.store.delete(Job, "w", "default")
        await house.settle()
        with pytest.raises(NotFound):
            await house.job("w")


async def test_delete_waits_for_a_node_that_does_not_answer() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        house.agents["n1"].die()
        await house.advance(30)
        assert (await house.job("w")).phase == JobPhase.UNKNOWN
        await house.store.delete(Job, "w", "default")
        await house.advance(60)
        assert "n1 does not answer" in (await house.job("w")).message
        house.agents["n1"].up = True
        house.agents["n1"].beat()
        await house.advance(5)
        with pytest.raises(NotFound):
            await house.job("w")


async def test_delete_does_not_wait_for_a_silent_node_on_which_the_job_had_ended() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        house.agents["n1"].finish("default/w")
        await house.settle()
        house.agents["n1"].die()
        await house.advance(30)
        await house.store.delete(Job, "w", "default")
        await house.settle()
        with pytest.raises(NotFound):
            await house.job("w")


async def test_a_lost_node_makes_its_jobs_unknown_and_they_come_back_with_it() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        house.agents["n1"].die()
        await house.advance(10)
        assert (await house.job("w")).phase == JobPhase.RUNNING
        await house.advance(20)
        assert (await house.job("w")).phase == JobPhase.UNKNOWN
        house.agents["n1"].up = True
        house.agents["n1"].beat()
        await house.settle()
        assert (await house.job("w")).phase == JobPhase.RUNNING
        assert {"NodeNotReady n1", "NodeReady n1"} <= set(await house.events())


async def test_a_job_lost_in_a_restart_of_its_machine_has_failed() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        house.agents["n1"].lose("default/w")
        await house.settle()
        condition = find_condition((await house.job("w")).conditions, "Failed")
        assert condition is not None and condition.reason == "ProcessLost"


async def test_a_job_of_a_node_that_was_taken_out_of_the_cluster_has_failed() -> None:
    async with House("n1") as house:
        house.agents["n1"].holds = {"start"}
        await house.run("w")
        await house.settle()
        house.agents["n1"].die()
        await house.advance(30)
        await house.store.delete(Node, "n1")
        await house.run("v", on="n1")
        await house.advance(1)
        condition = find_condition((await house.job("w")).conditions, "Failed")
        assert condition is not None and condition.reason == "NodeLost"


async def test_a_placement_deleted_behind_our_back_is_not_written_again() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        await house.kv.txn([], [Delete(keys.placement("n1", "default", "w"))])
        await house.settle()
        job = await house.job("w")
        assert job.phase == JobPhase.FAILED and "behind our back" in job.message
        assert house.placements() == {}


async def test_a_report_of_an_earlier_job_of_that_name_says_nothing() -> None:
    async with House("n1") as house:
        house.agents["n1"].holds = {"clean", "start", "lost"}
        old = JobReport(uid="old", epoch=1, phase=ReportPhase.SUCCEEDED, boot_id="b", exit_code=0)
        await house.kv.txn([], [Put(keys.report("n1", "default", "w"), old.to_json())])
        await house.run("w")
        await house.settle()
        assert (await house.job("w")).phase == JobPhase.STARTING


async def test_a_name_taken_again_waits_until_the_old_placement_is_gone() -> None:
    async with House("n1") as house:
        spec = (await _any_job(house)).spec
        orphan = Placement(uid="old", epoch=7, role=RUN, spec=spec)
        await house.kv.txn([], [Put(keys.placement("n1", "default", "w"), orphan.to_json())])
        await house.run("w")
        await house.advance(2)
        assert house.placements() == {"n1": (RUN, 1)}
        assert (await house.job("w")).phase == JobPhase.RUNNING


async def test_figures_alone_are_not_written_more_often_than_every_few_seconds() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        await house.advance(10)
        before = (await house.store.get(Job, "w")).metadata.resource_version
        for second in range(20):
            report = house.world.reports.find("n1", "default/w")
            assert report is not None
            new = report.value.model_copy(update={"cpu_seconds": float(second)})
            await house.kv.txn([], [Put(report.key, new.to_json())])
            await house.advance(1)
        await house.advance(10)
        assert (await house.job("w")).cpu_seconds == 19
        writes = await _writes(house, keys.object_key(Job, "w", "default"), before or 0)
        assert 3 <= writes <= 5


async def _any_job(house: House) -> Job:
    await house.run("other")
    await house.settle()
    return await house.store.get(Job, "other")


async def _writes(house: House, key: str, since: int) -> int:
    kv = house.kv.server.get(key)
    old = next(v for v in house.kv.server._versions[key] if v.mod_revision == since)
    assert kv is not None
    return kv.version - old.version
