"""The table of machines that are served: MAC -> name, address, what to boot. Pure: from objects to rows and what is wrong.

Everything that is written for dnsmasq, iPXE and the NFS server is rendered from these rows, so they agree with each other. A Node
that cannot be served is left out with a problem that names it; it never keeps others from being served.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from clip.render import checks
from crds.cluster import NetworkSpec, address_problem
from crds.node import Node


@dataclass(frozen=True, slots=True)
class Revision:
    """What a machine boots: layers on the shelf, topmost first, and the layer with kernel and initramfs made from them."""

    digest: str
    layers: tuple[str, ...]
    boot: str
    arguments: str = ""
    """More for the kernel's command line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One machine that is served."""

    name: str
    mac: str
    address: str
    revision: Revision
    netmask: str = ""
    """As it is assigned; empty: the cluster's of now."""
    gateway: str = ""
    """The same."""


@dataclass(frozen=True, slots=True)
class Table:
    """``problems`` by node."""

    network: NetworkSpec
    rows: tuple[Row, ...] = ()
    problems: dict[str, str] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    """MACs nobody wants."""

    @property
    def prefix_length(self) -> int:
        return IPv4Network(self.network.cidr).prefixlen

    @property
    def netmask(self) -> str:
        return str(IPv4Network(self.network.cidr).netmask)


def make_table(
    network: NetworkSpec,
    nodes: Iterable[Node],
    revisions: dict[str, Revision | str],
    *,
    server: str,
    refused: Iterable[str] = (),
) -> Table:
    """Rows in the nodes' order. ``revisions``: what each node boots, or in words why it cannot. ``server``: the head's address.

    Nodes without a MAC are no machines of ours and appear nowhere.
    """
    rows: list[Row] = []
    problems: dict[str, str] = {}
    macs: dict[str, str] = {}
    addresses: dict[str, str] = {server: "the head"}
    for node in nodes:
        mac, address = node.spec.mac, address_of(node)
        if mac is None:
            continue
        revision = revisions.get(node.name, "no image was built for it yet: see mxctl get images")
        problem = _problem(network, node, macs, addresses) or _why_not(revision)
        if problem or address is None or isinstance(revision, str):
            problems[node.name] = problem
            continue
        macs[mac] = addresses[address] = node.label
        rows.append(Row(node.name, mac, address, revision, *_surroundings(node)))
    return Table(network, tuple(rows), problems, frozenset(refused))


def address_of(node: Node) -> str | None:
    """What it is assigned, until a rollout assigns it what is declared by now: a node that runs keeps its address, and its mounts,
    which the NFS server grants to that."""
    assigned = node.status.assigned
    return assigned.address if assigned is not None and assigned.address else node.spec.address


def _surroundings(node: Node) -> tuple[str, str]:
    """Netmask and gateway as it is assigned."""
    assigned = node.status.assigned
    if assigned is None or not assigned.cidr:
        return "", ""
    return str(IPv4Network(assigned.cidr).netmask), assigned.gateway or ""


def _why_not(revision: Revision | str) -> str:
    if isinstance(revision, str):
        return revision
    try:
        checks.words(revision.arguments)
    except checks.RenderError as error:
        return str(error)
    return ""


def _problem(network: NetworkSpec, node: Node, macs: dict[str, str], addresses: dict[str, str]) -> str:
    mac, address = node.spec.mac or "", address_of(node)
    try:
        checks.name(node.name)
        checks.mac(mac)
    except checks.RenderError as error:
        return str(error)
    if address is None:
        return f"it has the network card {mac} but no address: set spec.address"
    if mac in macs:
        return f"its network card {mac} is {macs[mac]}'s, too: give one of the two another"
    if address in addresses:
        return f"its address {address} is {addresses[address]}'s, too: give one of the two another"
    found = address_problem(network, address)
    return f"its address {found}" if found else ""
