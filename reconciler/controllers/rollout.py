"""Rollout: shows the planner how the nodes are, and writes what it says, one node a transaction.

A restart and what it relies on are one write: the node's step, what it boots next, and the request for its power. That write
compares the node, its heartbeat and the request it replaces, and is made while nobody chooses a node for a job (``choosing``).
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from crds import keys
from crds.assignment import Assignment
from crds.image import Image
from crds.meta import Resource
from crds.migration import Migration
from crds.node import Node
from crds.power import PowerAction, PowerPhase, PowerRequest
from crds.rollout import ROLLOUT_FINALIZER, UNDER_WAY, NodeUpdate, Rollout, RolloutPhase, UpdateStep
from reconciler.context import Context
from reconciler.controllers.draining import NOBODY, Tenants, ask_for_moves, tenants
from reconciler.controllers.readiness import is_ready
from reconciler.controllers.revisions import current_digest
from reconciler.planning.assignment import wanted_assignment
from reconciler.planning.rollout import Change, NodeView, Restart, RolloutPlan, Rules, plan_rollout
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import Delta, World

OPEN = frozenset({RolloutPhase.PROGRESSING, RolloutPhase.PAUSED, RolloutPhase.STOPPED})
LOOK_AGAIN = 2.0
"""Seconds between two looks while nodes are under way: what keeps a job from leaving may pass without an event."""


def _open(world: World) -> list[str]:
    return [r.name for r in world.all(Rollout) if r.status.phase in OPEN or r.metadata.deletion_timestamp is not None]


def _own(delta: Delta, _: World) -> Iterable[str]:
    return [delta.parts[3]] if isinstance(delta.new, Resource) else []


def _all_open(_: Delta, world: World) -> Iterable[str]:
    return _open(world)


def _of_node(delta: Delta, world: World) -> Iterable[str]:
    """Heartbeats and reports; load is none of it."""
    return _open(world) if delta.parts[2] != "load" else []


def _of_migration(delta: Delta, world: World) -> Iterable[str]:
    over = [m.status.phase for m in (delta.old, delta.new) if isinstance(m, Migration)]
    return _open(world) if len(set(over)) > 1 else []


@controller(
    "rollout",
    kind=Rollout,
    start=_open,
    watches=[
        Watch("kinds/rollouts/", _own),
        Watch("kinds/nodes/", _all_open),
        Watch("kinds/images/", _all_open),
        Watch("kinds/clusters/", _all_open),
        Watch("kinds/migrations/", _of_migration),
        Watch("nodes/", _of_node),
        Watch("placements/", _all_open),
        Watch("machine-power/", _all_open),
    ],
)
async def reconcile_rollout(context: Context, name: str) -> Again:
    rollout = context.world.find(Rollout, name)
    if rollout is None or _is_over(rollout):
        return DONE
    rollout = await _fix_revisions(context, rollout)
    async with context.choosing:
        found = _look(context, rollout)
        plan = plan_rollout(_rules(rollout), [view for view, _ in found.values()])
        for change in plan.changes:
            await _write(context, rollout, change)
    for node in plan.drain:
        await ask_for_moves(context, node, found[node][1].plan, f"rollout/{name}", f"rollout/{name} updates node {node}")
    await _say(context, rollout, plan)
    if rollout.metadata.deletion_timestamp is not None and not plan.away:
        await context.store.remove_finalizer(rollout, ROLLOUT_FINALIZER)
        return DONE
    return Again(min(plan.after or LOOK_AGAIN, LOOK_AGAIN)) if plan.away or plan.changes else DONE


def _is_over(rollout: Rollout) -> bool:
    same = rollout.status.phase == RolloutPhase.COMPLETE and rollout.status.undone == rollout.spec.undo
    return same and rollout.metadata.deletion_timestamp is None


def _rules(rollout: Rollout) -> Rules:
    spec = rollout.spec
    return Rules(
        name=rollout.name,
        uid=rollout.metadata.uid or "",
        max_unavailable=spec.max_unavailable,
        deadline=spec.deadline,
        drain_deadline=spec.drain_deadline,
        paused=spec.paused,
        undo=spec.undo,
        attempt=spec.attempt,
        stopping=rollout.metadata.deletion_timestamp is not None,
    )


# --- what it is about ---


async def _fix_revisions(context: Context, rollout: Rollout) -> Rollout:
    """Decides once to which revisions it goes: what is built meanwhile is another rollout's matter."""
    images = {node.spec.image for node in _nodes(context.world, rollout) if node.spec.image}
    fixed = dict(rollout.status.revisions)
    for image in sorted(images - fixed.keys()):
        wished = rollout.spec.revision if rollout.spec.image == image else None
        digest = wished or current_digest(context.world, image)
        if digest:
            fixed[image] = digest
    if fixed == rollout.status.revisions:
        return rollout
    new = rollout.model_copy(deep=True)
    new.status.revisions, new.status.started_at = fixed, rollout.status.started_at or context.now()
    new = await context.store.update_status(new)
    await context.reached(new.metadata.resource_version or 0)
    return new


def _nodes(world: World, rollout: Rollout) -> list[Node]:
    """Those it names, and those it has begun whatever was renamed since. Machines that leave are left alone."""
    spec, uid = rollout.spec, rollout.metadata.uid

    def is_meant(node: Node) -> bool:
        if node.status.update is not None and node.status.update.uid == uid:
            return True
        if spec.nodes:
            return node.name in spec.nodes
        return node.spec.image is not None and spec.image in (None, node.spec.image)

    return [node for node in world.all(Node) if is_meant(node) and (node.metadata.deletion_timestamp is None or _is_away(node))]


def _is_away(node: Node) -> bool:
    return node.status.update is not None and node.status.update.step in UNDER_WAY


def _look(context: Context, rollout: Rollout) -> dict[str, tuple[NodeView, Tenants]]:
    found = {}
    for node in _nodes(context.world, rollout):
        who = tenants(context, node.name) if _is_away(node) else NOBODY
        found[node.name] = _view(context, rollout, node, who), who
    return found


def _view(context: Context, rollout: Rollout, node: Node, who: Tenants) -> NodeView:
    world, status = context.world, node.status
    alive = world.alive.get(node.name)
    wanted, why = _wanted(world, rollout, node)
    if rollout.spec.undo:
        before = status.update.before if status.update else None
        why = _missing(world, before.image, before.revision) if before else ""
    view = NodeView(
        name=node.name,
        ready=is_ready(world, node.name),
        heard=alive is not None,
        boot_id=alive.value.boot_id if alive else "",
        image=alive.value.image if alive else "",
        booted=alive.value.assigned if alive else "",
        assigned=status.assigned,
        good=status.good,
        update=status.update,
        wanted=wanted,
        why_unknown=why,
        occupants=who.words,
        can_restart=node.spec.power is not None,
    )
    if status.update is None:
        return view
    age = (context.now() - status.update.since).total_seconds()
    taken_over = status.update.uid != rollout.metadata.uid and status.update.created > _created(context, rollout)
    return replace(view, age=age, restart=_restart(context, node, status.update), taken_over=taken_over)


def _created(context: Context, rollout: Rollout) -> datetime:
    return rollout.metadata.creation_timestamp or context.now()


def _restart(context: Context, node: Node, update: NodeUpdate) -> Restart | None:
    asked = context.world.power_requests.get(node.name)
    if asked is None or not update.restarts:
        return None
    if asked.value.id != _request_id(node, update, update.restarts):
        age = (context.now() - asked.value.requested_at).total_seconds()
        return Restart(PowerPhase.REFUSED, f"{asked.value.requested_by} asked for {asked.value.action} instead", age)
    age = (context.now() - asked.value.requested_at).total_seconds()
    came = context.world.power_outcomes.get(node.name)
    known = came is not None and came.value.id == asked.value.id
    return Restart(came.value.phase, came.value.message, age) if known and came else Restart(None, age=age)


def _wanted(world: World, rollout: Rollout, node: Node) -> tuple[Assignment | None, str]:
    image = node.spec.image
    if image is None:
        return None, f"node/{node.name} has no image: set spec.image"
    digest = rollout.status.revisions.get(image)
    if digest is None:
        return None, f"image/{image} has no revision yet: build it with mxctl image build {image}"
    if missing := _missing(world, image, digest):
        return None, missing
    return wanted_assignment(world.cluster, node, image, digest), ""


def _missing(world: World, image: str, digest: str) -> str:
    """Why it cannot be booted any more; empty when it can."""
    found = world.find(Image, image)
    if found is not None and found.status.of_digest(digest) is not None:
        return ""
    return f"image/{image} has no revision {digest} any more: see mxctl image list, and begin another rollout"


# --- what is written ---


async def _write(context: Context, rollout: Rollout, change: Change) -> None:
    world, now = context.world, context.now()
    node = world.find(Node, change.node)
    if node is None:
        return
    new, old = node.model_copy(deep=True), node.status.update
    same_step = old is not None and not change.begin and old.step == change.step
    restarts = (old.restarts if old is not None and same_step else 0) + (1 if change.restart else 0)
    update = NodeUpdate(
        rollout=rollout.name,
        uid=rollout.metadata.uid or "",
        created=_created(context, rollout),
        attempt=rollout.spec.attempt if change.begin or old is None else old.attempt,
        step=change.step,
        target=change.target,
        before=change.before,
        boot_id=_boot_id(world, change) if change.begin or old is None else old.boot_id,
        since=old.since if old is not None and same_step else now,
        restarts=restarts,
        undo=rollout.spec.undo if change.begin or old is None else old.undo,
        failed=change.failed,
        message=change.message,
    )
    if change.step == UpdateStep.RESTARTING and not same_step:
        update.boot_id = _boot_id(world, change)  # it may have been restarted while it was emptied
    new.status.update = update
    if change.assign is not None:
        new.status.assigned = change.assign
    transaction = context.store.transaction().put_status(new)
    key = keys.power_request(node.name)
    transaction.expect(*world.expect(key, keys.alive(node.name)))
    if change.begin:  # whoever removes the revision meanwhile sees the node, or this fails
        transaction.expect(*world.expect(world.object_key(Image, change.target.image)))
    if change.restart:
        transaction.put(key, _request(context, rollout, new, update))
    elif change.cancel:
        transaction.expect(*world.expect(keys.power_outcome(node.name))).delete(key)
    await context.reached(await transaction.commit())
    if not same_step:
        tell = context.warn if change.failed else context.tell
        await tell(new, f"Update{change.step}", f"rollout/{rollout.name}: {change.message}")


def _boot_id(world: World, change: Change) -> str:
    alive = world.alive.get(change.node)
    return alive.value.boot_id if alive else ""


def _request_id(node: Node, update: NodeUpdate, number: int) -> str:
    return f"{update.rollout}-{update.uid[:8]}-{update.attempt}-{str(update.step).lower()}-{int(update.undo)}-{number}-{node.name}"


def _request(context: Context, rollout: Rollout, node: Node, update: NodeUpdate) -> PowerRequest:
    """Nothing is restarted that has jobs again, or was restarted already, or after the time in which it was waited for."""
    forth = update.step == UpdateStep.RESTARTING
    return PowerRequest(
        id=_request_id(node, update, update.restarts),
        action=PowerAction.RESET,
        boot_id=update.boot_id if forth else "",
        only_empty=True,
        requested_by=f"rollout/{rollout.name}",
        reason=update.message,
        requested_at=context.now(),
        expires_at=context.now() + timedelta(seconds=rollout.spec.deadline),
    )


async def _say(context: Context, rollout: Rollout, plan: RolloutPlan) -> None:
    now = context.world.find(Rollout, rollout.name) or rollout
    new = now.model_copy(deep=True)
    status = new.status
    status.observed_generation = rollout.metadata.generation
    status.phase, status.message, status.undone = plan.phase, plan.message, rollout.spec.undo
    status.total, status.updated = plan.total, plan.updated
    status.away, status.failed = list(plan.away), list(plan.failed)
    ended = plan.phase in (RolloutPhase.COMPLETE, RolloutPhase.STOPPED) and not plan.away
    status.finished_at = (status.finished_at or context.now()) if ended else None
    if status == now.status:
        return
    await context.store.update_status(new)
    if plan.phase != now.status.phase:
        tell = context.warn if plan.phase == RolloutPhase.STOPPED else context.tell
        await tell(new, f"Rollout{plan.phase}", plan.message)
