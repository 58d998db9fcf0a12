"""Checkpoints on real agents: taken while the job runs on, restored on another node, over deaths of agents and damaged files."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crds import keys
from crds.placement import CheckpointOrder, Placement, Role
from crds.report import CheckpointReport, JobReport, ReportPhase
from nodeagent.engine import Copy
from nodeagent.errors import EngineFailed
from nodeagent.jobdir import CHECKPOINTS, job_directory
from store.kv import Put, unchanged
from store.memory import MemoryKV
from tests.integration.agents import NAMESPACE, Cluster, cluster_of, until

BEGUN = (ReportPhase.ARRIVING, ReportPhase.STARTING)
PATH = f"{CHECKPOINTS}/c-1"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    kv = MemoryKV(clock=time.monotonic)
    async with cluster_of(tmp_path, kv, kv.client, "n1", "n2") as made:
        yield made


def directory(cluster: Cluster, uid: str) -> Path:
    return job_directory(cluster.nodes["n1"].config.shared, Copy(NAMESPACE, "w", uid, 1))


async def change(cluster: Cluster, node: str, **changes: object) -> None:
    placement, revision = await cluster.placement(node, "w")
    assert placement is not None
    key = keys.placement(node, NAMESPACE, "w")
    assert await cluster.txn([unchanged(key, revision)], [Put(key, placement.model_copy(update=changes).to_json())])


async def order(cluster: Cluster, name: str = "c", path: str = PATH) -> None:
    await change(cluster, "n1", checkpoint=CheckpointOrder(name=name, path=path))


async def answer(cluster: Cluster, name: str = "c", node: str = "n1") -> CheckpointReport:
    async def there() -> bool:
        report = await cluster.report(node, "w")
        return report is not None and report.checkpoint is not None and report.checkpoint.name == name

    await until(there, f"an answer about checkpoint {name}")
    report = await cluster.report(node, "w")
    assert report is not None and report.checkpoint is not None
    return report.checkpoint


async def taken(cluster: Cluster, name: str = "c", path: str = PATH) -> CheckpointReport:
    await order(cluster, name, path)
    said = await answer(cluster, name)
    assert said.ok, said.message
    return said


async def restore(cluster: Cluster, node: str, uid: str, digest: str, *, epoch: int = 5, life: int = 1) -> JobReport:
    """What the reconciler writes when the job's node is lost; returns the first report that says how it went."""
    placement, _ = await cluster.placement("n1", "w")
    assert placement is not None
    go_on = CheckpointOrder(name="c", path=PATH, digest=digest)
    new = Placement(uid=uid, epoch=epoch, life=life, role=Role.RESTORE, spec=placement.spec, checkpoint=go_on)
    old = placement.model_copy(update={"role": Role.DROP, "epoch": epoch - 1, "checkpoint": None})
    operations = [Put(keys.placement(node, NAMESPACE, "w"), new.to_json())]
    if node != "n1":
        operations.append(Put(keys.placement("n1", NAMESPACE, "w"), old.to_json()))
    await cluster.write(*operations)
    return await restored(cluster, node, life)


async def restored(cluster: Cluster, node: str, life: int = 1) -> JobReport:
    async def there() -> bool:
        report = await cluster.report(node, "w")
        return report is not None and report.life == life and report.phase not in BEGUN

    await until(there, f"the job's life {life} on {node}")
    report = await cluster.report(node, "w")
    assert report is not None
    return report


async def test_the_job_runs_on_and_the_checkpoint_is_whole(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    said = await taken(cluster)
    assert said.bytes > 0 and said.freeze_ms is not None and len(said.digest) == 128
    await cluster.only_on(uid, "n1")
    assert {path.name for path in (directory(cluster, uid) / CHECKPOINTS).iterdir()} == {"c-1"}
    await cluster.no_images()
    assert (await cluster.reported("n1", "w", ReportPhase.RUNNING)) is not None


async def test_it_is_taken_once(cluster: Cluster) -> None:
    await cluster.running("w", "n1")
    await taken(cluster)
    await cluster.nodes["n1"].restart()
    await cluster.reported("n1", "w", ReportPhase.RUNNING)
    await taken(cluster, "c2", f"{CHECKPOINTS}/c-2")
    dumps = [call for call in cluster.nodes["n1"].knobs.calls if call.startswith("dump")]
    assert len(dumps) == 2


async def test_a_dump_that_fails_is_told_and_the_job_runs_on(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    cluster.nodes["n1"].knobs.errors["dump"].append(EngineFailed("io_uring"))
    await order(cluster)
    said = await answer(cluster)
    assert (said.ok, said.message) == (False, "io_uring")
    await cluster.only_on(uid, "n1")
    assert not (directory(cluster, uid) / PATH).exists()


@pytest.mark.parametrize("path", ["../x", "checkpoints/../..", "checkpoints/a/b", "tmp/x", "/etc"])
async def test_a_path_that_leads_elsewhere_is_refused(cluster: Cluster, path: str) -> None:
    uid = await cluster.running("w", "n1")
    await order(cluster, path=path)
    said = await answer(cluster)
    assert not said.ok and "no directory of a checkpoint" in said.message
    await cluster.only_on(uid, "n1")


@pytest.mark.parametrize("moment", ["checkpoint.frozen", "checkpoint.stored"])
async def test_agent_dies_in_the_middle_and_takes_it_again(cluster: Cluster, moment: str) -> None:
    uid = await cluster.running("w", "n1")
    node = cluster.nodes["n1"]
    node.moments.crash_at.add(moment)
    await order(cluster)
    await node.crashed()
    await node.start()
    assert (await answer(cluster)).ok
    await cluster.only_on(uid, "n1")
    await cluster.no_images()


async def test_agent_dies_while_the_job_stands_still(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    node = cluster.nodes["n1"]
    node.knobs.crash_at.add("dump.after")
    await order(cluster)
    await node.crashed()
    assert cluster.world.running(uid) == []
    await change(cluster, "n1", checkpoint=None)
    node.knobs = type(node.knobs)()
    await node.start()
    await cluster.only_on(uid, "n1")


async def test_the_job_ends_meanwhile(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    node = cluster.nodes["n1"]
    node.moments.wait_at["checkpoint.frozen"] = asyncio.Event()
    await order(cluster)
    await until(_seen(cluster, "checkpoint.frozen"), "the freeze")
    cluster.world.end(uid, 3)
    report = await cluster.reported("n1", "w", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 3


def _seen(cluster: Cluster, moment: str):  # type: ignore[no-untyped-def]
    async def there() -> bool:
        return moment in cluster.nodes["n1"].moments.seen

    return there


async def test_a_move_calls_it_off(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    node = cluster.nodes["n1"]
    node.moments.wait_at["checkpoint.frozen"] = asyncio.Event()
    await order(cluster)
    await until(_seen(cluster, "checkpoint.frozen"), "the freeze")
    await change(cluster, "n1", checkpoint=None)
    assert await cluster.move("w", "n1", "n2")
    await cluster.only_on(uid, "n2")
    assert not (directory(cluster, uid) / PATH).exists()


async def test_old_ones_are_removed(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    await taken(cluster)
    await change(cluster, "n1", discard=[PATH])

    async def gone() -> bool:
        report = await cluster.report("n1", "w")
        return report is not None and report.discarded == [PATH]

    await until(gone, "the files to be removed")
    assert not (directory(cluster, uid) / PATH).exists()


async def lost(cluster: Cluster, uid: str) -> None:
    """The machine goes down for good."""
    await cluster.nodes["n1"].stop()
    cluster.world.reboot("n1")
    assert cluster.world.running(uid) == []


async def test_goes_on_elsewhere_and_the_old_node_forgets_it(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    said = await taken(cluster)
    scratch = directory(cluster, uid) / "tmp"
    await lost(cluster, uid)
    report = await restore(cluster, "n2", uid, said.digest)
    assert (report.phase, report.epoch) == (ReportPhase.RUNNING, 5), report.message
    assert report.restored is not None and report.restored.ok and report.restored.name == "c"
    scratch.mkdir(exist_ok=True)
    await cluster.only_on(uid, "n2")
    await cluster.nodes["n1"].start()
    await cluster.reported("n1", "w", None)
    await cluster.only_on(uid, "n2")
    assert (directory(cluster, uid) / PATH).exists() and scratch.exists(), "its directory is the living copy's"


async def test_a_stale_copy_is_killed_when_its_node_returns(cluster: Cluster) -> None:
    """The agent alone was away, and the job ran on (its fencing failed, say)."""
    uid = await cluster.running("w", "n1")
    said = await taken(cluster)
    await cluster.nodes["n1"].stop()
    await restore(cluster, "n2", uid, said.digest)
    assert sorted(cluster.world.running(uid)) == ["n1", "n2"]
    await cluster.nodes["n1"].start()
    await cluster.reported("n1", "w", None)
    assert cluster.world.running(uid) == ["n2"]
    assert (directory(cluster, uid) / PATH).exists()


async def test_goes_on_on_the_same_node(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    said = await taken(cluster)
    cluster.world.end(uid, 1)
    await cluster.reported("n1", "w", ReportPhase.FAILED)
    report = await restore(cluster, "n1", uid, said.digest)
    assert report.phase == ReportPhase.RUNNING, report.message
    await cluster.only_on(uid, "n1")


@pytest.mark.parametrize("damage", ["digest", "pages", "missing"])
async def test_damage_is_told_and_nothing_runs(cluster: Cluster, damage: str) -> None:
    uid = await cluster.running("w", "n1")
    said = await taken(cluster)
    await lost(cluster, uid)
    target = directory(cluster, uid) / PATH
    if damage == "pages":
        (target / "pages-1.img").write_bytes(b"x")
    elif damage == "missing":
        target.rename(target.with_name("elsewhere"))
    report = await restore(cluster, "n2", uid, "0" if damage == "digest" else said.digest)
    assert report.phase == ReportPhase.ABSENT
    assert report.restored is not None and report.restored.damaged and report.restored.ok is False
    assert cluster.world.copies(uid) == []
    await cluster.no_images()


async def test_a_restore_that_fails_is_told_and_nothing_runs(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    said = await taken(cluster)
    await lost(cluster, uid)
    cluster.nodes["n2"].knobs.errors["restore"].append(EngineFailed("no such thing"))
    report = await restore(cluster, "n2", uid, said.digest)
    assert report.phase == ReportPhase.ABSENT
    assert report.restored is not None and not report.restored.damaged and "no such thing" in report.restored.message
    assert cluster.world.copies(uid) == []


@pytest.mark.parametrize("moment", ["Restore.after", "revive.fetched", "revive.restored", "Held.before", "Held.after"])
async def test_agent_dies_while_restoring_and_does_it_again(cluster: Cluster, moment: str) -> None:
    uid = await cluster.running("w", "n1")
    said = await taken(cluster)
    await lost(cluster, uid)
    node = cluster.nodes["n2"]
    node.moments.crash_at.add(moment)
    restoring = asyncio.create_task(restore(cluster, "n2", uid, said.digest))
    await node.crashed()
    assert cluster.world.running(uid) == [], "nothing runs before the record says so and the job is let go"
    await node.start()
    assert (await restoring).phase == ReportPhase.RUNNING
    await cluster.only_on(uid, "n2")


async def test_the_job_is_deleted_while_it_is_restored(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    said = await taken(cluster)
    await lost(cluster, uid)
    node = cluster.nodes["n2"]
    node.moments.wait_at["revive.restored"] = asyncio.Event()
    restoring = asyncio.create_task(restore(cluster, "n2", uid, said.digest))

    async def there() -> bool:
        return "revive.restored" in node.moments.seen

    await until(there, "the restore")
    restoring.cancel()
    await cluster.delete("w", "n1", "n2")
    await cluster.reported("n2", "w", None)
    assert cluster.world.copies(uid) == []
    assert not directory(cluster, uid).exists()


async def test_started_anew_a_job_starts_once_more_and_only_once(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    cluster.world.end(uid, 1)
    await cluster.reported("n1", "w", ReportPhase.FAILED)
    await change(cluster, "n1", epoch=2, life=1)
    assert (await restored(cluster, "n1")).phase == ReportPhase.RUNNING
    await cluster.nodes["n1"].restart()
    await cluster.only_on(uid, "n1")
    starts = [call for call in cluster.nodes["n1"].knobs.calls if call.startswith("start")]
    assert len(starts) == 2


async def test_agent_dies_between_intent_and_start_of_a_new_life(cluster: Cluster) -> None:
    uid = await cluster.running("w", "n1")
    cluster.world.end(uid, 1)
    await cluster.reported("n1", "w", ReportPhase.FAILED)
    node = cluster.nodes["n1"]
    node.moments.crash_at.add("Starting.after")
    await change(cluster, "n1", epoch=2, life=1)
    await node.crashed()
    await node.start()
    report = await restored(cluster, "n1")
    assert report.phase == ReportPhase.LOST, "it may have been started, so it is not started again"
    assert cluster.world.running(uid) == []
