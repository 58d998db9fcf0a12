"""Which nodes can be counted on. One answer for all controllers."""

from crds.meta import is_true
from crds.node import READY, Node
from reconciler.world import World


def is_ready(world: World, node: str) -> bool:
    """Whether what the node reports is the present. An undeclared node counts as long as its heartbeat is there."""
    found = world.find(Node, node)
    return node in world.alive if found is None else is_true(found.status.conditions, READY)


def takes_orders(world: World, node: str) -> bool:
    """Whether new work may be given to it: declared, ready, and its heartbeat is there right now."""
    return world.find(Node, node) is not None and node in world.alive and is_ready(world, node)


def is_written_off(world: World, node: str) -> bool:
    """Neither declared nor heard of: nobody will ever report from it again."""
    return not world.is_there(Node, node) and node not in world.alive and world.object_key(Node, node) not in world.broken
