"""Moves between real agents: they succeed, they fail, an end dies at every step; one copy runs, and the reports are true."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crds.report import JobReport, ReportPhase, Verdict
from crds.states import DestinationStep, SourceStep
from nodeagent.engine import Usage
from nodeagent.errors import EngineFailed
from nodeagent.frames import Hello, Ready, encode
from nodeagent.journal import Journal, Record
from store.memory import MemoryKV
from tests.etcd_server import free_port
from tests.fakes.engine import FakeSandbox
from tests.integration.agents import Cluster, Node, Wire, cluster_of, until

SOURCE, DESTINATION = "n1", "n2"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    kv = MemoryKV(clock=time.monotonic)
    async with cluster_of(tmp_path, kv, kv.client, SOURCE, DESTINATION) as made:
        yield made


@pytest.fixture
def source(cluster: Cluster) -> Node:
    return cluster.nodes[SOURCE]


@pytest.fixture
def destination(cluster: Cluster) -> Node:
    return cluster.nodes[DESTINATION]


def memory(node: Node) -> MemoryKV:
    assert isinstance(node.kv, MemoryKV)
    return node.kv


async def report_of(cluster: Cluster, node: str, epoch: int) -> JobReport:
    """The Running report of that epoch, waited for."""

    async def there() -> bool:
        report = await cluster.report(node, "w")
        return report is not None and report.phase == ReportPhase.RUNNING and report.epoch == epoch

    await until(there, f"{node} to report Running at epoch {epoch}")
    report = await cluster.report(node, "w")
    assert report is not None
    return report


async def check_moved(cluster: Cluster, uid: str, epoch: int = 2) -> JobReport:
    """It runs at the destination; nothing else is left of the move."""
    await cluster.only_on(uid, DESTINATION)
    report = await report_of(cluster, DESTINATION, epoch)
    await cluster.reported(SOURCE, "w", None)
    await no_claim(cluster)
    await cluster.no_images()
    return report


async def check_stayed(cluster: Cluster, uid: str, epoch: int = 3) -> JobReport:
    """It runs at the source, under the epoch of the placement that ended the move; nothing else is left of it."""
    await cluster.only_on(uid, SOURCE)
    report = await report_of(cluster, SOURCE, epoch)
    await cluster.reported(DESTINATION, "w", None)
    await no_claim(cluster)
    await cluster.no_images()
    assert report.move is not None and report.move.ok is False
    return report


async def no_claim(cluster: Cluster) -> None:
    async def gone() -> bool:
        return await cluster.claim(DESTINATION, "w") is None

    await until(gone, "the claim to be removed")


async def test_moves_a_job(cluster: Cluster) -> None:
    uid = await cluster.running("w", SOURCE)
    before = cluster.world.copies(uid)[0].job
    assert await cluster.move("w", SOURCE, DESTINATION)
    report = await check_moved(cluster, uid)
    after = cluster.world.copies(uid)[0].job
    assert before is not None and after is not None and after.identity == before.identity
    assert report.move is not None and report.move.ok is True and report.move.migration == "move-1"
    assert report.move.bytes > 64 * 1024 and report.move.freeze_ms is not None and 0 < report.move.freeze_ms < 10_000


async def test_freeze_counts_dump_and_restore(cluster: Cluster, source: Node, destination: Node) -> None:
    source.knobs.delay["dump"] = destination.knobs.delay["restore"] = 0.1
    await cluster.running("w", SOURCE)
    assert await cluster.move("w", SOURCE, DESTINATION)
    report = await report_of(cluster, DESTINATION, 2)
    assert report.move is not None and report.move.freeze_ms is not None and report.move.freeze_ms >= 200


async def test_moves_there_and_back_again(cluster: Cluster) -> None:
    uid = await cluster.running("w", SOURCE)
    first = await cluster.report(SOURCE, "w")
    assert await cluster.move("w", SOURCE, DESTINATION)
    await check_moved(cluster, uid)
    assert await cluster.move("w", DESTINATION, SOURCE)
    await cluster.only_on(uid, SOURCE)
    report = await report_of(cluster, SOURCE, 3)
    assert first is not None and report.started_at == first.started_at


async def test_a_moved_job_ends_at_its_destination(cluster: Cluster) -> None:
    uid = await cluster.running("w", SOURCE)
    assert await cluster.move("w", SOURCE, DESTINATION)
    cluster.world.end(uid, 5)
    report = await cluster.reported(DESTINATION, "w", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 5


async def test_a_moved_job_survives_a_restart_of_its_new_agent(cluster: Cluster, destination: Node) -> None:
    uid = await cluster.running("w", SOURCE)
    assert await cluster.move("w", SOURCE, DESTINATION)
    await destination.restart()
    await cluster.only_on(uid, DESTINATION)
    cluster.world.end(uid, 0)
    await cluster.reported(DESTINATION, "w", ReportPhase.SUCCEEDED)


async def test_several_moves_at_once(cluster: Cluster) -> None:
    uids = {f"w{n}": await cluster.running(f"w{n}", SOURCE) for n in range(8)}
    moved = await asyncio.gather(*(cluster.move(job, SOURCE, DESTINATION) for job in uids))
    assert all(moved)
    for uid in uids.values():
        await cluster.only_on(uid, DESTINATION)


async def test_a_failed_dump_leaves_the_job_running(cluster: Cluster, source: Node) -> None:
    source.knobs.errors["dump"].append(EngineFailed("criu dump: a socket to the outside"))
    uid = await cluster.running("w", SOURCE)
    assert not await cluster.move("w", SOURCE, DESTINATION)
    report = await check_stayed(cluster, uid)
    assert report.move is not None and "a socket to the outside" in report.move.message


async def test_after_a_failed_move_the_next_succeeds(cluster: Cluster, source: Node) -> None:
    source.knobs.errors["dump"].append(EngineFailed("not now"))
    uid = await cluster.running("w", SOURCE)
    assert not await cluster.move("w", SOURCE, DESTINATION)
    await check_stayed(cluster, uid)
    assert await cluster.move("w", SOURCE, DESTINATION)
    await check_moved(cluster, uid, epoch=4)


async def test_a_failed_restore_is_refused(cluster: Cluster, destination: Node) -> None:
    destination.knobs.errors["restore"].append(EngineFailed("criu restore: no such file"))
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)

    async def refused() -> bool:
        claim = await cluster.claim(DESTINATION, "w")
        return claim is not None and claim.verdict == Verdict.REFUSED

    await until(refused, "the refusal")
    await cluster.only_on(uid, SOURCE)  # by the data channel, before the reconciler has said anything
    assert not await ordered.decided()
    report = await check_stayed(cluster, uid)
    assert report.move is not None and "no such file" in report.move.message


async def test_a_destination_without_room_refuses_before_the_freeze(cluster: Cluster, source: Node, destination: Node) -> None:
    destination.load.memory = 1 << 20
    uid = await cluster.running("w", SOURCE)
    assert not await cluster.move("w", SOURCE, DESTINATION)
    report = await check_stayed(cluster, uid)
    assert report.move is not None and "no memory" in report.move.message
    assert "Freezing.before" not in source.moments.seen


async def test_a_job_that_ends_before_it_is_frozen(cluster: Cluster, source: Node) -> None:
    source.moments.wait_at["leave.connected"] = asyncio.Event()
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(source, "leave.connected"), "the connection")
    cluster.world.end(uid, 3)
    assert "the source gave up: the job ended" in await refusal_of(cluster)
    assert not await ordered.decided()
    report = await cluster.reported(SOURCE, "w", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 3
    await cluster.reported(DESTINATION, "w", None)
    assert cluster.world.copies(uid) == []


async def test_a_job_that_is_killed_while_it_stands_frozen(cluster: Cluster, source: Node) -> None:
    source.moments.wait_at["leave.streamed"] = asyncio.Event()
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(source, "leave.streamed"), "the stream")
    (frozen,) = [shim for shim in cluster.world.shims.values() if shim.copy.uid == uid and shim.job is not None]
    frozen.end(137)
    assert "the source gave up: the job ended" in await refusal_of(cluster)
    assert not await ordered.decided()
    report = await cluster.reported(SOURCE, "w", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 137


async def refusal_of(cluster: Cluster) -> str:
    """The reason the destination gives, once it does."""
    reasons = []

    async def refused() -> bool:
        claim = await cluster.claim(DESTINATION, "w")
        if claim is not None and claim.verdict == Verdict.REFUSED:
            reasons.append(claim.reason)
        return bool(reasons)

    await until(refused, "the refusal")
    return reasons[0]


async def seen(node: Node, moment: str) -> bool:
    return moment in node.moments.seen


async def test_a_wrong_ticket_is_turned_away(cluster: Cluster, source: Node, destination: Node) -> None:
    """And does not disturb the move that it tried to steal."""
    held = source.moments.wait_at["Connecting.after"] = asyncio.Event()
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(destination, "arrive.prepared"), "the arrival to be prepared")
    host, _, port = destination.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(encode(Hello(namespace="default", name="w", uid=uid, epoch=2, ticket="guessed", memory=1)))
    assert await asyncio.wait_for(reader.read(), 8) == b""
    writer.close()
    held.set()
    assert await ordered.decided()
    await check_moved(cluster, uid)


SOURCE_DIES = {
    "Connecting.before": True,
    "Connecting.after": True,
    "leave.connected": False,
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


CALLED_OFF_AT_SOURCE = ["Connecting.after", "leave.connected", "Freezing.after", "leave.streamed", "Sent.after", "leave.end_sent"]
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


# --- the data channel ---


@pytest.fixture
async def wire(destination: Node) -> AsyncIterator[Wire]:
    made = Wire(destination.address)
    await made.start()
    yield made
    await made.stop()


IMAGES = 30_000
"""Bytes: in the middle of the images."""
READY = len(encode(Ready()))


@pytest.mark.parametrize(("after", "moves"), [(0, True), (b"ticket", True), (IMAGES, False), (b"lastPid", False)])
async def test_the_channel_is_cut(cluster: Cluster, wire: Wire, after: int | bytes, moves: bool) -> None:
    """Before the destination is ready the source tries again; from then on a broken connection ends the move."""
    wire.harm, wire.after = "cut", after
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION, peer=wire.endpoint)
    assert await ordered.decided() == moves
    await (check_moved if moves else check_stayed)(cluster, uid)


async def test_the_ready_is_lost(cluster: Cluster, wire: Wire) -> None:
    wire.deaf_after = 0
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION, peer=wire.endpoint)
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


async def test_the_verdict_is_lost(cluster: Cluster, wire: Wire) -> None:
    """The source learns it from its placement."""
    wire.deaf_after = READY
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION, peer=wire.endpoint)
    assert await ordered.decided()
    await check_moved(cluster, uid)


async def test_the_refusal_is_lost(cluster: Cluster, destination: Node, wire: Wire) -> None:
    wire.deaf_after = READY
    destination.knobs.errors["restore"].append(EngineFailed("no"))
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION, peer=wire.endpoint)
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


async def test_images_damaged_on_the_way_are_never_restored(cluster: Cluster, destination: Node, wire: Wire) -> None:
    wire.harm, wire.after = "flip", IMAGES
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION, peer=wire.endpoint)
    assert not await ordered.decided()
    await check_stayed(cluster, uid)
    assert "damaged on its way" in ordered.outcome
    assert not [call for call in destination.knobs.calls if call.startswith("restore")]


async def test_a_silent_channel_ends_with_the_deadline(cluster: Cluster, wire: Wire) -> None:
    wire.harm, wire.after = "silent", IMAGES
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION, peer=wire.endpoint, deadline=1.5)
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


async def test_a_destination_that_cannot_be_reached(cluster: Cluster) -> None:
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION, peer=f"127.0.0.1:{free_port()}", deadline=1.0)
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


def test_moments_are_those_of_the_tables() -> None:
    """Every step of the state tables is among the moments at which an end dies."""
    for step in SourceStep:
        assert f"{step}.before" in SOURCE_DIES or step == SourceStep.RESUMED
    for arrival in DestinationStep:
        assert f"{arrival}.before" in DESTINATION_DIES or arrival == DestinationStep.REFUSED


@pytest.mark.parametrize("steps", [{"Sent", "Resumed"}, {"Committed", "Running"}, {"Gone"}], ids=["source", "destination", "left"])
async def test_a_full_disk_keeps_no_job_frozen(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, steps: set[str]) -> None:
    """What has to be known beforehand is not begun; what is decided is done."""
    write = Journal.write

    def full(journal: Journal, record: Record) -> None:
        if record.step in steps:
            raise OSError(28, "No space left on device")
        write(journal, record)

    uid = await cluster.running("w", SOURCE)
    monkeypatch.setattr(Journal, "write", full)
    moved = await cluster.move("w", SOURCE, DESTINATION)
    assert moved == ("Sent" not in steps)
    await (check_moved if moved else check_stayed)(cluster, uid)


async def test_calling_off_while_the_source_has_just_come_in(cluster: Cluster, source: Node, destination: Node) -> None:
    """The connection that was handed over last is closed too: the source must not wait for a destination that is not there."""
    held = source.moments.wait_at["Connecting.after"] = asyncio.Event()
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(destination, "arrive.prepared"), "the arrival to be prepared")
    held.set()
    assert await ordered.call_off()
    await check_stayed(cluster, uid)


async def test_cpu_time_adds_up_over_moves_and_memory_is_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def usage(self: FakeSandbox) -> Usage:
        return Usage(cpu_seconds=5.0, memory=3 << 20, runnable=1, processes=1)

    monkeypatch.setattr(FakeSandbox, "usage", usage)

    async def told(node: str, seconds: float) -> None:
        async def there() -> bool:
            report = await cluster.report(node, "w")
            return report is not None and (report.cpu_seconds, report.memory) == (seconds, 3 << 20)

        await until(there, f"{seconds} s of CPU time to be told by {node}")

    await cluster.running("w", SOURCE)
    await told(SOURCE, 5.0)
    assert await cluster.move("w", SOURCE, DESTINATION)
    await told(DESTINATION, 10.0)
    await cluster.nodes[DESTINATION].restart()
    assert await cluster.move("w", DESTINATION, SOURCE)
    await told(SOURCE, 15.0)
