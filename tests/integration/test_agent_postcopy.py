"""Moves by post-copy: the job runs before its memory is there. One copy, whoever dies; and a job whose memory is lost says so."""

import pytest

from crds.job import MigrationMode
from crds.report import ReportPhase
from crds.states import DestinationStep, SourceStep
from nodeagent.errors import EngineFailed
from tests.integration.agents import Cluster, Node, until
from tests.integration.moving import DESTINATION, SOURCE, check_moved, check_stayed, report_of, seen

STREAM = 0.3  # seconds from the freeze until memory comes


@pytest.fixture
def cluster(cluster: Cluster) -> Cluster:
    cluster.mode = MigrationMode.POST_COPY
    return cluster


@pytest.fixture
def source(source: Node) -> Node:
    source.knobs.delay["pages"] = STREAM
    return source


async def fetching(cluster: Cluster, destination: Node) -> None:
    """Waits until the job runs, and a part of it is still missing."""

    async def there() -> bool:
        report = await cluster.report(DESTINATION, "w")
        return report is not None and report.move is not None and report.move.step == DestinationStep.FETCHING

    await until(there, "the job to run before its memory is there")
    assert cluster.world.running(next(iter(cluster.world.shims.values())).copy.uid) == [DESTINATION]


async def test_moves_a_job_before_its_memory(cluster: Cluster, source: Node, destination: Node) -> None:
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await fetching(cluster, destination)
    early = await cluster.report(DESTINATION, "w")
    assert early is not None and early.move is not None
    assert early.move.ok is None and early.phase == ReportPhase.RUNNING
    await until(lambda: seen(source, "leave.severed"), "the source to kill its copy")
    assert await ordered.decided()
    report = await check_moved(cluster, uid)
    assert report.move is not None and report.move.ok
    assert report.move.freeze_ms == early.move.freeze_ms
    assert report.move.freeze_ms is not None and report.move.freeze_ms < STREAM * 1000
    assert source.moments.seen.index("Serving.after") < source.moments.seen.index("leave.severed")


async def test_moves_there_and_back(cluster: Cluster, source: Node, destination: Node) -> None:
    uid = await cluster.running("w", SOURCE)
    for hop, (here, there) in enumerate([(SOURCE, DESTINATION), (DESTINATION, SOURCE)] * 2):
        assert await cluster.move("w", here, there), f"hop {hop}"
        await cluster.only_on(uid, there)
    await cluster.no_images()


SOURCE_DIES = {
    "Connecting.after": True,
    "leave.connected": False,
    "Freezing.after": False,
    "leave.streamed": False,
    "Sent.before": False,
    "Sent.after": False,
    "leave.end_sent": True,
    "leave.running": True,
    "Serving.before": True,
    "Serving.after": True,
    "leave.severed": True,
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


@pytest.mark.parametrize("point", ["serve", "serve.after", "sever", "sever.after", "streamed", "streamed.after"])
async def test_the_source_dies_inside_the_engine(cluster: Cluster, source: Node, point: str) -> None:
    source.knobs.crash_at.add(point)
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await source.crashed()
    await source.start()
    moves = not point.startswith("serve")
    assert await ordered.decided() == moves
    await (check_moved if moves else check_stayed)(cluster, uid)


DESTINATION_DIES = {
    "Preparing.after": True,
    "Receiving.after": False,
    "arrive.received": False,
    "Restoring.after": False,
    "arrive.restored": False,
    "Committing.before": False,
    "Committing.after": True,
    "arrive.claimed": True,
    "Committed.before": True,
    "Committed.after": True,
    "arrive.resumed": True,
    "Fetching.before": True,
    "Fetching.after": True,
    "arrive.fetched": True,
    "Running.before": True,
    "Running.after": True,
}


@pytest.mark.parametrize(("moment", "moves"), DESTINATION_DIES.items())
async def test_the_destination_dies(cluster: Cluster, source: Node, destination: Node, moment: str, moves: bool) -> None:
    destination.moments.crash_at.add(moment)
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await destination.crashed()
    await destination.start()
    assert await ordered.decided() == moves
    await (check_moved if moves else check_stayed)(cluster, uid)


def test_moments_of_this_mode_are_among_them() -> None:
    for moment in ("before", "after"):
        assert f"{SourceStep.SERVING}.{moment}" in SOURCE_DIES
        assert f"{DestinationStep.FETCHING}.{moment}" in DESTINATION_DIES


async def test_both_agents_die_while_memory_is_on_its_way(cluster: Cluster, source: Node, destination: Node) -> None:
    source.moments.crash_at.add("leave.severed")
    destination.moments.crash_at.add("Fetching.after")
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await destination.crashed()
    await source.stop()
    await source.start()
    await destination.start()
    assert await ordered.decided()
    await check_moved(cluster, uid)


async def test_a_source_that_is_lost_takes_the_job_with_it(cluster: Cluster, source: Node, destination: Node) -> None:
    source.knobs.delay["pages"] = 60.0
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await fetching(cluster, destination)
    await source.stop()
    cluster.world.reboot(SOURCE)
    report = await cluster.reported(DESTINATION, "w", ReportPhase.LOST)
    assert report is not None
    assert f"its memory was to follow it from node/{SOURCE}" in report.message
    assert await ordered.decided()
    assert cluster.world.running(uid) == []
    assert cluster.world.most_running(uid) == 1


async def test_a_job_that_ends_before_its_memory_is_there(cluster: Cluster, source: Node, destination: Node) -> None:
    source.knobs.delay["pages"] = 60.0
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await fetching(cluster, destination)
    cluster.world.end(uid, 3)
    report = await cluster.reported(DESTINATION, "w", ReportPhase.FAILED)
    assert report is not None and report.move is not None
    assert report.exit_code == 3
    assert report.move.ok
    assert await ordered.decided()
    await cluster.reported(SOURCE, "w", None)


async def test_a_failed_restore_gives_the_job_back(cluster: Cluster, source: Node, destination: Node) -> None:
    destination.knobs.errors["restore"].append(EngineFailed("no"))
    uid = await cluster.running("w", SOURCE)
    assert not await cluster.move("w", SOURCE, DESTINATION)
    await check_stayed(cluster, uid)
    source.knobs.delay["pages"] = 0.0
    assert await cluster.move("w", SOURCE, DESTINATION)
    await check_moved(cluster, uid, epoch=4)


async def test_a_failed_dump_leaves_the_job_running(cluster: Cluster, source: Node) -> None:
    source.knobs.errors["serve"].append(EngineFailed("criu dump ended with 1"))
    uid = await cluster.running("w", SOURCE)
    assert not await cluster.move("w", SOURCE, DESTINATION)
    await check_stayed(cluster, uid)


async def test_a_deleted_job_leaves_nothing_on_its_way(cluster: Cluster, source: Node, destination: Node) -> None:
    source.knobs.delay["pages"] = 60.0
    uid = await cluster.running("w", SOURCE)
    await cluster.order("w", SOURCE, DESTINATION)
    await fetching(cluster, destination)
    await until(lambda: seen(source, "leave.severed"), "the source to kill its copy")
    await cluster.delete("w", SOURCE, DESTINATION)
    await cluster.reported(SOURCE, "w", None)
    await cluster.reported(DESTINATION, "w", None)
    assert cluster.world.copies(uid) == []
    assert not cluster.world.shims


async def test_no_other_move_begins_before_its_memory_is_there(cluster: Cluster, source: Node, destination: Node) -> None:
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await fetching(cluster, destination)
    assert "leave.connected" not in destination.moments.seen
    assert await ordered.decided()
    await report_of(cluster, DESTINATION, 2)
    assert await cluster.move("w", DESTINATION, SOURCE)
    await cluster.only_on(uid, SOURCE)
