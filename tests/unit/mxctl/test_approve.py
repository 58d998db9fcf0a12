"""Machines nobody declared: shown among the nodes, approved or refused."""

from datetime import UTC, datetime, timedelta

import pytest

from crds import keys
from crds.cluster import Cluster, ClusterSpec, NetworkSpec
from crds.image import Image
from crds.machine import Hardware, Machine
from crds.meta import Metadata
from crds.node import Node, NodeSpec
from tests.unit.mxctl.terminal import Terminal

MAC = "52:54:00:77:00:81"


def seen(mac: str = MAC, ago: float = 3.0) -> Machine:
    moment = datetime.now(UTC) - timedelta(seconds=ago)
    hardware = Hardware(vendor="MX", product="lab", serial="s1", memory=2**30, cpus=2)
    return Machine(mac=mac, hardware=hardware, address="10.77.0.113", first_seen=moment, last_seen=moment)


@pytest.fixture
def found(terminal: Terminal) -> Terminal:
    terminal.put(keys.machine(MAC), seen())
    terminal.create(Node(metadata=Metadata(name="n1"), spec=NodeSpec(mac="52:54:00:77:00:01", address="10.77.0.11")))
    return terminal


def test_it_is_listed_among_the_nodes(found: Terminal) -> None:
    lines = found.run("get", "nodes", "-o", "wide").out.splitlines()
    row = next(line for line in lines if line.startswith(MAC))
    assert "Discovered" in row
    assert "MX lab s1" in row
    assert "-/2" in row
    assert "-/1.0Gi" in row


@pytest.mark.parametrize("arguments", [["-o", "yaml"], ["-o", "name"], ["n1"], ["-l", "row=a"]])
def test_where_objects_are_asked_for_it_is_none(found: Terminal, arguments: list[str]) -> None:
    assert MAC not in found.run("get", "nodes", *arguments).out


def test_one_that_was_silent_for_long_is_not_listed(terminal: Terminal) -> None:
    terminal.put(keys.machine(MAC), seen(ago=4000))
    assert MAC not in terminal.run("get", "nodes").out


def test_approved_it_is_a_node_with_the_next_address(found: Terminal) -> None:
    said = found.run("approve", "node", MAC.upper(), "--name", "n3", "-l", "row=a")
    assert said.out == f"node/n3 approved, {MAC} boots as 10.77.0.12\n"
    node = found.do(lambda store: store.get(Node, "n3"))
    assert (node.spec.mac, node.spec.address, node.metadata.labels) == (MAC, "10.77.0.12", {"row": "a"})
    assert MAC not in found.run("get", "nodes").out


def test_the_next_address_is_none_the_cluster_gives_away(found: Terminal) -> None:
    network = NetworkSpec(discovery_range="10.77.0.12/30", job_range="10.77.0.16/28")
    found.create(Cluster(metadata=Metadata(name="c"), spec=ClusterSpec(network=network)))
    assert "boots as 10.77.0.32" in found.run("approve", "node", MAC, "--name", "n3").out


def test_without_a_free_address_nothing_is_done(found: Terminal) -> None:
    network = NetworkSpec(cidr="10.77.0.8/29", discovery_range=None, job_range="10.77.0.12/30")
    found.create(Cluster(metadata=Metadata(name="c"), spec=ClusterSpec(network=network)))
    for number in (2, 3):
        found.create(Node(metadata=Metadata(name=f"a{number}"), spec=NodeSpec(address=f"10.77.0.{7 + number}")))
    said = found.run("approve", "node", MAC, "--name", "n3")
    assert said.code == 1
    assert "no address of 10.77.0.8/29 is free" in said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["approve", "node", "52:54:00:77:00:99", "--name", "n3"], "no machine 52:54:00:77:00:99 was seen; those seen are"),
        (["approve", "node", MAC, "--name", "n1"], "node/n1 exists already"),
        (["approve", "node", MAC, "--name", "n3", "--address", "10.77.0.11"], "10.77.0.11 belongs to node/n1 already"),
        (["approve", "node", MAC, "--name", "n3", "-l", "row"], "write KEY=VALUE"),
        (["refuse", "node", "52:54:00:77:00:99"], "no machine 52:54:00:77:00:99 was seen"),
    ],
)
def test_what_cannot_be_is_told(found: Terminal, arguments: list[str], told: str) -> None:
    before = found.revision
    said = found.run(*arguments)
    assert said.code != 0
    assert told in said.err
    assert found.revision == before


def test_refused_it_is_not_listed_until_it_is_approved(found: Terminal) -> None:
    assert found.run("refuse", "node", MAC).out == f"{MAC} refused\n"
    assert found.run("refuse", "node", MAC).out == f"{MAC} was refused before\n"
    assert MAC not in found.run("get", "nodes").out
    assert found.run("approve", "node", MAC, "--name", "n3").code == 0
    assert found.do(lambda store: store.kv.get(keys.refusal(MAC))) is None


def test_a_node_is_not_refused_nor_approved_again(found: Terminal) -> None:
    found.run("approve", "node", MAC, "--name", "n3")
    assert "delete that with mxctl delete node" in found.run("refuse", "node", MAC).err
    assert f"{MAC} is node/n3 already" in found.run("approve", "node", MAC, "--name", "n4").err


def test_it_runs_the_only_image_there_is(found: Terminal) -> None:
    found.create(Image(metadata=Metadata(name="plain")))
    found.run("approve", "node", MAC, "--name", "n3")
    assert found.do(lambda store: store.get(Node, "n3")).spec.image == "plain"


def test_of_several_images_one_has_to_be_named(found: Terminal) -> None:
    found.create(Image(metadata=Metadata(name="plain")), Image(metadata=Metadata(name="numpy")))
    before = found.revision
    said = found.run("approve", "node", MAC, "--name", "n3")
    assert (said.code, said.err) == (1, "Error: the cluster has several images: say with --image which it runs: numpy, plain\n")
    assert found.revision == before
    found.run("approve", "node", MAC, "--name", "n3", "--image", "numpy")
    assert found.do(lambda store: store.get(Node, "n3")).spec.image == "numpy"
