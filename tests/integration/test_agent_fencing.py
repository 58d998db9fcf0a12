"""A node that lost touch makes its jobs stand still by itself, and only what still is its own goes on."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from crds import keys
from crds.job import FENCED, Fencing
from crds.placement import Role
from crds.report import ReportPhase
from nodeagent import guard
from nodeagent.engine import Copy
from nodeagent.fence import margin
from nodeagent.jobdir import job_directory
from store.kv import Delete, Put, absent, unchanged
from store.memory import MemoryKV
from tests.integration.agents import NAMESPACE, TIMING, Cluster, Node, cluster_of, until
from tests.integration.moving import memory

LEASE = 2.0
QUICK = replace(TIMING, lease=LEASE)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    kv = MemoryKV(clock=time.monotonic)
    async with cluster_of(tmp_path, kv, kv.client) as made:
        for name in ("n1", "n2"):
            await made.node(name, timing=QUICK)
        yield made


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.nodes["n1"]


async def stands_still(cluster: Cluster, uid: str) -> None:
    async def still() -> bool:
        return cluster.world.running(uid) == []

    await until(still, "the job to stand still")


async def goes_on(cluster: Cluster, uid: str, node: str = "n1") -> None:
    async def runs() -> bool:
        return cluster.world.running(uid) == [node]

    await until(runs, f"the job to run on {node}")


async def promised(cluster: Cluster, seconds: float | None, node: str = "n1") -> None:
    async def told() -> bool:
        report = await cluster.report(node, "w")
        return report is not None and report.fenced_after == seconds

    await until(told, f"the report to promise {seconds}")


async def test_it_stands_still_before_anybody_can_miss_the_node_and_goes_on_afterwards(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    memory(node).down = True
    await stands_still(cluster, uid)
    assert await cluster.kv.get(keys.alive("n1")) is not None
    assert (await cluster.report("n1", "w")).phase == ReportPhase.RUNNING  # type: ignore[union-attr]

    async def gone() -> bool:
        return await cluster.kv.get(keys.alive("n1")) is None

    await until(gone, "the lease to run out")
    assert cluster.world.running(uid) == []
    memory(node).down = False
    await cluster.only_on(uid, "n1")


async def test_a_short_outage_stops_nothing(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    deadline = guard.read_deadline(str(node.config.run)) or 0.0
    memory(node).down = True

    async def soon() -> bool:
        assert cluster.world.running(uid) == ["n1"]
        return guard.clock() > deadline - 0.5

    await until(soon, "most of the lease to pass")
    memory(node).down = False

    async def extended() -> bool:
        assert cluster.world.running(uid) == ["n1"]
        return (guard.read_deadline(str(node.config.run)) or 0.0) > deadline + 1.0

    await until(extended, "the deadline to move")


async def test_the_deadline_is_that_of_the_last_renewal_that_found_the_heartbeat(cluster: Cluster, node: Node) -> None:
    """A lease that is renewed while its key is gone is worth nothing: others go by the key."""
    uid = await cluster.running("w", "n1")
    client = memory(node)
    for _ in range(500):
        client.fail_next("txn")  # as etcd does when its disk is full: leases are kept, nothing is written
    await cluster.kv.txn([], [Delete(keys.alive("n1"))])
    await stands_still(cluster, uid)
    assert (guard.read_deadline(str(node.config.run)) or 0.0) <= guard.clock()


async def test_a_heartbeat_that_somebody_deleted_is_put_again(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    await cluster.kv.txn([], [Delete(keys.alive("n1"))])

    async def back() -> bool:
        assert cluster.world.running(uid) == ["n1"]
        return await cluster.kv.get(keys.alive("n1")) is not None

    await until(back, "the heartbeat to be back")


async def test_a_restarted_agent_lets_nothing_go_on_before_it_has_a_session(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    await node.stop()
    cluster.world.fence("n1")  # the guard
    guard.write_deadline(str(node.config.run), guard.clock() - 1)
    memory(node).down = True
    node.knobs.calls.clear()
    starting = asyncio.create_task(node.start())

    async def adopted() -> bool:
        return any(call.startswith("adopt") for call in node.knobs.calls)

    await until(adopted, "the copy to be adopted")
    assert cluster.world.running(uid) == []
    memory(node).down = False
    await starting
    await goes_on(cluster, uid)


async def test_what_was_taken_away_never_runs_again_and_leaves_the_directory(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    await promised(cluster, LEASE)
    directory = job_directory(node.config.shared, Copy(NAMESPACE, "w", uid, 1))
    directory.mkdir(parents=True, exist_ok=True)
    memory(node).down = True
    await stands_still(cluster, uid)

    async def gone() -> bool:
        return await cluster.kv.get(keys.alive("n1")) is None

    await until(gone, "the lease to run out")
    placement, revision = await cluster.placement("n1", "w")
    assert placement is not None
    here = keys.placement("n1", NAMESPACE, "w")
    drop = placement.model_copy(update={"role": Role.DROP, "epoch": 2})
    assert await cluster.txn([unchanged(here, revision), absent(keys.alive("n1"))], [Put(here, drop.to_json())])
    node.knobs.calls.clear()
    memory(node).down = False
    await cluster.reported("n1", "w", None)
    assert cluster.world.copies(uid) == []
    assert not any(call.startswith("unfence") for call in node.knobs.calls)
    assert directory.is_dir()


async def test_a_job_that_was_deleted_meanwhile_is_stopped_as_any_other(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    memory(node).down = True
    await stands_still(cluster, uid)
    await cluster.delete("w", "n1")
    memory(node).down = False
    await cluster.reported("n1", "w", None)
    assert cluster.world.copies(uid) == []


async def test_kill(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1", fencing=Fencing.KILL)
    await promised(cluster, LEASE)
    memory(node).down = True
    await stands_still(cluster, uid)
    assert cluster.world.copies(uid) == []
    memory(node).down = False
    report = await cluster.reported("n1", "w", ReportPhase.FAILED)
    assert report is not None
    assert (report.reason, report.exit_code) == (FENCED, 137)
    assert "lost touch with the cluster (fencing: kill)" in report.message


async def test_keep(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1", fencing=Fencing.KEEP)
    other = await cluster.running("x", "n1")
    memory(node).down = True
    await stands_still(cluster, other)
    assert cluster.world.running(uid) == ["n1"]
    report = await cluster.report("n1", "w")
    assert report is not None
    assert report.fenced_after is None
    memory(node).down = False
    await goes_on(cluster, other)
    assert cluster.world.running(uid) == ["n1"]


async def test_a_promise_is_taken_back_before_the_policy_changes_and_made_after(cluster: Cluster, node: Node) -> None:
    uid = await cluster.running("w", "n1")
    await promised(cluster, LEASE)
    shim = cluster.world.copies(uid)[0]
    key = keys.placement("n1", NAMESPACE, "w")
    for wish, seconds in ((Fencing.KEEP, None), (Fencing.KILL, LEASE), (Fencing.KEEP, None), (Fencing.FREEZE, LEASE)):
        placement, _ = await cluster.placement("n1", "w")
        assert placement is not None
        await cluster.write(Put(key, placement.model_copy(update={"fencing": wish}).to_json()))

        async def told(wish: Fencing = wish, seconds: float | None = seconds) -> bool:
            report = await cluster.report("n1", "w")
            assert report is not None
            if shim.policy == Fencing.KEEP:
                assert report.fenced_after is None or wish != Fencing.KEEP
            return report.fenced_after == seconds and shim.policy == wish

        await until(told, f"{wish} to be told")


async def test_without_a_guard_nothing_is_promised(cluster: Cluster, node: Node) -> None:
    await cluster.running("w", "n1")
    await promised(cluster, LEASE)
    (node.config.run / guard.PROCESS).unlink()
    await promised(cluster, None)
    guard.write_whole(str(node.config.run / guard.PROCESS), "1 1\n")
    assert "has ended" in guard.absent(str(node.config.run))


@pytest.mark.parametrize("moment", ["Connecting.after", "leave.connected", "Freezing.after", "Sent.after"])
async def test_a_source_that_is_fenced_in_the_middle_of_a_move(cluster: Cluster, node: Node, moment: str) -> None:
    """Whichever way the move ends then, one copy runs, never two."""
    await fenced_in_the_middle(cluster, node, moment)


@pytest.mark.parametrize("moment", ["Preparing.after", "Receiving.after", "arrive.restored", "Committing.after", "arrive.claimed"])
async def test_a_destination_that_is_fenced_in_the_middle_of_a_move(cluster: Cluster, moment: str) -> None:
    await fenced_in_the_middle(cluster, cluster.nodes["n2"], moment)


async def fenced_in_the_middle(cluster: Cluster, node: Node, moment: str) -> None:
    held = node.moments.wait_at[moment] = asyncio.Event()
    uid = await cluster.running("w", "n1")
    ordered = await cluster.order("w", "n1", "n2", deadline=6.0)

    async def reached() -> bool:
        return moment in node.moments.seen

    await until(reached, moment)
    memory(node).down = True

    async def fenced() -> bool:
        return guard.clock() > (guard.read_deadline(str(node.config.run)) or 0.0)

    await until(fenced, "the deadline to pass")
    held.set()
    memory(node).down = False
    moved = await ordered.decided()
    await cluster.only_on(uid, "n2" if moved else "n1")


def test_the_margin_leaves_most_of_the_lease() -> None:
    assert (margin(15.0), margin(3.0)) == (1.5, 0.5)


async def test_the_frozen_copy_is_a_checkpoint_when_the_destination_is_lost_with_the_job(cluster: Cluster, node: Node) -> None:
    """It claimed the job and died; the job is taken back, and the copy at the destination never runs."""
    destination = cluster.nodes["n2"]
    destination.moments.crash_at.add("arrive.claimed")
    uid = await cluster.running("w", "n1")
    ordered = await cluster.order("w", "n1", "n2")
    await destination.crashed()

    async def gone() -> bool:
        return await cluster.kv.get(keys.alive("n2")) is None

    await until(gone, "the lease to run out")
    assert await taken_back(cluster, ordered.epoch)
    await goes_on(cluster, uid)
    await destination.start()
    await cluster.reported("n2", "w", None)
    await cluster.only_on(uid, "n1")


async def taken_back(cluster: Cluster, epoch: int) -> bool:
    """The reconciler's write: only while the source still says that it has the frozen copy, and the destination is silent."""
    report = await cluster.kv.get(keys.report("n1", NAMESPACE, "w"))
    assert report is not None
    if (await cluster.phase("n1", "w")) != ReportPhase.FROZEN:
        return False
    placements = [await cluster.placement(name, "w") for name in ("n1", "n2")]
    roles = (Role.RUN, Role.DROP)
    puts = [
        Put(keys.placement(name, NAMESPACE, "w"), found.model_copy(update={"role": role, "epoch": epoch + 1}).to_json())
        for name, role, (found, _) in zip(("n1", "n2"), roles, placements, strict=True)
        if found is not None
    ]
    return await cluster.txn([unchanged(report.key, report.mod_revision), absent(keys.alive("n2"))], list(puts))


async def test_a_source_that_cannot_say_so_keeps_its_frozen_copy(cluster: Cluster, node: Node) -> None:
    """It heard from the destination that the job runs there, but not etcd: then nobody may count on its copy being gone."""
    destination = cluster.nodes["n2"]
    held = destination.moments.wait_at["arrive.resumed"] = asyncio.Event()
    uid = await cluster.running("w", "n1")
    ordered = await cluster.order("w", "n1", "n2")

    async def resumed() -> bool:
        return "arrive.resumed" in destination.moments.seen

    await until(resumed, "the destination's copy to run")
    memory(node).down = True
    held.set()

    async def heard() -> bool:
        return "leave.running" in node.moments.seen

    await until(heard, "the destination's word")
    assert {shim.node for shim in cluster.world.copies(uid)} == {"n1", "n2"}
    assert cluster.world.running(uid) == ["n2"]
    memory(node).down = False
    assert await ordered.decided()
    await cluster.only_on(uid, "n2")
    await cluster.reported("n1", "w", None)
