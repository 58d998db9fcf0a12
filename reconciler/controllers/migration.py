"""Migration: begins a move, watches it without touching it, and writes down how it was decided.

The reconciler is not in the freeze path. It writes twice: both placements when the move begins, both placements when it is decided;
what happens between is between the two agents. Both writes compare everything they rely on, so that a destination that commits at
the very moment in which a move is called off either comes first, and the move succeeds, or comes too late, and has lost.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from crds import keys
from crds.job import FINISHED, Job, JobPhase
from crds.migration import (
    CANCELLED,
    JOB_ENDED,
    JOB_NOT_FOUND,
    JOB_NOT_RUNNING,
    NO_DESTINATION,
    NODE_NOT_READY,
    NOT_MIGRATABLE,
    OVER_BUDGET,
    SAME_NODE,
    TIMED_OUT,
    Migration,
    MigrationPhase,
)
from crds.node import Node
from crds.placement import MoveOrder, Placement, Role
from crds.report import ReportPhase
from reconciler.context import Context
from reconciler.controllers import migratable
from reconciler.controllers.conclusion import conclude, give_up
from reconciler.controllers.destinations import choose_destination
from reconciler.controllers.modes import mode_request, needed_for
from reconciler.controllers.moving import find_move
from reconciler.controllers.placing import placement_of
from reconciler.controllers.programs import NOT_YET, compare
from reconciler.controllers.readiness import is_ready, takes_orders
from reconciler.controllers.watches import OPEN, moves_of_job, moves_of_node, open_moves, own
from reconciler.planning.mode import ModeChoice, NoMode, choose_mode
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again, Terminal
from reconciler.world import World, job_key, split_key, work_key


@dataclass(frozen=True, slots=True)
class NotYet:
    """The move cannot begin now, but may soon."""

    message: str


@dataclass(frozen=True, slots=True)
class Never:
    """The move cannot begin."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Begin:
    """The move may begin: the job's node and the one it goes to."""

    job: Job
    source: str
    destination: str
    how: ModeChoice
    memory: int
    """Its resident bytes, as far as is known."""


def _open(world: World) -> Iterable[str]:
    unfinished = [work_key(m) for m in world.all(Migration) if m.status.phase in OPEN]
    orphaned = [job_key(split_key(job)[0], move) for _, job, _ in world.placements for move in open_moves(world, job)]
    return [*unfinished, *orphaned]


@controller(
    "migration",
    kind=Migration,
    start=_open,
    watches=[
        Watch("kinds/migrations/", own),
        Watch("kinds/jobs/", moves_of_job),
        Watch("placements/", moves_of_job),
        Watch("nodes/", moves_of_job),
        Watch("kinds/nodes/", moves_of_node),
    ],
)
async def reconcile_migration(context: Context, key: str) -> Again:
    world, migration = context.world, context.world.find(Migration, key)
    namespace, name = split_key(key)
    job = job_key(namespace, migration.spec.job) if migration else None
    if migration is not None and migration.spec.cancelled and migration.status.phase == MigrationPhase.PENDING:
        return await give_up(context, migration, CANCELLED, "called off before it began")
    for broken in world.broken_about(job) if job else ():
        raise Terminal("Unreadable", f"{broken.key} cannot be read, so nothing is decided about the move: repair or delete the key")
    move = find_move(world, namespace, name, job)
    if move is not None:
        return await conclude(context, move, migration)
    if migration is None or migration.status.phase not in OPEN:
        return DONE
    if migration.status.phase == MigrationPhase.MOVING:
        return await give_up(context, migration, JOB_NOT_RUNNING, "its placements were deleted behind our back")
    return await _begin(context, migration)


async def _begin(context: Context, migration: Migration) -> Again:
    async with context.choosing:
        answer = _may_begin(context, migration)
        if isinstance(answer, Begin):
            await context.reached(await _order(context, migration, answer))
            return DONE
    if isinstance(answer, Never):
        return await give_up(context, migration, answer.reason, answer.message)
    return await _wait(context, migration, answer)


async def _wait(context: Context, migration: Migration, answer: NotYet) -> Again:
    created = migration.metadata.creation_timestamp
    left = migration.spec.deadline - ((context.now() - created).total_seconds() if created else 0.0)
    if left <= 0:
        return await give_up(context, migration, TIMED_OUT, f"could not begin within its deadline: {answer.message}")
    if migration.status.message != answer.message:
        new = migration.model_copy(deep=True)
        new.status.message = answer.message
        await context.store.update_status(new)
    return Again(min(left, 1.0))


# --- whether and where to ---


def _may_begin(context: Context, migration: Migration) -> Begin | NotYet | Never:
    world, key = context.world, job_key(migration.namespace, migration.spec.job)
    job = world.find(Job, key)
    if job is None:
        return Never(JOB_NOT_FOUND, f"job/{migration.spec.job} does not exist in namespace {migration.namespace}")
    trouble = _trouble_with_job(world, migration, job)
    if trouble is not None:
        return trouble
    source = job.status.node or ""
    if not is_ready(world, source) or source not in world.alive:
        return Never(NODE_NOT_READY, f"node/{source}, where the job is, does not answer")
    destination = _destination(context, migration, job, source)
    if not isinstance(destination, str):
        return destination
    if world.placements.find(destination, key):
        return NotYet(f"node/{destination} has not ended its stale copy of the job yet")
    if world.claims.find(destination, key):
        return NotYet(f"node/{destination} has not tidied up an earlier arrival of the job yet")
    request = mode_request(world, migration, job, destination)
    how = choose_mode(request)
    if isinstance(how, NoMode):
        return Never(OVER_BUDGET if how.over_budget else NOT_MIGRATABLE, f"{job.label} cannot be moved: {how.message}")
    return Begin(job, source, destination, how, request.memory)


def _trouble_with_job(world: World, migration: Migration, job: Job) -> NotYet | Never | None:
    key, phase = work_key(job), job.status.phase
    if job.metadata.deletion_timestamp is not None or phase in FINISHED:
        return Never(JOB_ENDED, f"{job.label} {'is being deleted' if job.metadata.deletion_timestamp else f'is {phase}'}")
    if phase == JobPhase.UNKNOWN:
        return Never(NODE_NOT_READY, job.status.message)
    if phase == JobPhase.PENDING:
        return Never(JOB_NOT_RUNNING, f"{job.label} is {phase}")
    others = {m.name for m in world.migrations_of(key) if m.status.phase == MigrationPhase.MOVING} - {migration.name}
    if phase == JobPhase.MOVING or others:
        return NotYet(f"waits until migration/{', '.join(sorted(others)) or job.status.migration} is over")
    placement = world.placements.find(job.status.node or "", key)
    report = world.reports.find(job.status.node or "", key)
    placed = placement is not None and placement.value.role == Role.RUN and placement.value.uid == job.metadata.uid
    runs = report is not None and report.value.phase == ReportPhase.RUNNING and report.value.uid == job.metadata.uid
    if phase != JobPhase.RUNNING or not placed or not runs:
        return NotYet(f"waits until {job.label} runs")
    why = migratable.obstacles(job) or migratable.forbidden(job, migration.spec.requested_by)
    return Never(NOT_MIGRATABLE, f"{job.label} cannot be moved: {why}") if why else None


def _destination(context: Context, migration: Migration, job: Job, source: str) -> str | NotYet | Never:
    world, wish = context.world, migration.spec.to
    if wish == source:
        return Never(SAME_NODE, f"{job.label} is on node/{source} already")
    if job.spec.placement.pinned:
        return Never(NO_DESTINATION, f"{job.label} is pinned to node/{source}: set spec.placement.pinned to false first")
    if wish is not None and world.find(Node, wish) is None:
        return Never(NO_DESTINATION, f"node/{wish} does not exist: mxctl get nodes shows which do")
    if wish is not None and not takes_orders(world, wish):
        return Never(NODE_NOT_READY, f"node/{wish} does not answer")
    choice = choose_destination(world, job, wish, context.now(), needed_for(migration, job))
    if choice.node is None:
        pending = compare(world, work_key(job), source).pending & ({wish} if wish else choice.rejected.keys())
        if pending:  # agents look at a job's files a moment after it came
            return NotYet(NOT_YET.format(node=", ".join(sorted(pending))))
        why = "; ".join(f"{node}: {reason}" for node, reason in sorted(choice.rejected.items())) or choice.reason
        return Never(NO_DESTINATION, f"no node takes {job.label}: {why}")
    return choice.node


# --- the order to both ends ---


async def _order(context: Context, migration: Migration, begin: Begin) -> int:
    """Both placements, the job's and the migration's status as one. Returns the revision."""
    world, job, now = context.world, begin.job, context.now()
    leave, arrive = (keys.placement(node, job.namespace, job.name) for node in (begin.source, begin.destination))
    claim, heartbeats = (
        keys.claim(begin.destination, job.namespace, job.name),
        [keys.alive(begin.source), keys.alive(begin.destination)],
    )
    epoch, ticket = job.status.epoch + 1, context.ticket()

    def placement(role: Role, peer: str) -> Placement:
        order = MoveOrder(
            migration=migration.name,
            source=begin.source,
            destination=begin.destination,
            peer=world.alive[peer].value.address,
            ticket=ticket,
            mode=begin.how.mode,
            deadline=now + timedelta(seconds=migration.spec.deadline),
        )
        return placement_of(world, job, role, epoch, order)

    new_job, new = job.model_copy(deep=True), migration.model_copy(deep=True)
    new_job.status.phase, new_job.status.migration = JobPhase.MOVING, migration.name
    new_job.status.message = f"moves from node/{begin.source} to node/{begin.destination}"
    new.status.phase, new.status.epoch, new.status.started_at, new.status.message = MigrationPhase.MOVING, epoch, now, ""
    new.status.source, new.status.destination = begin.source, begin.destination
    new.status.mode, new.status.mode_reason = begin.how.mode, begin.how.reason
    new.status.predicted_freeze_ms, new.status.memory = begin.how.predicted_ms, begin.memory
    new.status.observed_generation = migration.metadata.generation
    return await (
        context.store.transaction()
        .expect(*world.expect(leave, arrive, claim, *heartbeats))
        .put(leave, placement(Role.LEAVE, begin.destination))
        .put(arrive, placement(Role.ARRIVE, begin.source))
        .put_status(new_job)
        .put_status(new)
        .commit()
    )
