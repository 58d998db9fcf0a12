"""Jobs on one node: started exactly once, reported truly, adopted, stopped; over restarts and outages."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crds import keys
from crds.load import Alive, LoadVector
from crds.report import JobReport, ReportPhase
from nodeagent.agent import Agent, AgentRunning
from nodeagent.engine import Copy
from nodeagent.jobdir import job_directory
from store.kv import Delete, Put
from store.memory import MemoryKV
from tests.fakes.engine import FakeEngine
from tests.integration.agents import NAMESPACE, Cluster, Node, cluster_of, until


@pytest.fixture
def kv() -> MemoryKV:
    return MemoryKV(clock=time.monotonic)


@pytest.fixture
async def cluster(tmp_path: Path, kv: MemoryKV) -> AsyncIterator[Cluster]:
    async with cluster_of(tmp_path, kv, kv.client, "n1") as made:
        yield made


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.nodes["n1"]


def memory(node: Node) -> MemoryKV:
    assert isinstance(node.kv, MemoryKV)
    return node.kv


async def test_tells_that_it_lives_and_how_loaded_it_is(cluster: Cluster, node: Node) -> None:
    async def told() -> bool:
        return await cluster.kv.get(keys.load("n1")) is not None

    await until(told, "the load")
    kv = await cluster.kv.get(keys.alive("n1"))
    assert kv is not None and kv.lease
    alive = Alive.model_validate_json(kv.value)
    assert (alive.address, alive.criu, alive.cpu) == (node.address, "fake", 2)
    load = await cluster.kv.get(keys.load("n1"))
    assert load is not None and LoadVector.model_validate_json(load.value).cpu_capacity == 2


async def test_runs_a_job_to_its_end(cluster: Cluster) -> None:
    await cluster.run("w", "n1", "sleep", "0.05")
    report = await cluster.reported("n1", "w", ReportPhase.SUCCEEDED)
    assert report is not None and (report.epoch, report.exit_code) == (1, 0)
    assert report.started_at is not None and report.finished_at is not None and report.started_at < report.finished_at


async def test_reports_the_exit_code(cluster: Cluster) -> None:
    await cluster.run("w", "n1", "exit", "3")
    report = await cluster.reported("n1", "w", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 3


async def test_reports_a_program_that_does_not_exist(cluster: Cluster) -> None:
    await cluster.run("w", "n1", "/no/such")
    report = await cluster.reported("n1", "w", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 127 and "/no/such" in report.message


async def test_removes_scratch_at_the_end_and_everything_on_deletion(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    directory = job_directory(node.config.shared, Copy(NAMESPACE, "w", uid, 1))
    for name in ("tmp", "shm"):
        (directory / name).mkdir(parents=True)
    (directory / "output.log").write_text("said")
    cluster.world.end(uid, 0)

    async def tidy() -> bool:
        return not (directory / "tmp").exists() and not (directory / "shm").exists()

    await until(tidy, "scratch to be removed")
    assert (directory / "output.log").read_text() == "said"
    await cluster.delete("w", "n1")
    await cluster.reported("n1", "w", None)
    assert not directory.exists()


async def test_deletion_asks_the_job_to_end_and_leaves_nothing(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    job = cluster.world.copies(uid)[0].job
    await cluster.delete("w", "n1")
    await cluster.reported("n1", "w", None)
    assert job is not None and job.received == [15]
    assert cluster.world.shims == {}

    async def forgotten() -> bool:
        return not list(node.config.journal.glob("*"))  # the last thing to go

    await until(forgotten, "the journal to forget the job")


async def test_adopts_a_running_job_after_a_restart(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    identity = cluster.world.copies(uid)[0].job
    await node.restart()
    await cluster.reported("n1", "w", ReportPhase.RUNNING)
    assert cluster.world.copies(uid)[0].job is identity
    assert cluster.world.running(uid) == ["n1"]
    cluster.world.end(uid, 7)
    report = await cluster.reported("n1", "w", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 7


async def test_reports_what_ended_while_no_agent_ran(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    await node.stop()
    cluster.world.end(uid, 0)
    await node.start()
    await cluster.reported("n1", "w", ReportPhase.SUCCEEDED)


async def test_reports_a_job_lost_with_its_machine(cluster: Cluster, node: Node) -> None:
    await cluster.running("w", "n1")
    await node.stop()
    cluster.world.reboot("n1")
    await node.start()
    report = await cluster.reported("n1", "w", ReportPhase.LOST)
    assert report is not None and report.exit_code is None


NOT_YET = ["Start.before", "Start.after", "start.intent", "start.created", "Starting.before"]
UNCERTAIN = ["Starting.after"]
STARTED = ["start.started", "Held.before", "Held.after"]


@pytest.mark.parametrize("moment", [*NOT_YET, *UNCERTAIN, *STARTED])
async def test_never_starts_a_job_twice(cluster: Cluster, node: Node, moment: str) -> None:
    """The agent dies while it starts the job; afterwards it was started once, or is reported lost where nobody can know."""
    node.moments.crash_at.add(moment)
    uid = await cluster.run("w", "n1")
    await node.crashed()
    await node.start()

    async def settled() -> bool:
        return await cluster.phase("n1", "w") in (ReportPhase.RUNNING, ReportPhase.LOST)

    await until(settled, "the job to be judged")
    started = [call for call in node.knobs.calls if call.startswith("start ")]
    assert len(started) == (0 if moment in UNCERTAIN else 1)
    lost = await cluster.phase("n1", "w") == ReportPhase.LOST
    assert cluster.world.running(uid) == ([] if lost else ["n1"])
    assert lost == (moment in UNCERTAIN)


async def test_does_not_start_what_its_own_report_names(cluster: Cluster, node: Node) -> None:
    """Report without journal: the disk was lost, and with it what the agent knew."""
    await node.stop()
    uid = "uid-w-00000001"
    report = JobReport(uid=uid, epoch=1, phase=ReportPhase.RUNNING, boot_id="another")
    await cluster.write(Put(keys.report("n1", NAMESPACE, "w"), report.to_json()))
    assert await cluster.run("w", "n1") == uid
    await node.start()
    await cluster.reported("n1", "w", ReportPhase.LOST)
    assert not [call for call in node.knobs.calls if call.startswith("start ")]


async def test_finds_a_running_job_again_without_its_journal(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    await node.stop()
    for file in node.config.journal.glob("*"):
        file.unlink()
    await node.start()
    await cluster.reported("n1", "w", ReportPhase.RUNNING)
    assert cluster.world.running(uid) == ["n1"]
    cluster.world.end(uid, 6)
    report = await cluster.reported("n1", "w", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 6


async def test_starts_once_when_the_answer_to_its_intent_is_lost(cluster: Cluster, node: Node) -> None:
    memory(node).fail_next("txn", applied=True)
    await cluster.running("w", "n1")
    assert len([call for call in node.knobs.calls if call.startswith("start ")]) == 1


async def test_a_job_of_the_same_name_comes_after_the_old_one_has_gone(cluster: Cluster, node: Node) -> None:
    old = await cluster.running("w", "n1")
    new = await cluster.run("w", "n1")

    async def replaced() -> bool:
        report = await cluster.report("n1", "w")
        return report is not None and report.uid == new and report.phase == ReportPhase.RUNNING

    await until(replaced, "the new job to run")
    assert cluster.world.copies(old) == [] and cluster.world.running(new) == ["n1"]


async def test_an_outage_of_etcd_changes_nothing_for_the_jobs(cluster: Cluster, node: Node) -> None:
    stays, ends = await cluster.running("stays", "n1"), await cluster.running("ends", "n1")
    memory(node).down = True
    cluster.world.end(ends, 4)
    memory(node).advance(60)  # the lease ends too
    memory(node).down = False
    report = await cluster.reported("n1", "ends", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 4
    assert cluster.world.running(stays) == ["n1"]

    async def alive() -> bool:
        return await cluster.kv.get(keys.alive("n1")) is not None

    await until(alive, "a new session")


async def test_a_restart_in_an_outage_waits_and_does_no_harm(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    memory(node).down = True
    await node.stop()
    task = asyncio.create_task(node.start())
    await asyncio.sleep(0)
    assert cluster.world.running(uid) == ["n1"]
    memory(node).down = False
    await task
    cluster.world.end(uid, 0)
    await cluster.reported("n1", "w", ReportPhase.SUCCEEDED)


async def test_writes_again_what_vanished_from_etcd(cluster: Cluster, node: Node) -> None:
    """A session lost and reports wiped: the new session puts them back."""
    await cluster.running("w", "n1")
    await cluster.write(Delete(keys.report("n1", NAMESPACE, "w")))
    memory(node).advance(60)
    await cluster.reported("n1", "w", ReportPhase.RUNNING)


async def test_a_placement_nobody_can_read_is_not_a_missing_one(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    await cluster.write(Put(keys.placement("n1", NAMESPACE, "w"), b"{broken"))
    await cluster.running("other", "n1")
    assert cluster.world.running(uid) == ["n1"]


async def test_removes_copies_that_nothing_names(cluster: Cluster, node: Node) -> None:
    await node.stop()
    await FakeEngine(cluster.world, "n1").create(Copy(NAMESPACE, "stray", "uid-stray", 3))
    await node.start()

    async def gone() -> bool:
        return not cluster.world.shims

    await until(gone, "the stray copy to go")


async def test_only_one_agent_holds_a_state_directory(cluster: Cluster, node: Node) -> None:
    second = Node("n1", cluster.root, cluster.kv, cluster.world)
    with pytest.raises(AgentRunning):
        await Agent(second.config, second.kv, FakeEngine(cluster.world, "n1"), second.load).run()


async def test_garbage_under_its_own_report_is_replaced(cluster: Cluster) -> None:
    """It would keep the reconciler from deciding about the job."""
    await cluster.running("w", "n1")
    key = keys.report("n1", NAMESPACE, "w")
    await cluster.write(Put(key, b"no JSON at all"))
    await cluster.write(Put(keys.report("n1", NAMESPACE, "nobody"), b"{}"))

    async def told() -> bool:
        kv = await cluster.kv.get(key)
        return kv is not None and kv.value != b"no JSON at all"

    await until(told, "the report to be written anew")
    await cluster.reported("n1", "w", ReportPhase.RUNNING)

    async def cleared() -> bool:
        return await cluster.kv.get(keys.report("n1", NAMESPACE, "nobody")) is None

    await until(cleared, "what is about no job to be removed")
