"""Which machines are served, and what is said of the others."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clip.render import dnsmasq, ipxe, nfs
from clip.render.ipxe import BootSettings, kernel_line
from clip.service.config import Config
from clip.service.tables import revision_of
from clip.table import Revision, Row, Table, make_table
from crds.assignment import Assignment, Mount
from crds.cluster import NetworkSpec
from crds.image import Image
from crds.image import Revision as RevisionOf
from crds.meta import Metadata
from crds.node import Node, NodeSpec

REVISION = Revision("d1", ("agent-a", "base-b"), "boot-c", "console=ttyS0")
SERVER = "10.77.0.1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def node(name: str, mac: str | None, address: str | None) -> Node:
    return Node(metadata=Metadata(name=name), spec=NodeSpec(mac=mac, address=address))


def table_of(*nodes: Node) -> Table:
    return make_table(NetworkSpec(), nodes, {each.name: REVISION for each in nodes}, server=SERVER)


def test_a_node_with_network_card_address_and_image_is_served() -> None:
    table = table_of(node("n1", "52:54:00:77:00:01", "10.77.0.11"))
    assert table.rows == (Row("n1", "52:54:00:77:00:01", "10.77.0.11", REVISION),)
    assert not table.problems


def test_a_node_without_a_network_card_is_no_machine_of_ours() -> None:
    table = table_of(node("n1", None, "10.77.0.11"))
    assert not table.rows
    assert not table.problems


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        (None, "no address: set spec.address"),
        ("10.78.0.5", "10.78.0.5 is outside of the cluster's network 10.77.0.0/24"),
        ("10.77.0.255", "is no machine's address in 10.77.0.0/24"),
        ("10.77.0.130", "lies in jobRange 10.77.0.128/25"),
        ("10.77.0.113", "lies in discoveryRange 10.77.0.112/28"),
        (SERVER, "is the head's, too"),
    ],
)
def test_an_address_that_cannot_be_served_is_told_and_others_are_served(address: str | None, problem: str) -> None:
    table = table_of(node("bad", "52:54:00:77:00:02", address), node("n1", "52:54:00:77:00:01", "10.77.0.11"))
    assert problem in table.problems["bad"]
    assert [row.name for row in table.rows] == ["n1"]


def test_two_nodes_with_one_address_are_told_apart() -> None:
    table = table_of(node("n1", "52:54:00:77:00:01", "10.77.0.11"), node("n2", "52:54:00:77:00:02", "10.77.0.11"))
    assert table.problems == {"n2": "its address 10.77.0.11 is node/n1's, too: give one of the two another"}


def test_two_nodes_with_one_network_card_are_told_apart() -> None:
    table = table_of(node("n1", "52:54:00:77:00:01", "10.77.0.11"), node("n2", "52:54:00:77:00:01", "10.77.0.12"))
    assert "its network card 52:54:00:77:00:01 is node/n1's, too" in table.problems["n2"]


def test_a_node_without_an_image_is_told_why() -> None:
    one = node("n1", "52:54:00:77:00:01", "10.77.0.11")
    table = make_table(NetworkSpec(), [one], {"n1": "image numpy has no kernel"}, server=SERVER)
    assert table.problems == {"n1": "image numpy has no kernel"}


def test_sixty_four_nodes_are_rendered_within_a_second() -> None:
    nodes = [node(f"n{i}", f"52:54:00:77:00:{i:02x}", f"10.77.0.{10 + i}") for i in range(1, 65)]
    settings = ipxe.BootSettings(SERVER, 8080, "10.77.0.1:2379")
    begun = time.perf_counter()
    table = table_of(*nodes)
    files = dnsmasq.host_files(table)
    scripts = [ipxe.boot_script(settings, table, row) for row in table.rows]
    exports = nfs.ganesha(nfs.NfsSettings(SERVER, "/i", "/s", "/h", "/r"), table)
    assert time.perf_counter() - begun < 1
    assert len(files) == len(scripts) == 64
    assert exports.count("EXPORT {") == 66


def test_a_node_boots_what_it_is_assigned() -> None:
    image = Image(metadata=Metadata(name="numpy"))
    image.status.revisions = [
        RevisionOf(
            number=1, digest="d7", layers=["a", "b"], boot="boot-x", kernel="6", built=NOW, recipe="r", kernel_arguments=["quiet"]
        )
    ]
    one = node("n1", "52:54:00:77:00:01", "10.77.0.11")
    config = Config(SERVER, "br0", "e:1", Path("/s"), Path("/i"), Path("/shared"), revision=REVISION)
    assert revision_of(one, {}, config) == REVISION
    config = replace(config, revision=replace(REVISION, arguments=""), arguments=REVISION.arguments)  # said for every machine
    mount = Mount(source="10.77.0.9:/data", target="/data", options="ro,vers=4.1")
    assigned = Assignment(image="numpy", revision="d7", kernel_arguments=["x=1"], dns=["10.77.0.1", "10.77.0.2"], mounts=[mount])
    one.status.assigned = assigned
    assert revision_of(one, {"numpy": image}, config) == Revision(
        "d7",
        ("a", "b"),
        "boot-x",
        "console=ttyS0 quiet x=1 mx.dns=10.77.0.1,10.77.0.2 mx.mount=10.77.0.9:/data,/data,nfs4,ro+vers=4.1 "
        f"mx.assigned={assigned.digest}",
    )
    assert table_of(one).rows
    assigned.revision = "gone"
    assert "image/numpy has no revision gone, which it is assigned" in str(revision_of(one, {"numpy": image}, config))


def test_a_node_that_runs_keeps_its_address_until_a_rollout() -> None:
    """Its mounts are granted to that address: taking it away would stop the node."""
    moved = node("n1", "52:54:00:77:00:01", "10.77.0.99")
    moved.status.assigned = Assignment(image="i", revision="d", address="10.77.0.11", cidr="10.77.0.0/25", gateway="10.77.0.2")
    [row] = table_of(moved).rows
    assert (row.address, row.netmask, row.gateway) == ("10.77.0.11", "255.255.255.128", "10.77.0.2")
    line = kernel_line(BootSettings("10.77.0.1", 8080, "10.77.0.1:2379"), table_of(moved), row)
    assert line.startswith("ip=10.77.0.11::10.77.0.2:255.255.255.128:n1:eth0:none ")
    both = table_of(moved, node("n2", "52:54:00:77:00:02", "10.77.0.11"))
    assert both.problems == {"n2": "its address 10.77.0.11 is node/n1's, too: give one of the two another"}
