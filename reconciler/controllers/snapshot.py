"""The world as planning sees it: plain figures, ages instead of times, nothing to look up any more.

Load samples lag behind: a job placed a moment ago is not in its node's sample yet, or only begins to show in the smoothed figures.
Not in the sample, it counts with what it is expected to want. For placing, it counts so for ``SETTLING`` seconds, or a burst of
jobs would all be sent to the same idle node; for balancing the planner has its own, cautious way with newcomers.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from crds.cluster import ClusterSpec
from crds.job import FINISHED, NO_ROOM, SCHEDULED, Job, JobPhase, MigrationMode, NetworkMode
from crds.load import JobLoad, LoadVector
from crds.meta import find_condition
from crds.migration import Migration, MigrationPhase
from crds.network import FEATURE
from crds.node import Node, takes_jobs
from crds.placement import Role
from reconciler.calibration import calibrate, calibrate_modes, written
from reconciler.controllers import migratable
from reconciler.controllers.history import last_news, left_by
from reconciler.controllers.programs import compare
from reconciler.controllers.readiness import is_ready, takes_orders
from reconciler.controllers.speeds import speeds
from reconciler.controllers.watches import OPEN, open_moves
from reconciler.planning.types import Cause, JobView, MoveCost, MoveView, NodeView, PlacementRequest, Snapshot
from reconciler.world import World, job_key, work_key

SETTLING = 5.0
"""Seconds after which smoothed load shows a job in full."""


def take_snapshot(world: World, now: datetime, *, settling: float = 0.0, deciding: str = "") -> Snapshot:
    """All declared nodes and all jobs that hold a place on one of them.

    Jobs that came less than ``settling`` seconds ago count with at least what they are expected to want.
    Moves of the job ``deciding`` do not count: it is the one that a place is sought for.
    """
    migrations = world.all(Migration)
    jobs = tuple(_jobs(world, now, settling, written(migrations)))
    known = speeds(world)
    nodes = tuple(_node(world, node, now, known[node.name]) for node in world.all(Node))
    moves = tuple(move for job, move in sorted(_moves(world, migrations).items()) if job != deciding)
    costs: dict[MigrationMode, MoveCost] = dict(calibrate_modes(migrations))
    costs.pop(MigrationMode.STOP)  # by ``calibrate``
    return Snapshot(nodes, jobs, moves, calibrate(migrations), costs, tuple(_pending(world)))


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
        priority=job.spec.priority,
        home=job.spec.placement.home or "",
        near=near(job),
    )


def near(job: Job) -> frozenset[str]:
    """Keys of the jobs that it talks to."""
    return frozenset(job_key(job.namespace, name) for name in job.spec.placement.near)


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


def _jobs(world: World, now: datetime, settling: float, shares: Mapping[str, float]) -> list[JobView]:
    news = last_news(world)
    found = []
    for node, key, seen in world.placements:
        job = world.find(Job, key)
        holds = job is not None and seen.value.uid == job.metadata.uid and seen.value.role not in (Role.ARRIVE, Role.DROP)
        if job is not None and holds and job.status.phase not in FINISHED:
            view = _job(world, job, node, now, settling, news)
            found.append(replace(view, written=shares[key]) if key in shares else view)
    return sorted(found, key=lambda view: view.key)


def _job(world: World, job: Job, node: str, now: datetime, settling: float, news: float) -> JobView:
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
        failed_moves=_failed_moves(world, key),
        left=left_by(world, key, news, now),
        attained=_attained(job, load),
        priority=job.spec.priority,
        home=job.spec.placement.home or "",
        guest=_is_guest(world, job, node),
        near=near(job),
        mode=_mode(job),
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


def _node(world: World, node: Node, now: datetime, speed: float) -> NodeView:
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
        speed=speed,
        owner_present=node.spec.owner is not None and node.spec.owner in load.users,
    )


def _pending(world: World) -> list[PlacementRequest]:
    """Jobs that nobody has room for: something may be moved to make it."""
    found = []
    for key in sorted(world.pending):
        job = world.find(Job, key)
        if job is None or job.metadata.deletion_timestamp is not None:
            continue
        scheduled = find_condition(job.status.conditions, SCHEDULED)
        if scheduled is not None and scheduled.reason == NO_ROOM:
            wish = job.spec.placement
            found.append(request_for(job, world.cluster, node=wish.node if wish.pinned or not job.status.life else None))
    return found


def _attained(job: Job, load: JobLoad | None) -> float | None:
    """CPU seconds it has had. Its node's sample is newest; what was last reported holds between two nodes."""
    if load is not None and load.attained is not None:
        return max(load.attained, job.status.cpu_seconds)
    return job.status.cpu_seconds or None


def _is_guest(world: World, job: Job, node: str) -> bool:
    """Whether its node is somebody's, and the job is neither at home there nor this person's. Root is nobody's."""
    found, sample = world.find(Node, node), world.load.get(node)
    owner = found.spec.owner if found else None
    if owner is None or job.spec.placement.home == node:
        return False
    number = sample.value.users.get(owner) if sample else None
    return number is None or number == 0 or job.spec.user.uid != number


def _mode(job: Job) -> MigrationMode:
    """How it would be moved, as far as that can be said without knowing where to: the plainest way unless it asks for another."""
    wish = job.spec.migration.mode
    return MigrationMode.STOP if wish == MigrationMode.AUTO else wish


def _moves(world: World, migrations: list[Migration]) -> dict[str, MoveView]:
    """Moves under way, and those asked for whose ends are known; of several for one job the one under way, else the first."""
    found: dict[str, MoveView] = {}
    for migration in sorted(migrations, key=lambda m: m.status.phase != MigrationPhase.MOVING):
        key = job_key(migration.namespace, migration.spec.job)
        job = world.find(Job, key)
        source = migration.status.source or (job.status.node if job else None)
        destination = migration.status.destination or migration.spec.to
        if migration.status.phase in OPEN and source and destination:
            found.setdefault(key, MoveView(key, source, destination, _cause(migration)))
    return found


def _cause(migration: Migration) -> Cause:
    """Moves that people ask for have none of the balancer's; they are to count like its ordinary ones."""
    return Cause(migration.spec.cause) if migration.spec.cause in list(Cause) else Cause.LOAD


def _load_of(world: World, node: str, job: str) -> JobLoad | None:
    seen = world.load.get(node)
    return seen.value.jobs.get(job) if seen else None


def _since_failed_move(world: World, job: str, now: datetime) -> float | None:
    ends = [
        m.status.finished_at for m in world.migrations_of(job) if m.status.phase == MigrationPhase.FAILED and m.status.finished_at
    ]
    return _age(max(ends), now) if ends else None


def _failed_moves(world: World, job: str) -> int:
    """Moves that failed one after the other, up to the last that was made."""
    over = sorted((m for m in world.migrations_of(job) if m.status.finished_at), key=lambda m: (m.status.finished_at, m.name))
    failed = 0
    for migration in reversed(over):
        if migration.status.phase != MigrationPhase.FAILED:
            break
        failed += 1
    return failed


def _age(since: datetime | None, now: datetime) -> float:
    """Seconds; clocks of two machines may differ a little, so never below 0."""
    return max((now - since).total_seconds(), 0.0) if since else 0.0
