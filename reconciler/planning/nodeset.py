"""A NodeSet's Nodes: which to make, which to change, which to take away. Pure.

A node is known by its MAC (with ``count``: by its number), keeps its number as long as its MAC is listed, and a new MAC takes the
lowest number that is free. So taking a machine out of the middle changes no other.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from crds.cluster import address_range
from crds.meta import Metadata, OwnerReference
from crds.node import Node, NodeSpec
from crds.nodeset import NodeSet, NodeSetSpec
from crds.power import PowerSpec

LABELS = "mx/labels-of-set"
"""Annotation of a Node: the labels its set gave it, so that it can take them back."""


@dataclass(frozen=True, slots=True)
class NodeSetPlan:
    """``change``: Nodes as they should be, with the metadata they were read with. ``problems``: one line each."""

    create: tuple[Node, ...] = ()
    change: tuple[Node, ...] = ()
    remove: tuple[Node, ...] = ()
    problems: tuple[str, ...] = ()


def plan_nodes(wish: NodeSet, owner: OwnerReference, nodes: Sequence[Node]) -> NodeSetPlan:
    """``nodes`` are all of the cluster."""
    mine = {node.name: node for node in nodes if any(ref.uid == owner.uid for ref in node.metadata.owner_references)}
    others = {node.name: node for node in nodes if node.name not in mine}
    foreign = {node.spec.mac: node.label for node in others.values() if node.spec.mac}
    problems = [f"{mac} belongs to {foreign[mac]} already" for mac in wish.spec.macs if mac in foreign]
    wanted = dict(_wanted(wish.spec, mine, others, problems))
    create, change = [], []
    for number, mac in sorted(wanted.items()):
        name = name_of(wish.spec, number)
        address = _address(wish.spec, number, problems)
        if name in mine:
            new = _changed(wish.spec, mine[name], number, mac, address)
            if new is not None:
                change.append(new)
        else:
            create.append(_made(wish.spec, name, owner, number, mac, address))
    kept = {name_of(wish.spec, number) for number in wanted}
    remove = [node for name, node in mine.items() if name not in kept and node.metadata.deletion_timestamp is None]
    return NodeSetPlan(tuple(create), tuple(change), tuple(remove), tuple(problems))


def name_of(spec: NodeSetSpec, number: int) -> str:
    """The node's name."""
    return spec.names.format(number)


def _wanted(
    spec: NodeSetSpec, mine: Mapping[str, Node], others: Mapping[str, Node], problems: list[str]
) -> Iterator[tuple[int, str | None]]:
    """Number and MAC of each node there should be."""
    if spec.count is not None:
        for number in range(spec.first, spec.first + spec.count):
            if name_of(spec, number) in others:
                problems.append(f"node/{name_of(spec, number)} is there already and not of this set")
            else:
                yield number, _mac_of(mine.get(name_of(spec, number)))
        return
    foreign = {node.spec.mac for node in others.values()}
    numbers = {node.spec.mac: found for node in mine.values() if (found := number_of(spec, node.name)) is not None}
    taken = {found for node in mine.values() if (found := number_of(spec, node.name)) is not None}
    free = spec.first
    for mac in spec.macs:
        if mac in foreign:
            continue
        if mac in numbers and mine[name_of(spec, numbers[mac])].metadata.deletion_timestamp is None:
            yield numbers[mac], mac
            continue
        while free in taken or name_of(spec, free) in others:
            free += 1
        taken.add(free)
        yield free, mac


def number_of(spec: NodeSetSpec, name: str) -> int | None:
    """The opposite of ``name_of``; None for a name that is not of the pattern."""
    before, after = re.split(r"\{[^}]*\}", spec.names)
    if not name.startswith(before) or not name.endswith(after) or len(name) <= len(before) + len(after):
        return None
    digits = name[len(before) : len(name) - len(after)]
    return int(digits) if digits.isdigit() and name_of(spec, int(digits)) == name else None


def _mac_of(node: Node | None) -> str | None:
    """Somebody told it later which machine it is."""
    return node.spec.mac if node else None


def _address(spec: NodeSetSpec, number: int, problems: list[str]) -> str | None:
    if spec.addresses is None:
        return None
    low, high = address_range(spec.addresses)
    value = low + number - spec.first
    if value > high:
        problems.append(f"node/{name_of(spec, number)} gets no address: {spec.addresses} is used up: widen spec.addresses")
        return None
    return str(ipaddress.IPv4Address(value))


def _made(spec: NodeSetSpec, name: str, owner: OwnerReference, number: int, mac: str | None, address: str | None) -> Node:
    template = spec.template
    metadata = Metadata(name=name, labels=dict(template.labels), owner_references=[owner])
    if template.labels:
        metadata.annotations[LABELS] = ",".join(sorted(template.labels))
    return Node(metadata=metadata, spec=_spec(spec, NodeSpec(), name, number, mac, address))


def _changed(spec: NodeSetSpec, old: Node, number: int, mac: str | None, address: str | None) -> Node | None:
    """None when it is as it should be. What the set says nothing of stays."""
    new = old.model_copy(deep=True)
    new.spec = _spec(spec, new.spec, old.name, number, mac, address)
    given = [key for key in old.metadata.annotations.get(LABELS, "").split(",") if key]
    for key in given:
        if key not in spec.template.labels:
            new.metadata.labels.pop(key, None)
    new.metadata.labels |= spec.template.labels
    new.metadata.annotations.pop(LABELS, None)
    if spec.template.labels:
        new.metadata.annotations[LABELS] = ",".join(sorted(spec.template.labels))
    same = new.spec == old.spec and new.metadata == old.metadata
    return None if same else new


def _spec(spec: NodeSetSpec, base: NodeSpec, name: str, number: int, mac: str | None, address: str | None) -> NodeSpec:
    template = spec.template
    changes = {
        "mac": mac,
        "address": address or base.address,
        "image": template.image,
        "kernel_arguments": list(template.kernel_arguments),
        "power": _power(template.power, name, number, mac),
        "taints": list(template.taints),
    }
    return base.model_copy(update=changes, deep=True)


def _power(power: PowerSpec | None, name: str, number: int, mac: str | None) -> PowerSpec | None:
    """Each node's own words in the place of {name}, {number} and {mac}."""
    if power is None:
        return None

    def fill(text: str) -> str:
        return text.replace("{name}", name).replace("{number}", str(number)).replace("{mac}", mac or "")

    return power.model_copy(update={"address": fill(power.address), "system": fill(power.system)})
