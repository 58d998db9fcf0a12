"""Machines that asked for something to boot and are no nodes: shown among the nodes, so that somebody approves or refuses them."""

import ipaddress
from collections.abc import Container, Iterable
from datetime import timedelta

from pydantic import ValidationError

from crds import keys
from crds.cluster import Cluster, NetworkSpec, address_problem
from crds.machine import BootTimeline, Machine
from crds.meta import Condition, Metadata, Truth
from crds.node import DISCOVERED, Node, NodeSpec, NodeStatus
from mxctl.core.session import Session

FORGOTTEN = timedelta(hours=1)
"""A held machine asks every few seconds; one that was silent for so long is not there any more."""


async def machines(session: Session) -> list[Machine]:
    """All that CLiP has seen. What cannot be read is left out: CLiP writes it anew."""
    found = []
    for item in (await session.kv.list(keys.MACHINES)).items:
        try:
            found.append(Machine.model_validate_json(item.value))
        except ValidationError:
            continue
    return found


async def refusals(session: Session) -> set[str]:
    """MACs that were refused."""
    return {item.key.removeprefix(keys.REFUSALS) for item in (await session.kv.list(keys.REFUSALS)).items}


async def discovered(session: Session, nodes: Iterable[Node]) -> list[Node]:
    """As rows among the nodes. They are no objects: they have no spec that somebody wrote, and are not shown as such."""
    known = {node.spec.mac for node in nodes} | await refusals(session)
    oldest = session.store.clock() - FORGOTTEN
    return [_row(machine) for machine in await machines(session) if machine.mac not in known and machine.last_seen > oldest]


def _row(machine: Machine) -> Node:
    held = Condition(type=DISCOVERED, status=Truth.TRUE, last_transition_time=machine.first_seen)
    status = NodeStatus(conditions=[held], hardware=machine.hardware)
    status.boot = BootTimeline(dhcp=machine.boot.dhcp, ipxe=machine.boot.ipxe)
    status.capacity.memory, status.capacity.cpu = machine.hardware.memory, float(machine.hardware.cpus)
    metadata = Metadata.model_construct(name=machine.mac, creation_timestamp=machine.first_seen)
    spec = NodeSpec(mac=machine.mac, address=machine.address or None)
    return Node.model_construct(metadata=metadata, spec=spec, status=status)


def choose_address(network: NetworkSpec, taken: Container[str], used: Iterable[str]) -> str | None:
    """The one above the highest that nodes have, else the lowest that is free; None when there is none."""
    cidr = ipaddress.IPv4Network(network.cidr)
    highest = max((int(ipaddress.IPv4Address(address)) for address in used), default=int(cidr.network_address))
    numbers = [*range(highest + 1, int(cidr.broadcast_address)), *range(int(cidr.network_address) + 1, highest)]
    for number in numbers:
        address = str(ipaddress.IPv4Address(number))
        if address not in taken and address != network.gateway and not address_problem(network, address):
            return address
    return None


async def network_of(session: Session) -> NetworkSpec:
    """The cluster's."""
    clusters = (await session.store.list(Cluster)).items
    return clusters[0].spec.network if clusters else NetworkSpec()
