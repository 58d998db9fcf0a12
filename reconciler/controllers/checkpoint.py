"""Checkpoint: orders it of the job's node, says what became of it, keeps the newest, and has the files of deleted ones removed.

The order lies in the job's placement, the answer in its report. A move takes the order away with the placement; the checkpoint then
waits until the job runs again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from crds.checkpoint import (
    BY_INTERVAL,
    DAMAGED,
    FILES_FINALIZER,
    JOB_ENDED,
    JOB_NOT_FOUND,
    NOT_TAKEN,
    READY,
    TAKEN,
    TIMED_OUT,
    Checkpoint,
    CheckpointPhase,
)
from crds.job import FINISHED, Job, JobPhase
from crds.meta import set_condition
from crds.placement import CheckpointOrder, Placement, Role
from crds.report import CheckpointReport, JobReport, ReportPhase
from reconciler.context import Context
from reconciler.controllers.readiness import is_ready
from reconciler.controllers.watches import own
from reconciler.grid import Seen
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import Delta, World, job_key, work_key
from store.errors import NotFound
from store.transaction import Transaction

OPEN = frozenset({CheckpointPhase.PENDING, CheckpointPhase.TAKING})
SLACK = 2.0
"""Seconds after the deadline before a checkpoint has failed: the agent says by itself why, which is better."""


def _all(world: World) -> Iterable[str]:
    return [work_key(checkpoint) for checkpoint in world.all(Checkpoint)]


def _of_job(delta: Delta, world: World) -> Iterable[str]:
    """A Job, or a report or placement of it: those of its checkpoints about which something is to be done."""
    if delta.parts[0] == "nodes" and len(delta.parts) != 5:
        return []
    namespace, name = delta.parts[-2:]
    found = checkpoints_of(world, namespace, name)
    return [work_key(c) for c in found if c.status.phase in OPEN or c.metadata.deletion_timestamp or delta.new is None]


def checkpoints_of(world: World, namespace: str, job: str) -> list[Checkpoint]:
    """All Checkpoints that name the job."""
    return [c for c in world.all(Checkpoint) if c.spec.job == job and c.namespace == namespace]


def usable(world: World, job: Job) -> list[Checkpoint]:
    """Those the job could go on from, the newest first."""
    found = [
        c
        for c in checkpoints_of(world, job.namespace, job.name)
        if c.status.phase == CheckpointPhase.READY
        and c.status.job_uid == job.metadata.uid
        and c.metadata.deletion_timestamp is None
    ]
    return sorted(found, key=lambda c: (c.status.epoch, c.status.finished_at or c.metadata.creation_timestamp), reverse=True)


@dataclass(frozen=True, slots=True)
class Home:
    """Where the job of a checkpoint runs: what was seen of it there."""

    job: Job
    node: str
    placement: Seen[Placement]
    report: JobReport


@controller(
    "checkpoint",
    kind=Checkpoint,
    start=_all,
    watches=[
        Watch("kinds/checkpoints/", own),
        Watch("kinds/jobs/", _of_job),
        Watch("placements/", _of_job),
        Watch("nodes/", _of_job),
    ],
)
async def reconcile_checkpoint(context: Context, key: str) -> Again:
    checkpoint = context.world.find(Checkpoint, key)
    if checkpoint is None:
        return DONE
    job = context.world.find(Job, job_key(checkpoint.namespace, checkpoint.spec.job))
    if checkpoint.metadata.deletion_timestamp is not None:
        return await _release(context, checkpoint, job)
    if checkpoint.status.phase not in OPEN:
        return await _keep_newest(context, job)
    gone = _never(checkpoint, job)
    if job is None or gone is not None:
        reason, message = gone or (JOB_NOT_FOUND, "")
        return await _fail(context, checkpoint, reason, message)
    home = _home(context.world, job)
    if checkpoint.status.phase == CheckpointPhase.TAKING and home is not None and _ordered(home) == checkpoint.name:
        return await _await_answer(context, checkpoint, home)
    return await _order(context, checkpoint, job, home)


def _never(checkpoint: Checkpoint, job: Job | None) -> tuple[str, str] | None:
    if job is None:
        return JOB_NOT_FOUND, f"job/{checkpoint.spec.job} does not exist in namespace {checkpoint.namespace}"
    if checkpoint.status.job_uid and checkpoint.status.job_uid != job.metadata.uid:
        return JOB_ENDED, f"{job.label} is another one by now"
    if job.metadata.deletion_timestamp is not None or job.status.phase in FINISHED:
        return JOB_ENDED, f"{job.label} {'is being deleted' if job.metadata.deletion_timestamp else f'is {job.status.phase}'}"
    return None


def _home(world: World, job: Job) -> Home | None:
    """None while it is nowhere, moving, or its node is silent."""
    node, key = job.status.node or "", work_key(job)
    placement, report = world.placements.find(node, key), world.reports.find(node, key)
    if placement is None or report is None or not is_ready(world, node) or placement.value.role != Role.RUN:
        return None
    life = (job.metadata.uid, job.status.life)
    if (placement.value.uid, placement.value.life) != life or (report.value.uid, report.value.life) != life:
        return None
    return Home(job, node, placement, report.value)


def _ordered(home: Home) -> str | None:
    order = home.placement.value.checkpoint
    return order.name if order else None


# --- ordering it ---


async def _order(context: Context, checkpoint: Checkpoint, job: Job, home: Home | None) -> Again:
    deadline = (checkpoint.metadata.creation_timestamp or context.now()) + timedelta(seconds=checkpoint.spec.deadline)
    left = (deadline - context.now()).total_seconds()
    why = _not_yet(job, home)
    if left <= 0:
        return await _fail(context, checkpoint, TIMED_OUT, f"not begun within its deadline: {why or 'the job never stood still'}")
    if home is None or why:
        new = checkpoint.model_copy(deep=True)
        new.status.phase, new.status.message = CheckpointPhase.PENDING, why
        if new.status != checkpoint.status:
            await context.store.update_status(new)
        return Again(left)
    uid = checkpoint.metadata.uid or ""
    path = f"checkpoints/{checkpoint.name}-{uid[:8]}"
    order = CheckpointOrder(name=checkpoint.name, path=path, deadline=deadline)
    new = checkpoint.model_copy(deep=True)
    status = new.status
    status.phase, status.node, status.path, status.epoch = CheckpointPhase.TAKING, home.node, path, job.status.epoch
    status.job_uid, status.message, status.observed_generation = job.metadata.uid or "", "", checkpoint.metadata.generation
    placement = home.placement.value.model_copy(update={"checkpoint": order})
    await _with_placement(context, home).put(home.placement.key, placement).put_status(new).commit()
    return Again(left + SLACK)


def _not_yet(job: Job, home: Home | None) -> str:
    if job.status.phase != JobPhase.RUNNING or home is None or home.report.phase != ReportPhase.RUNNING:
        return f"waits until {job.label} runs"
    other = _ordered(home)
    return f"waits for checkpoint/{other}" if other else ""


def _with_placement(context: Context, home: Home) -> Transaction:
    return context.store.transaction().expect(*context.world.expect(home.placement.key))


# --- what became of it ---


async def _await_answer(context: Context, checkpoint: Checkpoint, home: Home) -> Again:
    said = home.report.checkpoint
    if said is None or said.name != checkpoint.name:
        deadline = (checkpoint.metadata.creation_timestamp or context.now()) + timedelta(seconds=checkpoint.spec.deadline + SLACK)
        left = (deadline - context.now()).total_seconds()
        if left > 0:
            return Again(left)
        said = CheckpointReport(name=checkpoint.name, ok=False, message=f"node/{home.node} did not take it within its deadline")
    new = _answered(context, checkpoint, said)
    placement = home.placement.value.model_copy(update={"checkpoint": None})
    transaction = _with_placement(context, home).put(home.placement.key, placement).put_status(new)
    if said.ok:
        job = home.job.model_copy(deep=True)
        job.status.checkpoint = checkpoint.name
        transaction.put_status(job)
    await transaction.commit()
    if said.ok:
        freeze = f"{said.freeze_ms:.0f} ms" if said.freeze_ms is not None else "an unknown time"
        await context.tell(home.job, "CheckpointTaken", f"checkpoint/{checkpoint.name} on node/{home.node}, frozen for {freeze}")
    else:
        await context.warn(home.job, "CheckpointFailed", f"checkpoint/{checkpoint.name}: {said.message}")
    return DONE


def _answered(context: Context, checkpoint: Checkpoint, said: CheckpointReport) -> Checkpoint:
    new = checkpoint.model_copy(deep=True)
    status = new.status
    status.phase = CheckpointPhase.READY if said.ok else CheckpointPhase.FAILED
    status.bytes, status.digest, status.freeze_ms = said.bytes, said.digest, said.freeze_ms
    status.finished_at, status.message = context.now(), said.message
    _set(context, new, said.ok, TAKEN if said.ok else NOT_TAKEN, said.message)
    return new


async def _fail(context: Context, checkpoint: Checkpoint, reason: str, message: str) -> Again:
    new = checkpoint.model_copy(deep=True)
    new.status.phase, new.status.finished_at = CheckpointPhase.FAILED, context.now()
    new.status.message = f"{reason}: {message}"
    _set(context, new, False, reason, message)
    await context.store.update_status(new)
    return DONE


def damaged(context: Context, checkpoint: Checkpoint, message: str) -> Checkpoint:
    """As it is to be when a node found that nothing can go on from it."""
    new = checkpoint.model_copy(deep=True)
    new.status.phase, new.status.message = CheckpointPhase.FAILED, f"{DAMAGED}: {message}"
    _set(context, new, False, DAMAGED, message)
    return new


def _set(context: Context, checkpoint: Checkpoint, truth: bool, reason: str, message: str) -> None:
    now, generation = context.now(), checkpoint.metadata.generation
    status = checkpoint.status
    status.conditions = set_condition(status.conditions, READY, truth, reason, message, now, generation)


# --- letting go ---


async def _keep_newest(context: Context, job: Job | None) -> Again:
    """Deletes what is over: all but the newest of the job, and failures of its interval that another has followed."""
    if job is None:
        return DONE
    good = usable(context.world, job)
    mine = checkpoints_of(context.world, job.namespace, job.name)
    failed = [c for c in mine if c.status.phase == CheckpointPhase.FAILED and c.spec.requested_by == BY_INTERVAL]
    failed.sort(key=lambda c: c.metadata.creation_timestamp or context.now(), reverse=True)
    for over in [*good[job.spec.checkpoint.keep :], *failed[1:]]:
        if over.metadata.deletion_timestamp is None:
            await _delete(context, over)
    return DONE


async def _delete(context: Context, checkpoint: Checkpoint) -> None:
    try:
        await context.store.delete(Checkpoint, checkpoint.name, checkpoint.namespace, uid=checkpoint.metadata.uid)
    except NotFound:
        return  # somebody else deleted it: that is all we wanted


async def _release(context: Context, checkpoint: Checkpoint, job: Job | None) -> Again:
    """Its files are removed by the agent of the node where the job is, and with a job that is gone they went."""
    status = checkpoint.status
    no_files = not status.path or job is None or job.metadata.uid != status.job_uid
    home = _home(context.world, job) if job is not None else None
    if no_files or (home is not None and status.path in home.report.discarded and status.path in home.placement.value.discard):
        await context.store.remove_finalizer(checkpoint, FILES_FINALIZER)
        return DONE
    if home is None or status.path in home.placement.value.discard:
        return DONE  # when the job runs again, or the agent says that it is done
    going = [c.status.path for c in checkpoints_of(context.world, checkpoint.namespace, checkpoint.spec.job) if _is_going(c)]
    placement = home.placement.value.model_copy(update={"discard": sorted(going)})
    if placement.checkpoint is not None and placement.checkpoint.name == checkpoint.name:
        placement = placement.model_copy(update={"checkpoint": None})
    await _with_placement(context, home).put(home.placement.key, placement).commit()
    return DONE


def _is_going(checkpoint: Checkpoint) -> bool:
    return checkpoint.metadata.deletion_timestamp is not None and bool(checkpoint.status.path)
