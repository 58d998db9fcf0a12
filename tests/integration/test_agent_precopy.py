"""Moves by pre-copy: memory goes ahead in rounds while the job runs."""

import pytest

from crds.job import MigrationMode
from nodeagent.errors import EngineFailed
from tests.integration.agents import Cluster, Node, until
from tests.integration.moving import DESTINATION, SOURCE, check_moved, check_stayed, seen

MEGA = 1 << 20


@pytest.fixture
def cluster(cluster: Cluster) -> Cluster:
    cluster.mode = MigrationMode.PRE_COPY
    return cluster


@pytest.fixture
def source(source: Node) -> Node:
    source.knobs.image_bytes = 32 * MEGA
    source.knobs.written = [16 * MEGA, 4 * MEGA, 1 * MEGA, 1024]
    source.knobs.delay["pre_dump"] = 0.1
    return source


async def test_rounds_go_ahead_while_the_job_runs(cluster: Cluster, source: Node, destination: Node) -> None:
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await until(lambda: seen(source, "leave.round"), "the first round")
    assert cluster.world.running(uid) == [SOURCE]
    assert await ordered.decided()
    report = await check_moved(cluster, uid)
    rounds = source.moments.seen.count("leave.round")
    assert rounds >= 2
    assert destination.moments.seen.count("arrive.round") == rounds
    assert source.moments.seen.index("leave.round") < source.moments.seen.index("Freezing.before")
    assert report.move is not None and report.move.ok
    assert report.move.bytes > (32 + 16) * MEGA
    assert 0 < report.move.frozen_bytes < report.move.bytes - (32 + 16) * MEGA, "the rounds were not sent in the freeze"


async def test_a_round_that_fails_leaves_the_job_running(cluster: Cluster, source: Node) -> None:
    source.knobs.errors["pre_dump"].append(EngineFailed("criu pre-dump ended with 1"))
    uid = await cluster.running("w", SOURCE)
    assert not await cluster.move("w", SOURCE, DESTINATION)
    await check_stayed(cluster, uid)
    assert await cluster.move("w", SOURCE, DESTINATION)
    await check_moved(cluster, uid, epoch=4)


@pytest.mark.parametrize("point", ["leave.round", "arrive.round"])
async def test_an_end_dies_between_two_rounds(cluster: Cluster, source: Node, destination: Node, point: str) -> None:
    node = source if point == "leave.round" else destination
    node.moments.crash_at.add(point)
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await node.crashed()
    await node.start()
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


async def test_the_source_dies_inside_a_round(cluster: Cluster, source: Node) -> None:
    source.knobs.crash_at.add("pre_dump.after")
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await source.crashed()
    await source.start()
    assert not await ordered.decided()
    await check_stayed(cluster, uid)


async def test_a_last_dump_that_fails_leaves_the_job_running(cluster: Cluster, source: Node) -> None:
    source.knobs.errors["dump"].append(EngineFailed("criu dump ended with 1"))
    uid = await cluster.running("w", SOURCE)
    assert not await cluster.move("w", SOURCE, DESTINATION)
    await check_stayed(cluster, uid)
