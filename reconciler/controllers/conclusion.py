"""The second write of a move: how it was decided, in one transaction, and the news of it."""

from dataclasses import replace

from crds import keys
from crds.job import NODE_LOST, RUNNING, Job, JobPhase
from crds.job import Move as FinishedMove
from crds.meta import Truth, set_condition
from crds.migration import COMPLETE, FAILED, MOVED, Migration, MigrationPhase
from crds.placement import Role
from reconciler.context import Context
from reconciler.controllers.moving import CallOff, Move, Succeed, TakeBack, Wait, Wish, decide
from reconciler.controllers.placing import dropped
from reconciler.controllers.readiness import has_fenced, silence, silence_keys
from reconciler.runtime.outcome import DONE, Again
from store.transaction import Transaction

KEPT_MOVES = 10


async def conclude(context: Context, move: Move, migration: Migration | None) -> Again:
    """Writes the move's decision, if there is one. ``migration`` is None when its object was deleted meanwhile."""
    cancelled = migration is not None and migration.spec.cancelled
    destination = move.order.destination
    known = has_fenced(context.world, destination, move.job, silence(context, destination))
    job = _job_of(context, move)
    wish = Wish(cancelled, deleted=job is None or job.metadata.deletion_timestamp is not None)
    decision = decide(replace(move, silence=known), context.now(), wish)
    if isinstance(decision, Wait):
        if decision.why:
            await _explain(context, move, migration, decision.why)
        elif migration is not None and cancelled:
            await _say_too_late(context, move, migration)
        return Again(decision.after)
    if isinstance(decision, Succeed):
        await _succeed(context, move, migration, decision)
    else:
        await _call_off(context, move, migration, decision)
    return DONE


async def _explain(context: Context, move: Move, migration: Migration | None, why: str) -> None:
    """It takes people to go on, so both objects say why, and what they can do."""
    job, transaction = _job_of(context, move), context.store.transaction()
    if job is not None and job.metadata.deletion_timestamp is not None:
        job = None  # it says itself what it waits for
    if job is not None and job.status.message != why:
        new_job = job.model_copy(deep=True)
        status, generation = new_job.status, job.metadata.generation
        status.message = why
        status.conditions = set_condition(status.conditions, RUNNING, Truth.UNKNOWN, NODE_LOST, why, context.now(), generation)
        transaction.put_status(new_job)
    if migration is not None and migration.status.message != why:
        new = migration.model_copy(deep=True)
        new.status.message = why
        transaction.put_status(new)
    if (job is not None and job.status.message != why) or (migration is not None and migration.status.message != why):
        await transaction.commit()


def _too_late(move: Move) -> str:
    return f"too late to cancel: node/{move.order.destination} has taken the job"


async def _say_too_late(context: Context, move: Move, migration: Migration) -> None:
    """Once: the move goes on to its end."""
    if migration.status.message != _too_late(move):
        new = migration.model_copy(deep=True)
        new.status.message = _too_late(move)
        await context.store.update_status(new)


async def give_up(context: Context, migration: Migration, reason: str, message: str) -> Again:
    """A Migration that never became a move, or whose move cannot be found any more."""
    await context.store.update_status(_failed(context, migration, CallOff(reason, message)))
    job = context.world.find(Job, f"{migration.namespace}/{migration.spec.job}")
    if job is not None:
        await context.warn(job, "MoveFailed", f"migration/{migration.name}: {reason}: {message}")
    return DONE


async def _succeed(context: Context, move: Move, migration: Migration | None, decision: Succeed) -> None:
    namespace, name = move.job.split("/")
    target = keys.placement(move.order.destination, namespace, name)
    placed = move.destination or move.source
    if placed is None:
        raise AssertionError("a move is found by one of its placements")
    transaction = _relying_on(context, move).put(target, placed.value.model_copy(update={"role": Role.RUN, "move": None}))
    if move.source is not None:
        transaction.delete(move.source.key)
    job = _job_of(context, move)
    new_job = _moved_job(context, move, migration, job, decision) if job else None
    if new_job is not None:
        transaction.put_status(new_job)
    if migration is not None:
        transaction.put_status(_succeeded(context, move, migration, decision))
    await transaction.commit()
    if new_job is not None:
        last = new_job.status.moves[-1]
        message = f"from node/{last.source} to node/{last.destination} in {last.freeze_ms:.0f} ms of freeze: {last.reason}"
        await context.tell(new_job, MOVED, message.removesuffix(": "))


async def _call_off(context: Context, move: Move, migration: Migration | None, decision: CallOff) -> None:
    transaction = _relying_on(context, move)
    epoch, taken_back = move.epoch + 1, isinstance(decision, TakeBack)
    if taken_back:
        ends = (*silence_keys(move.order.destination, move.job), *silence_keys(move.order.source, move.job)[1:2])
        transaction.expect(*context.world.expect(*ends))
    if move.source is not None:
        back = move.source.value.model_copy(update={"epoch": epoch, "role": Role.RUN})
        transaction.put(move.source.key, back)
    if move.destination is not None and taken_back:
        transaction.put(move.destination.key, dropped(move.destination.value, epoch))
    elif move.destination is not None:
        transaction.delete(move.destination.key)
    job = _job_of(context, move)
    if job is not None:
        new = job.model_copy(deep=True)
        _settle(new, epoch)
        new.status.restarts += taken_back
        transaction.put_status(new)
    if migration is not None:
        transaction.put_status(_failed(context, migration, decision))
    await transaction.commit()
    if job is not None:
        message = f"stays on node/{move.order.source}: migration/{move.order.migration}: {decision.reason}: {decision.message}"
        await context.warn(job, "MoveFailed", message)


def _relying_on(context: Context, move: Move) -> Transaction:
    """Both placements and the claim are as they were seen. The claim is what a destination writes to commit."""
    namespace, name = move.job.split("/")
    ends = [keys.placement(node, namespace, name) for node in (move.order.source, move.order.destination)]
    claim = keys.claim(move.order.destination, namespace, name)
    return context.store.transaction().expect(*context.world.expect(*ends, claim))


def _job_of(context: Context, move: Move) -> Job | None:
    """The job the move is about; not one that took its name."""
    job = context.world.find(Job, move.job)
    return job if job is not None and job.metadata.uid == move.uid else None


def _settle(job: Job, epoch: int) -> None:
    """The move is over; where the job stands is read from its node's report next."""
    job.status.migration, job.status.message, job.status.epoch = None, "", epoch
    if job.status.phase == JobPhase.MOVING:
        job.status.phase = JobPhase.RUNNING


def _moved_job(context: Context, move: Move, migration: Migration | None, job: Job, decision: Succeed) -> Job:
    new, about = job.model_copy(deep=True), decision.report.move
    _settle(new, move.epoch)
    status = new.status
    status.node, status.move_count = move.order.destination, status.move_count + 1
    status.reason = migration.spec.reason if migration else ""
    done = FinishedMove(
        migration=move.order.migration,
        source=move.order.source,
        destination=move.order.destination,
        reason=status.reason,
        mode=str(move.order.mode),
        bytes=about.bytes if about else 0,
        freeze_ms=(about.freeze_ms or 0.0) if about else 0.0,
        time=context.now(),
    )
    status.moves = [*status.moves, done][-KEPT_MOVES:]
    return new


def _succeeded(context: Context, move: Move, migration: Migration, decision: Succeed) -> Migration:
    new, about = migration.model_copy(deep=True), decision.report.move
    status = new.status
    status.phase, status.epoch, status.finished_at = MigrationPhase.SUCCEEDED, move.epoch, context.now()
    status.source, status.destination = move.order.source, move.order.destination
    status.bytes, status.frozen_bytes = (about.bytes, about.frozen_bytes) if about else (0, 0)
    status.freeze_ms = about.freeze_ms if about else None
    status.message = f"moved from node/{move.order.source} to node/{move.order.destination}"
    if migration.spec.cancelled:
        status.message += f"; {_too_late(move)}"
    _set(context, new, COMPLETE, True, MOVED, status.message)
    return new


def _failed(context: Context, migration: Migration, decision: CallOff) -> Migration:
    new = migration.model_copy(deep=True)
    new.status.phase, new.status.finished_at = MigrationPhase.FAILED, context.now()
    new.status.message = f"{decision.reason}: {decision.message}"
    new.status.observed_generation = migration.metadata.generation
    _set(context, new, FAILED, True, decision.reason, decision.message)
    _set(context, new, COMPLETE, False, decision.reason, decision.message)
    return new


def _set(context: Context, migration: Migration, kind: str, status: bool, reason: str, message: str) -> None:
    now, generation = context.now(), migration.metadata.generation
    migration.status.conditions = set_condition(migration.status.conditions, kind, status, reason, message, now, generation)
