"""Emptying nodes: who lives on one, and the moves that take them away. For rollouts and for nodes that are removed."""

from collections.abc import Iterator
from dataclasses import dataclass

from crds.job import FINISHED, Job
from crds.meta import Metadata
from crds.migration import Migration, MigrationSpec
from crds.report import ReportPhase
from reconciler.context import Context
from reconciler.controllers.names import migration_name
from reconciler.planning.drain import DrainPlan, plan_drain
from reconciler.world import World, work_key
from store.errors import Conflict, Fenced
from store.owners import owner_reference

_LIVES = frozenset({ReportPhase.STARTING, ReportPhase.RUNNING, ReportPhase.ARRIVING, ReportPhase.FROZEN})


@dataclass(frozen=True, slots=True)
class Tenants:
    """``words``: one line a job that has anything alive on the node, moves that come and go included. Empty: nothing is."""

    words: tuple[str, ...]
    plan: DrainPlan


NOBODY = Tenants((), DrainPlan())


def tenants(context: Context, node: str) -> Tenants:
    """Who lives on the node, and what can be done about it now."""
    world = context.world
    here = [job for job in world.all(Job) if job.status.node == node and job.status.phase not in FINISHED]
    plan = plan_drain(here, {job.label: world.migrations_of(work_key(job)) for job in here}, context.now())
    words = dict.fromkeys(plan.message.split("; ")) if plan.message else {}
    named = {job.label for job in here}
    for key in sorted(set(_alive(world, node))):
        job = world.find(Job, key)
        label = job.label if job else f"job/{key}"
        if label not in named:
            words[f"{label} has not left it yet"] = None
    return Tenants(tuple(words), plan)


def _alive(world: World, node: str) -> Iterator[str]:
    """Jobs with a placement that is not over, or of which the node still has a copy."""
    for key in world.placements.on_node(node):
        job = world.find(Job, key)
        if job is None or job.status.phase not in FINISHED:
            yield key
    for key, seen in world.reports.on_node(node).items():
        if seen.value.phase in _LIVES:
            yield key


async def ask_for_moves(context: Context, node: str, plan: DrainPlan, requested_by: str, reason: str) -> None:
    """One Migration for each job that can leave now. A job that changed meanwhile is asked for again at the next look."""
    world = context.world
    for job in plan.ask:
        if job.status.node != node:
            continue
        migration = Migration(
            metadata=Metadata(name=migration_name(world, job), namespace=job.namespace, owner_references=[owner_reference(job)]),
            spec=MigrationSpec(job=job.name, reason=reason, requested_by=requested_by),
        )
        transaction = context.store.transaction().expect(*world.expect(world.object_key(Job, work_key(job))))
        try:
            await context.reached(await transaction.create(migration).commit())
        except Fenced:
            raise
        except Conflict:
            continue
