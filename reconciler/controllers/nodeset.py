"""NodeSet: makes, changes and removes its Nodes as the plan says, and gives nodes addresses from the Cluster's range."""

import ipaddress
from collections.abc import Iterable

from crds.cluster import Cluster, address_range
from crds.meta import Resource, is_true
from crds.node import READY, Node
from crds.nodeset import NodeSet
from reconciler.context import Context
from reconciler.planning.nodeset import plan_nodes
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import Delta, World
from store.errors import Invalid
from store.owners import owner_reference

MOST_TOLD = 5


def _all(world: World) -> list[str]:
    return [wish.name for wish in world.all(NodeSet)]


def _own(delta: Delta, _: World) -> Iterable[str]:
    return [delta.parts[3]] if isinstance(delta.new, Resource) else []


def _owners(delta: Delta, world: World) -> Iterable[str]:
    """A Node: sets that may want it otherwise now, or count it otherwise."""
    old, new = (_relevant(node) for node in (delta.old, delta.new))
    return _all(world) if old != new else []


def _relevant(node: object) -> object:
    if not isinstance(node, Node):
        return None
    return node.spec, node.metadata.labels, node.metadata.deletion_timestamp, is_true(node.status.conditions, READY)


@controller("nodeset", kind=NodeSet, start=_all, watches=[Watch("kinds/nodesets/", _own), Watch("kinds/nodes/", _owners)])
async def reconcile_nodeset(context: Context, name: str) -> Again:
    wish = context.world.find(NodeSet, name)
    if wish is None or wish.metadata.deletion_timestamp is not None:
        return DONE
    owner = owner_reference(wish)
    plan = plan_nodes(wish, owner, context.world.all(Node))
    problems, revision = list(plan.problems), 0
    for node in (*plan.create, *plan.change):
        try:
            written = await (context.store.update(node) if node.metadata.uid else context.store.create(node))
            revision = written.metadata.resource_version or revision
        except Invalid as error:  # a MAC or an address that somebody else has: the others are not held up
            problems.append(str(error))
    for node in plan.remove:
        await context.store.delete(Node, node.name, uid=node.metadata.uid)
    await context.reached(revision)
    await _say(context, wish, owner.uid, problems)
    return DONE


async def _say(context: Context, wish: NodeSet, uid: str, problems: list[str]) -> None:
    mine = [n for n in context.world.all(Node) if any(ref.uid == uid for ref in n.metadata.owner_references)]
    new = wish.model_copy(deep=True)
    new.status.observed_generation = wish.metadata.generation
    new.status.nodes = len(mine)
    new.status.ready_nodes = sum(1 for node in mine if is_true(node.status.conditions, READY))
    more = f"; and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
    new.status.message = "; ".join(problems[:MOST_TOLD]) + more
    if new.status != wish.status:
        await context.store.update_status(new)


# --- addresses ---


def _without_address(world: World) -> list[str]:
    return [node.name for node in world.all(Node) if node.spec.mac and not node.spec.address]


def _node(delta: Delta, world: World) -> Iterable[str]:
    """A Node without an address; one that goes may make room for all that wait."""
    return _without_address(world) if delta.new is None or isinstance(delta.new, Cluster) else [delta.parts[3]]


def _waiting(_: Delta, world: World) -> Iterable[str]:
    return _without_address(world)


@controller(
    "address",
    start=_without_address,
    watches=[Watch("kinds/nodes/", _node), Watch("kinds/clusters/", _waiting)],
)
async def give_address(context: Context, name: str) -> Again:
    """The lowest free one of the Cluster's nodeRange, for a machine that is declared without."""
    node, network = context.world.find(Node, name), context.world.cluster.network
    if node is None or node.spec.mac is None or node.spec.address is not None or network.node_range is None:
        return DONE
    taken = {*context.world.addresses, *(n.spec.address for n in context.world.all(Node)), network.gateway}
    low, high = address_range(network.node_range)
    free = next((a for n in range(low, high + 1) if (a := str(ipaddress.IPv4Address(n))) not in taken), None)
    if free is None:
        if context.stopwatch.passed(("no address", node.metadata.uid, network.node_range)) == float("inf"):
            context.stopwatch.restart(("no address", node.metadata.uid, network.node_range))
            why = f"all addresses of {network.node_range} are taken: widen spec.network.nodeRange of the Cluster"
            await context.warn(node, "NoAddress", why)
        return DONE
    new = node.model_copy(deep=True)
    new.spec.address = free
    written = await context.store.update(new)
    await context.reached(written.metadata.resource_version or 0)
    return DONE
