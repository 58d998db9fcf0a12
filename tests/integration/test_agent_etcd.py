"""The agents on real etcd: jobs and moves, over the death and the silence of the server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from crds import keys
from crds.report import ReportPhase
from store.etcd import EtcdKV
from store.etcd_channel import KeepAlive
from store.kv import KV, Delete
from tests.etcd_server import EtcdServer
from tests.integration.agents import Cluster, cluster_of, until

SOURCE, DESTINATION = "n1", "n2"


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    with EtcdServer() as running:
        yield running


@pytest.fixture
async def cluster(tmp_path: Path, server: EtcdServer) -> AsyncIterator[Cluster]:
    async with contextlib.AsyncExitStack() as stack:

        def client() -> KV:
            kv = EtcdKV.connect([server.endpoint], timeout=1.0, keep_alive=KeepAlive(idle=1.0, patience=1.0))
            stack.push_async_callback(kv.close)
            return kv

        own = client()
        cluster = await stack.enter_async_context(cluster_of(tmp_path, own, client, SOURCE, DESTINATION))
        yield cluster
        await wipe(own)


async def wipe(kv: KV) -> None:
    """The tests share one etcd; the next begins with an empty one."""
    for item in (await kv.list(keys.ROOT)).items:
        await kv.txn([], [Delete(item.key)])


async def test_runs_moves_and_deletes_a_job(cluster: Cluster) -> None:
    uid = await cluster.running("w", SOURCE)
    assert await cluster.move("w", SOURCE, DESTINATION)
    await cluster.only_on(uid, DESTINATION)
    await cluster.reported(SOURCE, "w", None)
    assert await cluster.move("w", DESTINATION, SOURCE)
    await cluster.only_on(uid, SOURCE)
    await cluster.delete("w", SOURCE)
    await cluster.reported(SOURCE, "w", None)
    assert cluster.world.shims == {}


async def test_a_killed_etcd_comes_back_and_all_is_told(cluster: Cluster, server: EtcdServer) -> None:
    stays, ends = await cluster.running("stays", SOURCE), await cluster.running("ends", SOURCE)
    server.kill()
    cluster.world.end(ends, 4)
    server.start()
    report = await cluster.reported(SOURCE, "ends", ReportPhase.FAILED)
    assert report is not None and report.exit_code == 4
    assert cluster.world.running(stays) == [SOURCE]


@pytest.mark.parametrize("moment", ["Receiving.after", "Committing.after", "arrive.claimed"])
async def test_etcd_is_killed_in_the_middle_of_a_move(cluster: Cluster, server: EtcdServer, moment: str) -> None:
    destination = cluster.nodes[DESTINATION]
    held = destination.moments.wait_at[moment] = asyncio.Event()
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)

    async def reached() -> bool:
        return moment in destination.moments.seen

    await until(reached, moment)
    server.kill()
    held.set()
    server.start()
    assert await ordered.decided()
    await cluster.only_on(uid, DESTINATION)


async def test_etcd_is_silent_while_a_move_commits(cluster: Cluster, server: EtcdServer, caplog: pytest.LogCaptureFixture) -> None:
    """The transaction may be carried out after the agent has given it up: its outcome is asked for, not guessed."""
    destination = cluster.nodes[DESTINATION]
    held = destination.moments.wait_at["Committing.after"] = asyncio.Event()
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)

    async def reached() -> bool:
        return "Committing.after" in destination.moments.seen

    async def doubtful() -> bool:
        return "not known whether the move is committed" in caplog.text

    await until(reached, "the commit")
    server.pause()
    try:
        held.set()
        await until(doubtful, "the first answer to be given up")
        assert cluster.world.running(uid) == []
    finally:
        server.resume()
    assert await ordered.decided()
    await cluster.only_on(uid, DESTINATION)
