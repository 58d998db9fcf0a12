"""The world as planning sees it: plain figures, ages instead of times, nothing to look up any more.

Load samples lag behind: a job placed a moment ago is not in its node's sample yet, or only begins to show in the smoothed figures.
Not in the sample, it counts with what it is expected to want. For placing, it counts so for ``SETTLING`` seconds, or a burst of
jobs would all be sent to the same idle node; for balancing the planner has its own, cautious way with newcomers.
"""

from datetime import datetime

from crds.cluster import ClusterSpec
from crds.job import FINISHED, Job, JobPhase, NetworkMode
from crds.load import JobLoad, LoadVector
from crds.migration import Migration, MigrationPhase
from crds.network import FEATURE
from crds.node import Node, takes_jobs
from crds.placement import Role
from reconciler.calibration import calibrate
from reconciler.controllers import migratable
from reconciler.controllers.programs import compare
from reconciler.controllers.readiness import is_ready, takes_orders
from reconciler.controllers.watches import OPEN, open_moves
from reconciler.planning.types import JobView, MoveView, NodeView, PlacementRequest, Snapshot
from reconciler.world import World, job_key, work_key

SETTLING = 5.0
"""Seconds after which smoothed load shows a job in full."""


def take_snapshot(world: World, now: datetime, *, settling: float = 0.0, deciding: str = "") -> Snapshot:
    """All declared nodes and all jobs that hold a place on one of them.

    Jobs that came less than ``settling`` seconds ago count with at least what they are expected to want.
    Moves of the job ``deciding`` do not count: it is the one that a place is sought for.
    """
    jobs = tuple(_jobs(world, now, settling))
    nodes = tuple(_node(world, node, now) for node in world.all(Node))
    migrations = world.all(Migration)
    moves = tuple(move for job, move in sorted(_moves(world, migrations).items()) if job != deciding)
    return Snapshot(nodes, jobs, moves, calibrate(migrations))


def request_for(job: Job, cluster: ClusterSpec, *, node: str | None, exclude: frozenset[str] = frozenset()) -> PlacementRequest:
    """What a job needs that runs nowhere yet: what it says, else the cluster's defaults."""
    cpu, memory = expected(job, cluster)
    return PlacementRequest(
        job=work_key(job),
        cpu=cpu,
        memory=memory,
        node=node,
        exclude=exclude,
        node_selector=job.spec.placement.node_selector,
        tolerations=tuple(job.spec.placement.tolerations),
        needs=needs(job),
    )


def expected(job: Job, cluster: ClusterSpec) -> tuple[float, int]:
    """Cores and bytes the job is expected to want."""
    wanted, default = job.spec.resources, cluster.job_defaults
    return (
        default.cpu if wanted.cpu is None else wanted.cpu,
        default.memory if wanted.memory is None else wanted.memory,
    )


def needs(job: Job) -> frozenset[str]:
    """Features a node must have for the job."""
    return frozenset({FEATURE}) if job.spec.network.mode == NetworkMode.OWN else frozenset()


def resident_for(job: Job, now: datetime) -> float:
    """Seconds since the job was started on or moved to its node."""
    since = job.status.moves[-1].time if job.status.moves else job.status.started_at
    return _age(since, now)


def why_not_movable(world: World, job: Job) -> str:
    """Empty when the balancer may move the job; otherwise why not."""
    key = work_key(job)
    if job.metadata.deletion_timestamp is not None:
        return "it is being deleted"
    if job.status.phase != JobPhase.RUNNING:
        return f"it is {job.status.phase}"
    if not job.spec.migration.allowed:
        return "migration is not allowed"
    if job.spec.placement.pinned:
        return "it is pinned to its node"
    if obstacles := migratable.obstacles(job):
        return f"it cannot be moved: {obstacles}"
    if session := migratable.in_use(job):
        return session
    if open_moves(world, key):
        return "it is being moved already"
    if job.status.node is None or not is_ready(world, job.status.node):
        return "its node is not ready"
    return ""


def _jobs(world: World, now: datetime, settling: float) -> list[JobView]:
    found = []
    for node, key, seen in world.placements:
        job = world.find(Job, key)
        holds = job is not None and seen.value.uid == job.metadata.uid and seen.value.role not in (Role.ARRIVE, Role.DROP)
        if job is not None and holds and job.status.phase not in FINISHED:
            found.append(_job(world, job, node, now, settling))
    return sorted(found, key=lambda view: view.key)


def _job(world: World, job: Job, node: str, now: datetime, settling: float) -> JobView:
    key = work_key(job)
    load, resident = _load_of(world, node, key), resident_for(job, now)
    cpu, memory = expected(job, world.cluster)
    settled = load is not None and resident >= settling
    why = why_not_movable(world, job)
    return JobView(
        key=key,
        node=node,
        cpu_demand=load.cpu_demand if load and settled else max(cpu, load.cpu_demand if load else 0.0),
        memory=load.memory if load and settled else max(memory, load.memory if load else 0, job.status.memory),
        resident_for=resident,
        age=_age(job.status.started_at, now),
        movable=not why,
        why_not_movable=why,
        since_failed_move=_since_failed_move(world, key, now),
        node_selector=job.spec.placement.node_selector,
        tolerations=tuple(job.spec.placement.tolerations),
        needs=needs(job),
        cpu_flags=cpu_flags(world, node),
        unfit=compare(world, key, node).unfit,
    )


def cpu_flags(world: World, node: str) -> frozenset[str]:
    """What the processors of the node can do; empty when it did not say."""
    seen = world.alive.get(node)
    return frozenset(seen.value.cpu_flags.split()) if seen else frozenset()


def _node(world: World, node: Node, now: datetime) -> NodeView:
    alive, sample = world.alive.get(node.name), world.load.get(node.name)
    load = sample.value if sample else LoadVector(time=now)
    return NodeView(
        name=node.name,
        cpu_capacity=alive.value.cpu if alive else node.status.capacity.cpu,
        memory_capacity=alive.value.memory if alive else node.status.capacity.memory,
        cpu_demand=load.cpu_demand,
        memory_used=load.memory_used,
        memory_pressure=load.memory_pressure,
        sample_age=_age(load.time, now) if sample else None,
        ready=takes_orders(world, node.name),
        schedulable=takes_jobs(node),
        labels=node.metadata.labels,
        taints=tuple(taint.key for taint in node.spec.taints),
        features=frozenset(alive.value.features if alive else ()),
        cpu_flags=cpu_flags(world, node.name),
    )


def _moves(world: World, migrations: list[Migration]) -> dict[str, MoveView]:
    """Moves under way, and those asked for whose ends are known; of several for one job the one under way, else the first."""
    found: dict[str, MoveView] = {}
    for migration in sorted(migrations, key=lambda m: m.status.phase != MigrationPhase.MOVING):
        key = job_key(migration.namespace, migration.spec.job)
        job = world.find(Job, key)
        source = migration.status.source or (job.status.node if job else None)
        destination = migration.status.destination or migration.spec.to
        if migration.status.phase in OPEN and source and destination:
            found.setdefault(key, MoveView(key, source, destination))
    return found


def _load_of(world: World, node: str, job: str) -> JobLoad | None:
    seen = world.load.get(node)
    return seen.value.jobs.get(job) if seen else None


def _since_failed_move(world: World, job: str, now: datetime) -> float | None:
    ends = [
        m.status.finished_at for m in world.migrations_of(job) if m.status.phase == MigrationPhase.FAILED and m.status.finished_at
    ]
    return _age(max(ends), now) if ends else None


def _age(since: datetime | None, now: datetime) -> float:
    """Seconds; clocks of two machines may differ a little, so never below 0."""
    return max((now - since).total_seconds(), 0.0) if since else 0.0
