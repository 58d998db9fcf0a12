"""Nodes that leave, and nodes that come in sets: over the whole reconciler."""

import time
from typing import Any

from crds import keys
from crds.cluster import Cluster, ClusterSpec, NetworkSpec
from crds.job import JobPhase
from crds.meta import Metadata, find_condition
from crds.node import LEAVING, Node, NodeSpec
from crds.nodeset import NodeSet, NodeSetSpec
from crds.power import PowerDriver
from reconciler.planning.nodeset import plan_nodes
from store.owners import owner_reference

from .house import House
from .machine_room import room


async def test_a_node_that_is_removed_gives_its_jobs_away_and_is_switched_off() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await house.run("w", on="n1")
        await house.settle()
        await house.store.delete(Node, "n1")
        await house.advance(3)
        assert house.running() == ["n2"]
        assert house.world.find(Node, "n1") is None
        assert machines.violations == []
        assert machines.off == ["n1"]
        await house.advance(31)  # the next sweep
        assert house.kv.server.get(keys.power_request("n1")) is None


async def test_a_job_that_cannot_leave_keeps_its_node_and_says_so() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await house.run("w", placement={"node": "n1", "pinned": True})
        await house.settle()
        await house.store.delete(Node, "n1")
        await house.advance(30)
        condition = find_condition((await house.node("n1")).status.conditions, LEAVING)
        assert condition is not None
        assert "job/w cannot be moved away: it is pinned to node n1" in condition.message
        assert house.running() == ["n1"]
        assert machines.off == []
        await house.run("v", on="n1")
        await house.settle()
        assert (await house.job("v")).phase == JobPhase.PENDING


async def test_a_machine_that_never_came_is_removed_at_once() -> None:
    async with House("n1") as house:
        await house.store.create(Node(metadata=Metadata(name="n2"), spec=NodeSpec(mac="52:54:00:00:00:02")))
        await house.settle()
        await house.store.delete(Node, "n2")
        await house.settle()
        assert house.world.find(Node, "n2") is None
        assert "52:54:00:00:00:02" not in house.world.addresses


async def test_nobody_who_switches_it_off_holds_it_up_for_a_minute_only() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        machines.ignored.add("n1")
        await house.store.delete(Node, "n1")
        await house.advance(30)
        assert house.world.find(Node, "n1") is not None
        await house.advance(40)
        assert house.world.find(Node, "n1") is None
        assert "NotSwitchedOff n1" in await house.events()


# --- sets ---


def macs(*numbers: int) -> list[str]:
    return [f"52:54:00:00:{number // 256:02x}:{number % 256:02x}" for number in numbers]


def nodeset(name: str = "rack", **spec: Any) -> NodeSet:
    return NodeSet(metadata=Metadata(name=name), spec=NodeSetSpec.model_validate(spec))


def table(house: House) -> dict[str, tuple[str | None, str | None]]:
    return {node.name: (node.spec.mac, node.spec.address) for node in house.world.all(Node)}


TEMPLATE = {
    "image": "numpy",
    "labels": {"row": "a"},
    "kernelArguments": ["quiet"],
    "power": {"driver": "ipmi", "address": "bmc-{number}.mgmt", "credentials": "bmc"},
}


async def test_a_set_makes_its_nodes() -> None:
    async with House() as house:
        await house.store.create(nodeset(names="n{:02}", macs=macs(1, 2, 3), addresses="10.77.0.11-10.77.0.20", template=TEMPLATE))
        await house.settle()
        assert table(house) == {f"n{n:02}": (mac, f"10.77.0.{10 + n}") for n, mac in enumerate(macs(1, 2, 3), 1)}
        node = await house.node("n02")
        assert (node.spec.image, node.metadata.labels, node.spec.kernel_arguments) == ("numpy", {"row": "a"}, ["quiet"])
        assert node.spec.power is not None
        assert (node.spec.power.driver, node.spec.power.address) == (PowerDriver.IPMI, "bmc-2.mgmt")
        assert (await house.store.get(NodeSet, "rack")).status.nodes == 3


async def test_taking_a_machine_out_of_the_middle_changes_no_other() -> None:
    async with House() as house:
        await house.store.create(nodeset(macs=macs(1, 2, 3), addresses="10.77.0.11-10.77.0.20"))
        await house.settle()
        before = table(house)
        await house.change(NodeSet, "rack", lambda s: setattr(s.spec, "macs", macs(1, 3)))
        await house.settle()
        assert table(house) == {name: before[name] for name in ("n1", "n3")}
        await house.change(NodeSet, "rack", lambda s: setattr(s.spec, "macs", macs(1, 3, 9)))
        await house.settle()
        assert table(house) == {**{name: before[name] for name in ("n1", "n3")}, "n2": (macs(9)[0], "10.77.0.12")}


async def test_a_change_of_the_template_comes_to_its_nodes_and_leaves_the_rest_alone() -> None:
    async with House() as house:
        await house.store.create(nodeset(count=2, template=TEMPLATE))
        await house.settle()

        def by_hand(node: Node) -> None:
            node.spec.unschedulable, node.spec.mac = True, macs(7)[0]
            node.metadata.labels["mine"] = "yes"

        await house.change(Node, "n1", by_hand)
        await house.change(NodeSet, "rack", lambda s: setattr(s.spec.template, "labels", {"hall": "2"}))
        await house.change(NodeSet, "rack", lambda s: setattr(s.spec.template, "image", "other"))
        await house.settle()
        node = await house.node("n1")
        assert (node.spec.unschedulable, node.spec.mac, node.spec.image) == (True, macs(7)[0], "other")
        assert node.metadata.labels == {"hall": "2", "mine": "yes"}


async def test_what_belongs_to_others_is_told_and_holds_up_nobody() -> None:
    async with House() as house:
        await house.store.create(Node(metadata=Metadata(name="n1"), spec=NodeSpec(mac=macs(1)[0], address="10.77.0.12")))
        await house.store.create(nodeset(macs=macs(1, 2, 3), addresses="10.77.0.11-10.77.0.13"))
        await house.settle()
        message = (await house.store.get(NodeSet, "rack")).status.message
        assert "52:54:00:00:00:01 belongs to node/n1 already" in message
        assert "10.77.0.12 belongs to node/n1 already" in message
        assert table(house)["n3"] == (macs(3)[0], "10.77.0.13")


async def test_the_nodes_of_a_set_go_with_it() -> None:
    async with House() as house:
        await house.store.create(nodeset(count=3))
        await house.settle()
        await house.store.delete(NodeSet, "rack")
        await house.advance(5)
        assert table(house) == {}


async def test_a_machine_without_an_address_gets_one_of_the_cluster_s() -> None:
    async with House() as house:
        network = NetworkSpec(node_range="10.77.0.11-10.77.0.12")
        await house.store.create(Cluster(metadata=Metadata(name="c"), spec=ClusterSpec(network=network)))
        for number in (1, 2, 3):
            await house.store.create(Node(metadata=Metadata(name=f"n{number}"), spec=NodeSpec(mac=macs(number)[0])))
            await house.settle()
        assert [address for _, address in table(house).values()] == ["10.77.0.11", "10.77.0.12", None]
        await house.store.delete(Node, "n1")
        await house.settle()
        assert table(house)["n3"] == (macs(3)[0], "10.77.0.11")


def test_a_large_set_is_planned_quickly() -> None:
    wish = nodeset(macs=macs(*range(1, 2001)), addresses="10.64.0.1-10.64.200.0", template=TEMPLATE)
    wish.metadata.uid = "u"
    begun = time.process_time()
    plan = plan_nodes(wish, owner_reference(wish), [])
    assert len(plan.create) == 2000
    again = plan_nodes(wish, owner_reference(wish), plan.create)
    assert (again.create, again.change, again.remove, again.problems) == ((), (), (), ())
    assert time.process_time() - begun < 10
