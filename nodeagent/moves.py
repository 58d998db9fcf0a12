"""The actions around a move: begin it at either end, finish it, take it back, and rebuild what a lost journal knew."""

import asyncio
import logging

from crds.job import MigrationMode
from crds.placement import Role
from crds.report import ENDED, MoveReport, ReportPhase, Verdict
from crds.states import DestinationStep, SourceStep
from nodeagent.arrive import commit, refuse
from nodeagent.case import Case
from nodeagent.engine import Sandbox
from nodeagent.errors import EngineFailed, MoveFailed, SandboxGone
from nodeagent.frames import Running
from nodeagent.jobs import Placed, hold, new_record
from nodeagent.journal import STEPS, Stage, Step
from nodeagent.leave import send_job

log = logging.getLogger(__name__)

RETRY = 0.5  # seconds between two questions to a shim that did not answer


async def begin_leaving(case: Case, placed: Placed) -> None:
    """Journals the order; the sending itself is an activity of its own."""
    order, epoch = placed.placement.move, placed.placement.epoch
    if order is None:
        raise MoveFailed(f"job {case.key}: its placement says leave without a move order: the reconciler has to write it anew")
    await case.parts.ledger.remove_claim(case.key)
    case.failure = ""
    move = MoveReport(migration=order.migration, step=SourceStep.CONNECTING)
    report = case.report(ReportPhase.RUNNING, move=move, epoch=epoch)
    await case.advance(SourceStep.CONNECTING, epoch=epoch, order=order, report=report, revision=placed.revision)


async def send(case: Case) -> None:
    """The activity: send it, and do what the destination's answer says."""
    sandbox = await case.adopt()
    if sandbox is None:
        case.lost("it was running here, and is gone without an exit code")
        return
    answer = await send_job(case, sandbox)
    if isinstance(answer, Running) and _memory_follows(case):
        await serve(case)
    elif isinstance(answer, Running):
        await left(case)
    else:
        await resume(case, None, f"the destination refused: {answer.reason}")


async def serve(case: Case) -> None:
    """The activity: it runs at the destination, so it is killed here; its memory goes after it, to the end or until that fails.

    How it ended is the destination's matter: nothing of it is left to be rescued here.
    """
    record = case.held
    if record.at != SourceStep.SERVING:
        await _say_left(case, SourceStep.SERVING)
    sandbox = await case.adopt()
    if sandbox is not None:
        try:
            await sandbox.sever()
            await case.parts.hooks.at("leave.severed", record.copy_here)
            await _streamed(case, sandbox)
        except SandboxGone as error:
            log.warning("job %s: nothing of its memory is here any more: %s", case.key, error)
    await left(case)


async def fetch(case: Case) -> None:
    """The activity: it runs here, and is here as a whole when no more memory comes. Should some be missing, it has died of that."""
    sandbox = await case.adopt()
    if sandbox is None:
        case.lost("it was running here, and is gone without an exit code")
        return
    try:
        await _streamed(case, sandbox)
    except SandboxGone:
        return  # its exit says why
    await case.parts.hooks.at("arrive.fetched", case.held.copy_here)
    old = case.held.report
    move = old.move.model_copy(update={"step": str(DestinationStep.RUNNING), "ok": True}) if old and old.move else None
    await case.advance_decided(DestinationStep.RUNNING, report=case.report(ReportPhase.RUNNING, move=move))
    log.info("job %s: all its memory is here", case.key)


async def _streamed(case: Case, sandbox: Sandbox) -> None:
    """Asks as often as it takes: a shim that is busy is no reason to give up. Raises SandboxGone."""
    while True:
        try:
            await sandbox.streamed()
            return
        except EngineFailed as error:
            log.warning("job %s: not known whether its memory is on its way, asking again: %s", case.key, error)
            await asyncio.sleep(RETRY)


def _memory_follows(case: Case) -> bool:
    return case.held.order is not None and case.held.order.mode == MigrationMode.POST_COPY


async def left(case: Case) -> None:
    """It runs at the destination: say so, kill the frozen copy.

    In that order when it is from the destination that we know: should it be lost before it could tell etcd, the reconciler may
    take the job back, to the copy here, and only one of the two writes comes through. Without etcd the copy is kept, which costs
    memory only. Raises Unavailable, Conflict.
    """
    record = case.held
    if record.at != SourceStep.GONE:
        await _say_left(case, SourceStep.GONE)
    if not case.tidied:
        await case.forget(record.copy_here)
        case.tidied = True


async def _say_left(case: Case, step: SourceStep) -> None:
    """To etcd first, unless that was done, then to the journal."""
    record = case.held
    old = record.report.move if record.report else None
    move = old.model_copy(update={"step": str(step), "ok": True}) if old else None
    report = case.report(ReportPhase.LEFT, move=move)
    async with case.telling:
        if record.at != SourceStep.SERVING:
            await case.parts.ledger.put(case.key, report, placement=record.revision)
        await case.advance_decided(step, report=report)


async def resume(case: Case, placed: Placed | None, reason: str) -> None:
    """The move failed: it goes on here, under the epoch of a placement that says run, or for now under the old order's."""
    record = case.held
    epoch = placed.placement.epoch if placed and placed.placement.role == "run" else record.epoch
    was_frozen = record.at in (SourceStep.FREEZING, SourceStep.SENT)
    old = record.report.move if record.report else None
    move = MoveReport(
        migration=record.order.migration if record.order else "",
        step=SourceStep.RESUMED,
        ok=False,
        bytes=old.bytes if old else 0,
        message=reason,
    )
    log.warning("job %s: goes on here: %s", case.key, reason)
    case.checked = False
    report = case.report(ReportPhase.RUNNING, move=move, epoch=epoch)
    await case.advance_decided(SourceStep.RESUMED, epoch=epoch, report=report)
    case.failure = ""
    sandbox = await case.adopt()
    if was_frozen and sandbox is not None and case.exit is None:
        try:
            await sandbox.resume()
        except SandboxGone as error:
            log.info("job %s ended while it was to go on: %s", case.key, error)
    await hold(case, None)


async def prepare(case: Case, placed: Placed) -> None:
    """Journals that something may be here from now on; receiving is an activity of its own."""
    order = placed.placement.move
    if order is None:
        raise MoveFailed(f"job {case.key}: its placement says arrive without a move order: the reconciler has to write it anew")
    await case.parts.ledger.remove_claim(case.key)
    case.failure = ""
    record = new_record(case, placed, Stage.START).model_copy(
        update={"step": str(DestinationStep.PREPARING), "order": order, "revision": placed.revision}
    )
    case.record = record
    move = MoveReport(migration=order.migration, step=DestinationStep.PREPARING)
    await case.begin(record.model_copy(update={"report": case.report(ReportPhase.ARRIVING, move=move)}))


async def ask(case: Case) -> None:
    """A dead agent was committing: the claim tells how that ended; if it never happened, it can still be done."""
    record = case.held
    sandbox = await case.adopt()
    if sandbox is not None and case.exit is None:
        await commit(case)
        return
    claim = await case.parts.ledger.standing_claim(case.key)
    if claim is not None and claim.verdict == Verdict.ACCEPTED and claim.epoch == record.epoch:
        await case.advance(DestinationStep.COMMITTED)
    else:
        await refuse(case, "the restored copy is gone")


async def forget(case: Case) -> None:
    """Nothing of it stays on this node; its directory does, for it lives elsewhere."""
    record = case.held
    await case.forget(record.copy_here)
    await case.parts.ledger.remove(case.key)
    await case.drop()
    log.info("job %s: removed from this node", case.key)


async def rebuild(case: Case, placed: Placed) -> None:
    """There is a report but no record (a new disk, say): the report tells what may be here, and nothing is ever started on it."""
    stored = case.parts.ledger.stored(case.key)
    report = stored.report if stored else None
    copies = [copy for copy in await case.parts.engine.leftovers() if copy.uid == placed.placement.uid]
    record = new_record(case, placed, Stage.HELD, report)
    step = await _step_of(case, report.phase if report else None, placed)
    changes = {
        "step": str(step),
        "epoch": report.epoch if report else placed.placement.epoch,
        "copy_epoch": max((copy.epoch for copy in copies), default=placed.placement.epoch),
        "order": placed.placement.move,
        "checkpoint": placed.placement.checkpoint if placed.placement.role == Role.RESTORE else None,
        "revision": placed.revision,
        "started_at": report.started_at if report else None,
    }
    log.error("job %s: no journal, taken from its report: %s", case.key, step)
    await case.begin(record.model_copy(update=changes))


async def _step_of(case: Case, phase: ReportPhase | None, placed: Placed) -> Step:
    """The most careful step that fits the report."""
    if phase in ENDED:
        return Stage.ENDED
    if phase == ReportPhase.ARRIVING and placed.placement.role == Role.RESTORE:
        return Stage.RESTORE
    if phase == ReportPhase.ARRIVING:
        claim = await case.parts.ledger.standing_claim(case.key)
        accepted = claim is not None and claim.verdict == Verdict.ACCEPTED and claim.epoch == placed.placement.epoch
        return DestinationStep.COMMITTED if accepted else DestinationStep.RESTORING
    move = stored.report.move if (stored := case.parts.ledger.stored(case.key)) and stored.report else None
    if move is not None and move.step in (SourceStep.SERVING, DestinationStep.FETCHING):
        return STEPS[move.step]
    steps: dict[ReportPhase | None, Step] = {
        ReportPhase.LEFT: SourceStep.GONE,
        ReportPhase.ABSENT: DestinationStep.REFUSED,
        ReportPhase.FROZEN: SourceStep.SENT,
    }
    return steps.get(phase, Stage.HELD)
