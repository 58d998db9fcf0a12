"""Moves between real agents: they succeed, they fail, they are called off; one copy runs, and the reports are true."""

import asyncio

import pytest

from crds.report import Obstacle, ReportPhase, Verdict
from nodeagent.engine import Usage
from nodeagent.errors import EngineFailed
from nodeagent.frames import HEADER, Hello, Refused, decode, encode
from nodeagent.journal import Journal, Record
from tests.fakes.engine import FakeSandbox
from tests.integration.agents import Cluster, Node, until
from tests.integration.moving import DESTINATION, SOURCE, check_moved, check_stayed, no_claim, refusal_of, report_of, seen

RING = Obstacle(reason="IoUring", message="node (pid 2) uses io_uring")


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


async def test_a_job_that_ends_as_soon_as_it_has_come(cluster: Cluster, destination: Node) -> None:
    destination.moments.wait_at["arrive.resumed"] = gate = asyncio.Event()
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(destination, "arrive.resumed"), "the job to go on")
    cluster.world.end(uid, 3)
    gate.set()
    assert await ordered.decided()
    report = await cluster.reported(DESTINATION, "w", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 3
    await no_claim(cluster)


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


async def test_a_wrong_ticket_is_turned_away(cluster: Cluster, source: Node, destination: Node) -> None:
    """And does not disturb the move that it tried to steal."""
    held = source.moments.wait_at["Connecting.after"] = asyncio.Event()
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(destination, "arrive.prepared"), "the arrival to be prepared")
    host, _, port = destination.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(encode(Hello(namespace="default", name="w", uid=uid, epoch=2, ticket="guessed", memory=1)))
    answer = await asyncio.wait_for(reader.read(), 8)  # to the end: it is closed
    assert decode(answer[HEADER.size :]) == Refused(reason="wrong ticket for job default/w epoch 2")
    writer.close()
    held.set()
    assert await ordered.decided()
    await check_moved(cluster, uid)


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


async def test_what_keeps_a_job_from_being_moved_is_reported_and_so_is_its_end(cluster: Cluster, source: Node) -> None:
    await cluster.running("w", SOURCE)

    async def reported(expected: list[Obstacle]) -> None:
        async def told() -> bool:
            report = await cluster.report(SOURCE, "w")
            return report is not None and report.obstacles == expected

        await until(told, f"{expected} to be reported")

    await reported([])
    source.knobs.obstacles["default/w"] = [RING]
    source.knobs.cpu_seconds += 0.1  # a job that does not run opens nothing
    await reported([RING])
    del source.knobs.obstacles["default/w"]
    await reported([])


async def test_an_obstacle_found_at_the_last_moment_ends_the_move_before_the_freeze(cluster: Cluster, source: Node) -> None:
    uid = await cluster.running("w", SOURCE)
    source.knobs.obstacles["default/w"] = [RING]
    assert not await cluster.move("w", SOURCE, DESTINATION)
    assert "IoUring: node (pid 2) uses io_uring" in await why_it_stayed(cluster, uid)
    assert not any(call.startswith("dump") for call in source.knobs.calls), "it was never frozen"


async def test_what_cannot_be_looked_at_is_no_obstacle(cluster: Cluster, source: Node) -> None:
    uid = await cluster.running("w", SOURCE)
    source.knobs.errors["obstacles"] = [EngineFailed("no permission")] * 100
    assert await cluster.move("w", SOURCE, DESTINATION)
    await check_moved(cluster, uid)


async def why_it_stayed(cluster: Cluster, uid: str) -> str:
    report = await check_stayed(cluster, uid)
    assert report.move is not None
    return report.move.message
