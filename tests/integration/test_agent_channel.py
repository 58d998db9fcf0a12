"""The data channel between two agents is cut, silenced, damaged: one copy runs, and the reports are true."""

from collections.abc import AsyncIterator

import pytest

from nodeagent.errors import EngineFailed
from nodeagent.frames import Ready, encode
from tests.etcd_server import free_port
from tests.integration.agents import Cluster, Node, Wire
from tests.integration.moving import DESTINATION, SOURCE, check_moved, check_stayed


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
