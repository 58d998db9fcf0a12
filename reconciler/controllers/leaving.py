"""A node that is deleted: its jobs are moved away, it is switched off, and then it goes. What is decided here is one line in its
condition Leaving.

Nothing is forced: a job that cannot leave keeps its node. Who deletes a machine that does not answer says that it is gone: it is
switched off, and its jobs are lost or started anew elsewhere, as after any loss of a node. One that cannot be switched off goes all
the same, with a warning.
"""

from collections.abc import Iterable
from datetime import timedelta

from crds import keys
from crds.meta import Truth, find_condition, set_condition
from crds.node import LEAVE_FINALIZER, LEAVING, Node, is_being_updated
from crds.power import PowerAction, PowerPhase, PowerRequest
from reconciler.context import Context
from reconciler.controllers.draining import ask_for_moves, tenants
from reconciler.controllers.readiness import is_ready
from reconciler.controllers.watches import node_of, own
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import Delta, World

LOOK_AGAIN = 2.0
POWER_SECONDS = 60.0
"""For switching it off; after that it goes as it is."""


def _leaving(world: World) -> list[str]:
    return [node.name for node in world.all(Node) if node.metadata.deletion_timestamp is not None]


def _all_leaving(_: Delta, world: World) -> Iterable[str]:
    return _leaving(world)


@controller(
    "leaving",
    start=_leaving,
    watches=[
        Watch("kinds/nodes/", own),
        Watch("kinds/migrations/", _all_leaving),
        Watch("placements/", node_of),
        Watch("machine-power/", node_of),
    ],
)
async def reconcile_leaving(context: Context, name: str) -> Again:
    node = context.world.find(Node, name)
    if node is None or node.metadata.deletion_timestamp is None or LEAVE_FINALIZER not in node.metadata.finalizers:
        return DONE
    asked = context.world.power_requests.get(name)
    was_empty = asked is not None and asked.value.id == _number(node)
    why = (not was_empty and await _empty(context, node)) or await _switch_off(context, node)
    if why:
        await _say(context, node, why)
        return Again(LOOK_AGAIN)
    await context.tell(node, "NodeRemoved", "its jobs have left it; it belongs to the cluster no more")
    await context.store.remove_finalizer(node, LEAVE_FINALIZER)
    return DONE


async def _empty(context: Context, node: Node) -> str:
    """What is still to be waited for; empty when nothing of a job is left on it."""
    if is_being_updated(node):
        return "a rollout is at it: see mxctl rollout status"
    if node.name not in context.world.alive:
        return "it does not answer for the moment" if is_ready(context.world, node.name) else ""
    who = tenants(context, node.name)
    await ask_for_moves(context, node.name, who.plan, "delete", f"node {node.name} is removed")
    return "; ".join(who.words)


async def _switch_off(context: Context, node: Node) -> str:
    """What is still to be waited for; empty when it is off, cannot be switched off, or was off before."""
    world = context.world
    if node.spec.power is None:
        return ""
    key, number = keys.power_request(node.name), _number(node)
    asked, came = world.power_requests.get(node.name), world.power_outcomes.get(node.name)
    if asked is None or asked.value.id != number:
        await _ask(context, node, key, number)
        return "is switched off"
    if came is not None and came.value.id == number and came.value.phase != PowerPhase.ACTING:
        if came.value.phase != PowerPhase.DONE:
            await context.warn(node, "NotSwitchedOff", f"{came.value.message}: switch it off by hand")
        return ""
    if context.now() < asked.value.requested_at + timedelta(seconds=POWER_SECONDS):
        return "is switched off"
    await context.warn(node, "NotSwitchedOff", "nobody switched it off (does mx-clip run?): switch it off by hand")
    return ""


def _number(node: Node) -> str:
    return f"delete-{node.metadata.uid}"


async def _ask(context: Context, node: Node, key: str, number: str) -> None:
    request = PowerRequest(
        id=number,
        action=PowerAction.OFF,
        only_empty=node.name in context.world.alive,
        requested_by="delete",
        reason=f"node {node.name} is removed",
        requested_at=context.now(),
        expires_at=context.now() + timedelta(seconds=POWER_SECONDS),
    )
    transaction = context.store.transaction().expect(*context.world.expect(key, context.world.object_key(Node, node.name)))
    await context.reached(await transaction.put(key, request).commit())


async def _say(context: Context, node: Node, why: str) -> None:
    now = context.world.find(Node, node.name)
    if now is None:
        return
    old = find_condition(now.status.conditions, LEAVING)
    if old is not None and old.message == why:
        return
    new = now.model_copy(deep=True)
    generation = node.metadata.generation
    new.status.conditions = set_condition(new.status.conditions, LEAVING, Truth.TRUE, "Deleted", why, context.now(), generation)
    await context.store.update_status(new)
