"""An end of a move dies at every step, reboots, or loses etcd: one copy runs, and the reports are true."""

import asyncio
import time

import pytest

from crds.report import ReportPhase
from crds.states import DestinationStep, SourceStep
from nodeagent.errors import EngineFailed
from tests.integration.agents import Cluster, Node, until
from tests.integration.moving import DESTINATION, SOURCE, check_moved, check_stayed, memory, report_of, seen

SOURCE_DIES = {
    "Connecting.before": True,
    "Connecting.after": True,
    "leave.connected": False,
    "leave.ahead": False,
    "Freezing.before": False,
    "Freezing.after": False,
    "leave.streamed": False,
    "Sent.before": False,
    "Sent.after": False,
    "leave.end_sent": True,
    "leave.running": True,
    "Gone.before": True,
    "Gone.after": True,
}
"""Moment of the source's death -> whether the job moves all the same."""


@pytest.mark.parametrize(("moment", "moves"), SOURCE_DIES.items())
async def test_the_source_dies(cluster: Cluster, source: Node, moment: str, moves: bool) -> None:
    source.moments.crash_at.add(moment)
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await source.crashed()
    await source.start()
    assert await ordered.decided() == moves
    await (check_moved if moves else check_stayed)(cluster, uid)


@pytest.mark.parametrize("point", ["dump", "dump.half", "dump.after"])
async def test_the_source_dies_while_criu_dumps(cluster: Cluster, source: Node, point: str) -> None:
    source.knobs.crash_at.add(point)
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await source.crashed()
    await source.start()
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


DESTINATION_DIES = {
    "Preparing.before": True,
    "Preparing.after": True,
    "arrive.prepared": True,
    "Receiving.before": True,
    "Receiving.after": False,
    "arrive.received": False,
    "Restoring.before": False,
    "Restoring.after": False,
    "arrive.restored": False,
    "Committing.before": False,
    "Committing.after": True,
    "arrive.claimed": True,
    "Committed.before": True,
    "Committed.after": True,
    "arrive.resumed": True,
    "Running.before": True,
    "Running.after": True,
}
"""Moment of the destination's death -> whether the job moves all the same."""


@pytest.mark.parametrize(("moment", "moves"), DESTINATION_DIES.items())
async def test_the_destination_dies(cluster: Cluster, destination: Node, moment: str, moves: bool) -> None:
    destination.moments.crash_at.add(moment)
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await destination.crashed()
    await destination.start()
    assert await ordered.decided() == moves, ordered.outcome
    await (check_moved if moves else check_stayed)(cluster, uid)


async def test_a_restarted_destination_knows_how_long_the_job_stood_still(cluster: Cluster, destination: Node) -> None:
    destination.moments.crash_at.add("Committed.after")
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await destination.crashed()
    crashed = time.monotonic()
    while time.monotonic() < crashed + 0.2:
        assert cluster.world.running(uid) == []
        await asyncio.sleep(0.01)
    await destination.start()
    assert await ordered.decided()
    report = await check_moved(cluster, uid)
    assert report.move is not None and report.move.freeze_ms is not None
    assert 200 <= report.move.freeze_ms < 10_000


@pytest.mark.parametrize(
    ("point", "moves"), {"create": True, "restore": False, "restore.after": False, "resume": True, "resume.after": True}.items()
)
async def test_the_destination_dies_inside_criu(cluster: Cluster, destination: Node, point: str, moves: bool) -> None:
    destination.knobs.crash_at.add(point)
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await destination.crashed()
    await destination.start()
    assert await ordered.decided() == moves
    await (check_moved if moves else check_stayed)(cluster, uid)


@pytest.mark.parametrize("moment", ["Resumed.before", "Resumed.after"])
async def test_the_source_dies_while_it_takes_the_job_back(cluster: Cluster, source: Node, destination: Node, moment: str) -> None:
    destination.knobs.errors["restore"].append(EngineFailed("no"))
    source.moments.crash_at.add(moment)
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await source.crashed()
    await source.start()
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


@pytest.mark.parametrize("moment", ["Refused.before", "Refused.after", "arrive.refused"])
async def test_the_destination_dies_while_it_refuses(cluster: Cluster, destination: Node, moment: str) -> None:
    destination.knobs.errors["restore"].append(EngineFailed("no"))
    destination.moments.crash_at.add(moment)
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await destination.crashed()
    await destination.start()
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


async def test_both_die_once_the_end_frame_is_out(cluster: Cluster, source: Node, destination: Node) -> None:
    source.moments.crash_at.add("leave.end_sent")
    destination.moments.crash_at.add("arrive.claimed")
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await source.crashed()
    await destination.crashed()
    assert cluster.world.running(uid) == []
    await source.start()
    await destination.start()
    assert await ordered.decided()
    await check_moved(cluster, uid)


async def test_the_destination_stays_dead_before_it_committed(cluster: Cluster, source: Node, destination: Node) -> None:
    """The source stays frozen at SENT until the reconciler has called the move off; not a moment less."""
    destination.moments.crash_at.add("Committing.before")
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION, deadline=1.5)
    await destination.crashed()
    await cluster.reported(SOURCE, "w", ReportPhase.FROZEN)
    assert cluster.world.running(uid) == []
    assert not await ordered.decided()
    assert ordered.outcome == "deadline"
    await report_of(cluster, SOURCE, 3)
    assert cluster.world.running(uid) == [SOURCE]
    await destination.start()
    await check_stayed(cluster, uid)


async def test_the_destination_reboots_after_it_committed(cluster: Cluster, destination: Node) -> None:
    """Past the commit point nobody goes back: the job is lost with the machine, and said to be."""
    destination.moments.crash_at.add("Committed.after")
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await destination.crashed()
    cluster.world.reboot(DESTINATION)
    await destination.start()
    assert await ordered.decided()
    await cluster.reported(DESTINATION, "w", ReportPhase.LOST)
    await cluster.reported(SOURCE, "w", None)
    assert cluster.world.copies(uid) == [] and cluster.world.most_running(uid) == 1


async def test_the_destination_reboots_while_it_commits(cluster: Cluster, destination: Node) -> None:
    """The restored copy is gone and no claim stands: it must not claim any more."""
    destination.moments.crash_at.add("Committing.after")
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await destination.crashed()
    cluster.world.reboot(DESTINATION)
    await destination.start()
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


async def test_the_answer_to_the_commit_is_lost(cluster: Cluster, destination: Node) -> None:
    uid = await cluster.running("w", SOURCE)
    committing = destination.moments.wait_at["Committing.after"] = asyncio.Event()
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(destination, "Committing.after"), "the commit")
    await until_published(cluster)
    memory(destination).fail_next("txn", applied=True)
    committing.set()
    assert await ordered.decided()
    await check_moved(cluster, uid)


async def until_published(cluster: Cluster) -> None:
    """Until the destination has nothing left to write but the claim."""

    async def told() -> bool:
        report = await cluster.report(DESTINATION, "w")
        return report is not None and report.move is not None and report.move.step == "Receiving"

    await until(told, "the report of the arrival")


async def test_the_commit_never_reached_etcd(cluster: Cluster, destination: Node) -> None:
    uid = await cluster.running("w", SOURCE)
    committing = destination.moments.wait_at["Committing.after"] = asyncio.Event()
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(destination, "Committing.after"), "the commit")
    await until_published(cluster)
    memory(destination).fail_next("txn")
    committing.set()
    assert await ordered.decided()
    await check_moved(cluster, uid)


CALLED_OFF_AT_SOURCE = [
    "Connecting.after",
    "leave.connected",
    "leave.ahead",
    "Freezing.after",
    "leave.streamed",
    "Sent.after",
    "leave.end_sent",
]


CALLED_OFF_AT_DESTINATION = [
    "Preparing.after",
    "arrive.prepared",
    "Receiving.after",
    "arrive.received",
    "Restoring.after",
    "arrive.restored",
    "Committing.after",
]


@pytest.mark.parametrize(
    ("node", "moment"),
    [(SOURCE, moment) for moment in CALLED_OFF_AT_SOURCE] + [(DESTINATION, moment) for moment in CALLED_OFF_AT_DESTINATION],
)
async def test_called_off(cluster: Cluster, node: str, moment: str) -> None:
    """The reconciler takes the placement away while an end stands at that moment; no claim was there yet."""
    held = cluster.nodes[node].moments.wait_at[moment] = asyncio.Event()
    other = cluster.nodes[DESTINATION].moments
    before_claim = other.wait_at.setdefault("Committing.after", asyncio.Event())
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(cluster.nodes[node], moment), moment)
    assert await ordered.call_off()
    held.set()
    before_claim.set()
    report = await check_stayed(cluster, uid)
    assert report.move is not None and report.move.message


async def test_cannot_be_called_off_once_claimed(cluster: Cluster, destination: Node) -> None:
    held = destination.moments.wait_at["arrive.claimed"] = asyncio.Event()
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(destination, "arrive.claimed"), "the claim")
    assert not await ordered.call_off()
    held.set()
    assert await ordered.decided()
    await check_moved(cluster, uid)


OUTAGES = [
    (SOURCE, "Connecting.after"),
    (SOURCE, "leave.ahead"),
    (SOURCE, "Freezing.after"),
    (SOURCE, "Sent.after"),
    (DESTINATION, "Receiving.after"),
    (DESTINATION, "arrive.restored"),
]


@pytest.mark.parametrize(("node", "moment"), OUTAGES)
@pytest.mark.parametrize("leases_end", [False, True], ids=["short", "leases-end"])
async def test_etcd_goes_away_in_the_middle(cluster: Cluster, node: str, moment: str, leases_end: bool) -> None:
    """Without etcd the move goes on up to its commit point, and no further."""
    held = cluster.nodes[node].moments.wait_at[moment] = asyncio.Event()
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(cluster.nodes[node], moment), moment)
    await until(lambda: seen(cluster.nodes[DESTINATION], "arrive.prepared"), "the arrival to be prepared")
    for each in cluster.nodes.values():
        memory(each).down = True
    held.set()
    await until(lambda: seen(cluster.nodes[DESTINATION], "Committing.after"), "the commit point")
    assert cluster.world.running(uid) == []
    if leases_end:
        memory(cluster.nodes[SOURCE]).advance(60)
    for each in cluster.nodes.values():
        memory(each).down = False
    assert await ordered.decided()
    await check_moved(cluster, uid)


async def test_a_committed_job_does_not_wait_for_etcd(cluster: Cluster, destination: Node) -> None:
    """Nor for its agent: it is let run by a restarted one, before etcd is there again."""
    destination.moments.crash_at.add("Committed.after")
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await destination.crashed()
    memory(destination).down = True
    starting = asyncio.create_task(destination.start())

    async def runs() -> bool:
        return cluster.world.running(uid) == [DESTINATION]

    await until(runs, "the job to run in the outage")
    memory(destination).down = False
    await starting
    assert await ordered.decided()
    await check_moved(cluster, uid)


async def test_a_job_frozen_by_a_dead_agent_does_not_wait_for_etcd(cluster: Cluster, source: Node) -> None:
    source.knobs.crash_at.add("dump.after")
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await source.crashed()
    assert cluster.world.running(uid) == []
    memory(source).down = True
    starting = asyncio.create_task(source.start())

    async def runs() -> bool:
        return cluster.world.running(uid) == [SOURCE]

    await until(runs, "the job to run in the outage")
    memory(source).down = False
    await starting
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


def test_moments_are_those_of_the_tables() -> None:
    """Every step of the state tables is among the moments at which an end dies."""
    for step in SourceStep:
        assert f"{step}.before" in SOURCE_DIES or step in (SourceStep.RESUMED, SourceStep.SERVING)
    for arrival in DestinationStep:
        assert f"{arrival}.before" in DESTINATION_DIES or arrival in (DestinationStep.REFUSED, DestinationStep.FETCHING)
