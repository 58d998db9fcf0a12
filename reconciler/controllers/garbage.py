"""Garbage: takes away what belongs to nobody any more. It sweeps through everything, now and then and when an object was deleted.

objects       whose owners are all gone
Migrations    finished for longer than Cluster.spec.migrationHistory, or more than ``MOST_FINISHED``
placements    whose Job is gone: the agent then stops what runs there. A Job that merely cannot be read is not gone
node keys     of machines that are neither declared nor heard of: reports, claims, load, files
addresses     and names of jobs that are gone
"""

from collections.abc import Iterable

from crds.job import Job
from crds.meta import Resource
from crds.migration import Migration
from crds.node import Node
from crds.placement import Placement
from crds.registry import DECLARABLE
from reconciler.context import Context
from reconciler.controllers.networks import sweep_networks
from reconciler.controllers.readiness import is_written_off
from reconciler.controllers.watches import OPEN
from reconciler.grid import Seen
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import Again
from reconciler.world import Delta, World
from store.errors import NotFound
from store.owners import find_orphans

ALL = "all"
EVERY = 30.0
"""Seconds between two sweeps when nothing calls for one."""
NOT_BEFORE = 1.0
"""Seconds between two sweeps at least: many jobs deleted at once are one sweep."""
MOST_FINISHED = 500
"""Finished Migrations kept at most."""


def _start(_: World) -> Iterable[str]:
    return [ALL]


def _deleted(delta: Delta, _: World) -> Iterable[str]:
    return [ALL] if delta.new is None else []


@controller("garbage", start=_start, watches=[Watch("kinds/", _deleted)])
async def sweep(context: Context, _: str) -> Again:
    wait = NOT_BEFORE - context.stopwatch.passed("sweep")
    if wait > 0:
        return Again(wait)
    context.stopwatch.restart("sweep")
    await _orphans(context)
    await _history(context)
    await _placements(context)
    await _node_keys(context)
    await sweep_networks(context)
    return Again(EVERY)


async def _orphans(context: Context) -> None:
    world = context.world
    everything: list[Resource] = [obj for kind in DECLARABLE for obj in world.all(kind)]
    for orphan in find_orphans(everything, world.broken.values()):
        if orphan.metadata.deletion_timestamp is None:
            await _delete(context, orphan)


async def _history(context: Context) -> None:
    """The oldest first. Those that were finished at an unknown time count as the oldest."""
    finished = [m for m in context.world.all(Migration) if m.status.phase not in OPEN]
    finished.sort(key=_finished, reverse=True)
    limit = context.now().timestamp() - context.world.cluster.migration_history
    for rank, migration in enumerate(finished):
        if (rank >= MOST_FINISHED or _finished(migration) < limit) and migration.metadata.deletion_timestamp is None:
            await _delete(context, migration)


def _finished(migration: Migration) -> float:
    return migration.status.finished_at.timestamp() if migration.status.finished_at else 0.0


async def _delete(context: Context, obj: Resource) -> None:
    try:
        await context.store.delete(type(obj), obj.name, obj.metadata.namespace, uid=obj.metadata.uid)
    except NotFound:
        return  # somebody else deleted it: that is all we wanted


async def _placements(context: Context) -> None:
    world = context.world
    for node, job, seen in world.placements:
        if _is_orphan(world, job, seen):
            object_key = world.object_key(Job, job)
            await context.store.transaction().expect(*world.expect(seen.key, object_key)).delete(seen.key).commit()
            found = world.find(Node, node)
            if found is not None:
                await context.warn(found, "OrphanRemoved", f"job/{job} does not exist: its placement was removed")


def _is_orphan(world: World, job: str, seen: Seen[Placement]) -> bool:
    """Its Job is gone, or another one took the name."""
    found = world.find(Job, job)
    return not world.is_there(Job, job) if found is None else found.metadata.uid != seen.value.uid


async def _node_keys(context: Context) -> None:
    world = context.world
    kept = [(node, job, seen.key) for grid in (world.reports, world.claims) for node, job, seen in grid]
    useless = [key for node, job, key in kept if is_written_off(world, node) and not world.is_there(Job, job)]
    useless += [seen.key for node, seen in world.load.items() if is_written_off(world, node)]
    useless += [seen.key for node, seen in world.files.items() if is_written_off(world, node)]
    for powered in (world.power_requests, world.power_outcomes):
        useless += [seen.key for node, seen in powered.items() if not world.is_there(Node, node)]
    for key in useless:
        await context.store.transaction().expect(*world.expect(key)).delete(key).commit()
