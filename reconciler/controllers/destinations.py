"""Where a running job could go. Pure: the migration controller asks it before a move, and mxctl can-migrate for people."""

from dataclasses import replace
from datetime import datetime

from crds.job import FINISHED, Job, JobPhase
from crds.node import Node
from reconciler.controllers import migratable
from reconciler.controllers.policy import guests
from reconciler.controllers.programs import compare
from reconciler.controllers.readiness import is_ready, takes_orders
from reconciler.controllers.snapshot import SETTLING, cpu_flags, expected, near, needs, take_snapshot
from reconciler.planning.placement import choose_node
from reconciler.planning.types import Choice, PlacementRequest
from reconciler.world import World, work_key


def choose_destination(world: World, job: Job, wish: str | None, now: datetime, needs: frozenset[str] = frozenset()) -> Choice:
    """The node for the job, which runs, and for each that does not fit, why. ``wish`` None: wherever it fits best.

    ``needs`` are features that the move itself wants there."""
    snapshot = take_snapshot(world, now, settling=SETTLING, deciding=work_key(job))
    request = _request(world, job, wish)
    return choose_node(snapshot, replace(request, needs=request.needs | needs), guests(world))


def ask_around(world: World, job: Job, now: datetime) -> dict[str, str]:
    """For each declared node why the job cannot be moved there now; empty where it can. In the order of names."""
    trouble = why_nowhere(world, job)
    rejected = choose_destination(world, job, None, now).rejected if not trouble else {}
    return {node.name: _why_not(world, job, node.name, trouble, rejected) for node in world.all(Node)}


def why_nowhere(world: World, job: Job) -> str:
    """What keeps it from being moved anywhere; empty when nothing does."""
    phase, source = job.status.phase, job.status.node or ""
    if phase in FINISHED or job.metadata.deletion_timestamp is not None:
        return "it has ended" if phase in FINISHED else "it is being deleted"
    if phase not in (JobPhase.RUNNING, JobPhase.MOVING):
        return f"it is {phase}"
    if not is_ready(world, source) or source not in world.alive:
        return f"node/{source}, where it is, does not answer"
    if job.spec.placement.pinned:
        return f"it is pinned to node/{source}: set spec.placement.pinned to false first"
    return migratable.obstacles(job)


def _why_not(world: World, job: Job, node: str, trouble: str, rejected: dict[str, str]) -> str:
    if node == job.status.node:
        return "it is there already"
    if not trouble and not takes_orders(world, node):
        return "the node does not answer"
    return trouble or rejected.get(node, "")


def _request(world: World, job: Job, wish: str | None) -> PlacementRequest:
    """What the job really uses counts, if it is known."""
    source = job.status.node or ""
    cpu, memory = expected(job, world.cluster)
    sample = world.load.get(source)
    load = sample.value.jobs.get(work_key(job)) if sample else None
    return PlacementRequest(
        job=work_key(job),
        cpu=load.cpu_demand if load else cpu,
        memory=load.memory if load else job.status.memory or memory,
        node=wish,
        exclude=frozenset({source}),
        node_selector=job.spec.placement.node_selector,
        tolerations=tuple(job.spec.placement.tolerations),
        needs=needs(job),
        cpu_flags=cpu_flags(world, source),
        unfit=compare(world, work_key(job), source).unfit,
        priority=job.spec.priority,
        home=job.spec.placement.home or "",
        near=near(job),
    )
