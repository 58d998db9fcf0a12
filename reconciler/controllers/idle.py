"""Idle nodes are switched off, and woken when jobs wait for a place. Only where the Cluster says so (spec.idle.after).

A node is closed for jobs (status.asleep) in the same write that asks for its power to be cut, and mx-clip refuses when a job lives
on it all the same. One at a time, and never below spec.idle.keep nodes that are Ready.
"""

from collections.abc import Iterable
from datetime import timedelta

from crds import keys
from crds.meta import is_true
from crds.node import READY, Node, takes_jobs
from crds.power import PowerAction, PowerDriver, PowerPhase, PowerRequest
from reconciler.context import Context
from reconciler.controllers.draining import tenants
from reconciler.planning.idle import IdleView, plan_idle
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import Delta, World

RACK = "rack"
EVERY = 5.0
SECONDS = 120.0
"""For switching."""


def _rack(_: World) -> Iterable[str]:
    return [RACK]


def _changed(_: Delta, __: World) -> Iterable[str]:
    return [RACK]


@controller("idle", start=_rack, watches=[Watch("kinds/clusters/", _changed), Watch("machine-power/", _changed)])
async def keep_idle(context: Context, _: str) -> Again:
    policy, nodes = context.world.cluster.idle, context.world.all(Node)
    if policy.after is None and not any(node.status.asleep for node in nodes):
        return DONE
    async with context.choosing:
        views = [_view(context, node) for node in nodes]
        plan = plan_idle(views, waiting=len(context.world.pending), after=policy.after, keep=policy.keep)
        for name in plan.sleep:
            await _switch(context, name, PowerAction.OFF, "no job for a while")
        for name in plan.wake:
            await _switch(context, name, PowerAction.ON, "jobs wait for a place" if context.world.pending else "it is to be up")
        for name in plan.awake:
            await _mark(context, name, False)
    return Again(EVERY)


def _view(context: Context, node: Node) -> IdleView:
    world = context.world
    alive = world.alive.get(node.name)
    idle_since = ("idle", node.name, alive.value.boot_id if alive else "")
    asked, came = world.power_requests.get(node.name), world.power_outcomes.get(node.name)
    mine = asked is not None and asked.value.requested_by == "idle"
    over = came is not None and asked is not None and came.value.id == asked.value.id and came.value.phase != PowerPhase.ACTING
    late = asked is not None and asked.value.expires_at is not None and asked.value.expires_at < context.now()
    empty = alive is not None and not tenants(context, node.name).words
    if not empty:
        context.stopwatch.stop(idle_since)
    return IdleView(
        name=node.name,
        ready=is_true(node.status.conditions, READY) and alive is not None,
        open=takes_jobs(node),
        asleep=node.status.asleep,
        idle_for=context.stopwatch.running(idle_since) if empty else 0.0,
        can_switch=node.spec.power is not None and node.spec.power.driver != PowerDriver.WOL,
        pending=mine and not over and not late,
        woken=mine and asked is not None and asked.value.action == PowerAction.ON,
        refused=mine and over and came is not None and came.value.phase != PowerPhase.DONE,
    )


async def _switch(context: Context, name: str, action: PowerAction, reason: str) -> None:
    world, now = context.world, context.now()
    node, alive = world.find(Node, name), world.alive.get(name)
    if node is None:
        return
    request = PowerRequest(
        id=f"idle-{context.ticket()}",
        action=action,
        boot_id=alive.value.boot_id if alive and action == PowerAction.OFF else "",
        only_empty=True,
        requested_by="idle",
        reason=reason,
        requested_at=now,
        expires_at=now + timedelta(seconds=SECONDS),
    )
    new = node.model_copy(deep=True)
    new.status.asleep = True  # until it is heard again
    key = keys.power_request(name)
    transaction = context.store.transaction().put_status(new).expect(*world.expect(key, keys.alive(name))).put(key, request)
    await context.reached(await transaction.commit())
    await context.tell(node, "SwitchedOff" if action == PowerAction.OFF else "WokenUp", reason)


async def _mark(context: Context, name: str, asleep: bool) -> None:
    node = context.world.find(Node, name)
    if node is not None:
        new = node.model_copy(deep=True)
        new.status.asleep = asleep
        written = await context.store.update_status(new)
        await context.reached(written.metadata.resource_version or 0)
