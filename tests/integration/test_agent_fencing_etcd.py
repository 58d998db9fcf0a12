"""Fencing against a real etcd: what stands still does so before the node's heartbeat can be gone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crds import keys
from nodeagent import guard
from store.etcd import EtcdKV
from store.etcd_channel import KeepAlive
from store.kv import KV
from tests.etcd_server import EtcdServer
from tests.integration.agents import TIMING, Cluster, cluster_of, until
from tests.integration.test_agent_etcd import wipe
from tests.tcp_proxy import TcpProxy

LEASE = 3.0


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    with EtcdServer() as running:
        yield running


@pytest.fixture
async def proxy(server: EtcdServer) -> AsyncIterator[TcpProxy]:
    made = TcpProxy(server.endpoint)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def cluster(tmp_path: Path, server: EtcdServer, proxy: TcpProxy) -> AsyncIterator[Cluster]:
    """One node, whose agent reaches etcd through the proxy only."""
    async with contextlib.AsyncExitStack() as stack:

        def client(endpoint: str) -> KV:
            kv = EtcdKV.connect([endpoint], timeout=1.0, keep_alive=KeepAlive(idle=1.0, patience=1.0))
            stack.push_async_callback(kv.close)
            return kv

        own, agents = client(server.endpoint), client(proxy.endpoint)  # made first, so closed last
        await wipe(own)
        own, agents = client(server.endpoint), client(proxy.endpoint)  # made first, so closed last
        await wipe(own)
        cluster = await stack.enter_async_context(cluster_of(tmp_path, own, lambda: agents))
        await cluster.node("n1", timing=replace(TIMING, lease=LEASE))
        yield cluster


async def stands_still_before_it_is_missed(cluster: Cluster, uid: str) -> None:
    """The heartbeat is asked for after the job was seen to stand still, so it was there at that moment."""

    async def still() -> bool:
        return cluster.world.running(uid) == []

    await until(still, "the job to stand still")
    assert await cluster.kv.get(keys.alive("n1")) is not None

    async def gone() -> bool:
        assert cluster.world.running(uid) == []
        return await cluster.kv.get(keys.alive("n1")) is None

    await until(gone, "the heartbeat to be gone")


@pytest.mark.parametrize("how", ["cut", "silent"])
async def test_the_network_to_etcd_is_gone(cluster: Cluster, proxy: TcpProxy, how: str) -> None:
    uid = await cluster.running("w", "n1")
    if how == "cut":
        await proxy.go_down()
    else:
        proxy.freeze()
    await stands_still_before_it_is_missed(cluster, uid)
    proxy.come_up()
    proxy.thaw()
    await cluster.only_on(uid, "n1")


async def test_etcd_is_down_for_longer_than_the_lease(cluster: Cluster, server: EtcdServer) -> None:
    uid = await cluster.running("w", "n1")
    server.kill()

    async def still() -> bool:
        return cluster.world.running(uid) == []

    await until(still, "the job to stand still")
    server.start()
    await cluster.only_on(uid, "n1")


async def test_etcd_is_down_for_a_moment(cluster: Cluster, server: EtcdServer) -> None:
    uid = await cluster.running("w", "n1")
    before = guard.read_deadline(str(cluster.nodes["n1"].config.run)) or 0.0
    server.kill()
    server.start()

    async def extended() -> bool:
        assert cluster.world.running(uid) == ["n1"]
        await asyncio.sleep(0)
        return (guard.read_deadline(str(cluster.nodes["n1"].config.run)) or 0.0) > before + 1.0

    await until(extended, "the deadline to move")
