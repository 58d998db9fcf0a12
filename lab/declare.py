"""Tells the cluster which nodes it has, as people do with ``mxctl apply`` for real machines."""

from collections.abc import Sequence

from crds.meta import Metadata
from crds.node import Node, NodeSpec
from crds.power import PowerDriver, PowerSpec
from lab.model import LabNode
from store.errors import AlreadyExists
from store.kv import KV
from store.store import Store

POWER = PowerSpec(driver=PowerDriver.LAB)


def node_object(node: LabNode) -> Node:
    """The Node as somebody would have written it."""
    return Node(metadata=Metadata(name=node.name), spec=NodeSpec(mac=node.mac, address=node.address, power=POWER))


async def declare_nodes(kv: KV, nodes: Sequence[LabNode]) -> list[str]:
    """Creates the Node objects that are not there yet, and leaves those that are; returns the created names. StoreError."""
    store = Store(kv)
    created = []
    for node in nodes:
        try:
            await store.create(node_object(node))
        except AlreadyExists:
            continue  # somebody's own words about it count more
        created.append(node.name)
    return created
