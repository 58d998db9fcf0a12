"""Networks of jobs' own: who gets which address, who never gets it, and when it is free again."""

import pytest

from crds import keys
from crds.cluster import Cluster, ClusterSpec, NetworkSpec
from crds.job import SCHEDULED, Job, JobPhase
from crds.meta import Metadata, find_condition
from crds.network import HostEntry
from crds.node import Node, NodeSpec
from crds.placement import Placement
from store.admission import Refused

from .house import House

OWN = {"network": {"mode": "own"}}


def reserved(house: House) -> dict[str, str]:
    """Owner by address or MAC."""
    return {kv.key.removeprefix(keys.ADDRESSES): kv.value.decode() for kv in house.kv.server.list(keys.ADDRESSES, 0).items}


def hosts(house: House) -> dict[str, list[str]]:
    """Names by address."""
    entries = [HostEntry.model_validate_json(kv.value) for kv in house.kv.server.list(keys.HOSTS, 0).items]
    return {entry.address: entry.names for entry in entries}


def placement(house: House, node: str, job: str = "w") -> Placement:
    kv = house.kv.server.get(keys.placement(node, "default", job))
    assert kv is not None
    return Placement.model_validate_json(kv.value)


async def small(house: House, job_range: str | None, **network: object) -> None:
    """A cluster whose jobs share that range."""
    data = {"cidr": "10.0.0.0/16", "jobRange": job_range, **network}
    spec = ClusterSpec(network=NetworkSpec.model_validate(data))
    await house.store.create(Cluster(metadata=Metadata(name="c"), spec=spec))


async def test_a_job_gets_an_address_a_mac_and_names() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1", **OWN)
        await house.run("plain", on="n1")
        await house.settle()
        status, placed = await house.job("w"), placement(house, "n1")
        assert (status.address, status.mac) == ("10.77.0.128", "52:54:0a:4d:00:80")
        assert (placed.address, placed.mac, placed.gateway) == ("10.77.0.128/24", status.mac, None)
        assert reserved(house) == {"10.77.0.128": "default/w", "52:54:0a:4d:00:80": "default/w"}
        assert hosts(house) == {"10.77.0.128": ["w.default.mx.local", "w.default", "w"]}
        assert (await house.job("plain")).address is None and placement(house, "n1", "plain").address is None


async def test_it_keeps_them_over_moves_there_and_back_and_over_one_that_fails() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1", **OWN)
        await house.settle()
        for number, node in enumerate(("n2", "n1")):
            await house.migrate("w", node, name=f"m{number}")
            await house.settle()
            assert placement(house, node).address == "10.77.0.128/24"
        house.agents["n2"].refuses = "no room"
        await house.migrate("w", "n2", name="m9")
        await house.settle()
        status = await house.job("w")
        assert (status.node, status.address, placement(house, "n1").mac) == ("n1", "10.77.0.128", "52:54:0a:4d:00:80")


async def test_both_ends_of_a_move_are_told() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1", **OWN)
        await house.settle()
        house.agents["n2"].holds = {"commit"}
        await house.migrate("w", "n2")
        await house.settle()
        assert [placement(house, node).address for node in ("n1", "n2")] == ["10.77.0.128/24"] * 2
        house.agents["n2"].holds = set()
        await house.settle()


async def test_it_is_free_again_when_the_job_is_gone() -> None:
    async with House("n1") as house:
        await house.run("w", **OWN)
        await house.settle()
        await house.store.delete(Job, "w", "default")
        await house.settle()
        assert reserved(house) == {} and hosts(house) == {}
        await house.run("v", **OWN)
        await house.settle()
        assert (await house.job("v")).address == "10.77.0.128"


async def test_a_job_that_ended_keeps_its_address_until_it_is_deleted() -> None:
    async with House("n1") as house:
        await house.run("w", **OWN)
        await house.settle()
        house.agents["n1"].finish("default/w")
        await house.advance(60)
        assert "10.77.0.128" in reserved(house)


async def test_the_garbage_sweep_frees_what_a_job_left_that_lost_its_finalizer() -> None:
    async with House("n1") as house:
        await house.run("w", **OWN)
        await house.run("v", **OWN)
        await house.settle()
        await house.change(Job, "w", lambda job: job.metadata.finalizers.clear())
        await house.store.delete(Job, "w", "default")
        await house.advance(60)
        assert set(reserved(house).values()) == {"default/v"} and list(hosts(house)) == ["10.77.0.129"]


async def test_a_job_that_cannot_be_read_keeps_its_address() -> None:
    async with House("n1") as house:
        await house.run("w", **OWN)
        await house.settle()
        await house.put(keys.object_key(Job, "w", "default"), b'{"kind": "Job", "spec": 7}')
        await house.advance(60)
        assert len(reserved(house)) == 2 and hosts(house)


async def test_when_all_are_taken_the_next_job_waits_and_gets_the_first_that_is_free() -> None:
    async with House("n1") as house:
        await small(house, "10.0.7.4/31")
        for name in ("a", "b", "c"):
            await house.run(name, **OWN)
            await house.settle()
        waiting = await house.job("c")
        condition = find_condition(waiting.conditions, SCHEDULED)
        assert waiting.phase == JobPhase.PENDING and condition is not None
        assert (condition.status, condition.reason) == ("False", "NoAddress")
        assert (
            condition.message
            == "all addresses of 10.0.7.4/31 are taken: delete jobs that have ended, or widen spec.network.jobRange"
        )
        await house.store.delete(Job, "a", "default")
        await house.advance(10)
        assert (await house.job("c")).address == "10.0.7.4"


async def test_without_a_range_the_job_waits() -> None:
    async with House("n1") as house:
        await small(house, None)
        await house.run("w", **OWN)
        await house.settle()
        assert (await house.job("w")).message == "the cluster has no addresses for jobs: set spec.network.jobRange"


async def test_nobody_gets_what_a_node_has_or_what_stands_for_all() -> None:
    async with House("n1") as house:
        await small(house, "10.0.0.0/29", gateway="10.0.0.1")
        await house.store.create(Node(metadata=Metadata(name="declared"), spec=NodeSpec(address="10.0.0.2")))
        await house.store.create(Node(metadata=Metadata(name="mac"), spec=NodeSpec(mac="52:54:0a:00:00:03")))
        house.agents["n1"].beat(address="10.0.0.4:7950")
        await house.run("w", **OWN)
        await house.settle()
        assert (await house.job("w")).address == "10.0.0.5"
        assert placement(house, "n1").gateway == "10.0.0.1"


async def test_a_node_cannot_be_given_what_a_job_has() -> None:
    async with House("n1") as house:
        await house.run("w", **OWN)
        await house.settle()
        with pytest.raises(Refused, match=r"10\.77\.0\.128 belongs to job/w already"):
            await house.store.create(Node(metadata=Metadata(name="n9"), spec=NodeSpec(address="10.77.0.128")))
        with pytest.raises(Refused, match=r"52:54:0a:4d:00:80 belongs to job/w already"):
            await house.store.create(Node(metadata=Metadata(name="n9"), spec=NodeSpec(mac="52:54:0a:4d:00:80")))


async def test_a_node_gets_what_a_job_left_behind() -> None:
    async with House() as house:
        await house.put(keys.address("10.77.0.128"), b"default/gone")
        await house.store.create(Node(metadata=Metadata(name="n9"), spec=NodeSpec(address="10.77.0.128")))
        assert reserved(house)["10.77.0.128"] == "n9"


async def test_it_runs_only_where_a_bridge_is() -> None:
    async with House("n1", "n2") as house:
        house.agents["n1"].beat(features=[])
        await house.run("w", **OWN)
        await house.settle()
        assert (await house.job("w")).node == "n2"
        await house.migrate("w", "n1")
        await house.settle()
        assert "n1: it has no bridge for jobs with a network of their own" in (await house.migration()).message


async def test_names_of_other_namespaces_are_never_bare() -> None:
    async with House("n1") as house:
        await house.store.create(Job(metadata=Metadata(name="w", namespace="alice"), spec={"command": ["true"], **OWN}))
        await house.settle()
        assert hosts(house) == {"10.77.0.128": ["w.alice.mx.local", "w.alice"]}
