"""Nodes: ready by their heartbeat, figures now and then, pressure, counters of cluster and image."""

import pytest

from crds import keys
from crds.cluster import Cluster, ClusterSpec
from crds.image import Image
from crds.load import JobLoad
from crds.machine import BootTimeline, Hardware, Machine
from crds.meta import Metadata, Truth, find_condition
from crds.node import Node, NodeSpec
from store.kv import Put

from .fake_agent import GIGA
from .house import House

MAC = "52:54:00:77:00:01"


async def truth(house: House, name: str, kind: str) -> tuple[Truth, str]:
    found = find_condition((await house.node(name)).status.conditions, kind)
    assert found is not None
    return found.status, found.reason


async def test_a_node_with_a_heartbeat_is_ready_and_its_facts_are_known() -> None:
    async with House("n1") as house:
        status = (await house.node("n1")).status
        assert await truth(house, "n1", "Ready") == (Truth.TRUE, "HeartbeatReceived")
        assert (status.capacity.cpu, status.capacity.memory, status.facts.boot_id) == (1.0, GIGA, "boot-1")
        assert "NodeReady n1" in await house.events()


async def test_a_node_that_was_never_heard_of_is_not_ready() -> None:
    async with House() as house:
        await house.store.create(Node(metadata=Metadata(name="n1")))
        await house.settle()
        assert await truth(house, "n1", "Ready") == (Truth.FALSE, "NeverSeen")


@pytest.mark.parametrize("grace", [None, 50.0])
async def test_the_grace_period_is_the_clusters(grace: float | None) -> None:
    async with House("n1") as house:
        if grace:
            await house.store.create(Cluster(metadata=Metadata(name="c"), spec=ClusterSpec(node_grace_period=grace)))
        await house.settle()
        house.agents["n1"].die()
        await house.advance((grace or 20.0) - 0.5)
        assert await truth(house, "n1", "Ready") == (Truth.TRUE, "HeartbeatReceived")
        await house.advance(1)
        assert await truth(house, "n1", "Ready") == (Truth.UNKNOWN, "HeartbeatLost")
        house.agents["n1"].beat()
        await house.settle()
        assert await truth(house, "n1", "Ready") == (Truth.TRUE, "HeartbeatReceived")


async def test_an_agent_that_is_restarted_within_the_grace_changes_nothing() -> None:
    async with House("n1") as house:
        for _ in range(3):
            house.agents["n1"].die()
            await house.advance(15)
            house.agents["n1"].beat()
            await house.advance(15)
        assert not [event for event in await house.events() if event.startswith("NodeNotReady")]


async def test_load_alone_is_written_every_few_seconds() -> None:
    async with House("n1") as house:
        await house.advance(10)
        writes = await _count_writes(house)
        for tenth in range(300):
            house.agents["n1"].load(used=10_000 + tenth)
            await house.advance(0.1)
        assert 5 <= await _count_writes(house) - writes <= 7
        load = (await house.node("n1")).status.load
        assert load is not None and load.memory_used > 10_200


async def test_pressure_begins_at_the_high_water_and_does_not_flicker() -> None:
    async with House("n1") as house:
        found = []
        for share in (0.5, 0.95, 0.85, 0.91, 0.6):
            house.agents["n1"].load(used=int(share * GIGA))
            await house.advance(6)
            found.append((await truth(house, "n1", "MemoryPressure"))[0])
        assert found == [Truth.FALSE, Truth.TRUE, Truth.TRUE, Truth.TRUE, Truth.FALSE]


async def test_more_tasks_than_cores_are_cpu_pressure() -> None:
    async with House("n1") as house:
        assert (await truth(house, "n1", "CPUPressure"))[0] == Truth.FALSE
        house.agents["n1"].load(jobs={"default/w": JobLoad(cpu_demand=3.0)})
        await house.advance(6)
        assert (await truth(house, "n1", "CPUPressure"))[0] == Truth.TRUE
        house.agents["n1"].die()
        await house.advance(30)
        assert (await truth(house, "n1", "CPUPressure"))[0] == Truth.UNKNOWN


async def test_only_living_jobs_are_counted() -> None:
    async with House("n1") as house:
        for name in ("a", "b"):
            await house.run(name)
        await house.settle()
        assert (await house.node("n1")).status.jobs == 2
        house.agents["n1"].finish("default/a")
        await house.settle()
        assert (await house.node("n1")).status.jobs == 1


async def test_cluster_and_image_count() -> None:
    async with House("n1", "n2") as house:
        await house.store.create(Cluster(metadata=Metadata(name="c")))
        await house.store.create(Image(metadata=Metadata(name="base")))
        await house.change(Node, "n2", lambda node: setattr(node.spec, "image", "base"))
        house.agents["n1"].die()
        await house.run("w", on="n2")
        await house.advance(30)
        status = (await house.store.get(Cluster, "c")).status
        assert (status.nodes, status.ready_nodes, status.running_jobs) == (2, 1, 1)
        assert (await house.store.get(Image, "base")).status.nodes == ["n2"]


async def _count_writes(house: House) -> int:
    kv = house.kv.server.get("/mx/kinds/nodes/_/n1")
    assert kv is not None
    return kv.version


async def test_how_far_a_machines_boot_is_shows_in_its_node() -> None:
    async with House() as house:
        await house.store.create(Node(metadata=Metadata(name="n1"), spec=NodeSpec(mac=MAC)))
        boot = BootTimeline(dhcp=house.clock.now(), ipxe=house.clock.now())
        machine = Machine(
            mac=MAC, first_seen=house.clock.now(), last_seen=house.clock.now(), boot=boot, hardware=Hardware(vendor="MX")
        )
        await house.kv.txn((), (Put(keys.machine(MAC), machine.to_json()),))
        await house.settle()
        assert await truth(house, "n1", "Booted") == (Truth.UNKNOWN, "Booting")
        status = (await house.node("n1")).status
        assert status.hardware is not None
        assert status.hardware.vendor == "MX"
        await house.advance(100)
        assert await truth(house, "n1", "Booted") == (Truth.FALSE, "StuckAfterIpxe")
        machine.boot.kernel = machine.boot.root = house.clock.now()
        await house.kv.txn((), (Put(keys.machine(MAC), machine.to_json()),))
        await house.settle()
        assert await truth(house, "n1", "Booted") == (Truth.UNKNOWN, "Booting")
