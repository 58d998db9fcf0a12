"""The destination's end of a move: let the source in, receive, restore, commit, let it run.

The claim is the commit point. Before it every failure ends in a refusal, itself a claim, so that exactly one of the two can ever
stand; after it everything goes forward. The half-done states of a dead agent are finished by the same functions (worker.py).
"""

import asyncio
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from crds.job import MigrationMode
from crds.placement import MoveOrder
from crds.report import Claim, JobReport, MoveReport, ReportPhase, Verdict
from crds.states import DestinationStep
from nodeagent.ahead import AHEAD
from nodeagent.case import Case, one_line
from nodeagent.channel import Channel
from nodeagent.deadline import Deadline
from nodeagent.engine import PageWire
from nodeagent.errors import AgentError, MoveFailed, PeerLost, SandboxGone
from nodeagent.exchange import Caller
from nodeagent.frames import Message, Ready, Refused, Running, images_size
from nodeagent.ledger import refusal
from nodeagent.pages import Entrance
from nodeagent.precopy import receive_rounds
from nodeagent.space import Promise, make_fresh, reserve
from store.errors import Unavailable

log = logging.getLogger(__name__)

RETRY = 0.2  # seconds between two attempts to learn what became of the claim


@dataclass(frozen=True, slots=True)
class Arrived:
    """Restored and stopped. Monotonic seconds: of the freeze at the source, of the end frame here, of the end of the restore."""

    frozen_at: float
    end_at: float
    bytes: int
    frozen_bytes: int
    """Of these, what came after the freeze."""
    restored_at: float


async def receive_job(case: Case) -> None:
    """From PREPARING to RUNNING or REFUSED; the source is told which. Raises StoreError, AgentError when it got stuck between."""
    order = _order(case)
    deadline = Deadline(order, case.parts.clock.now())
    channel: Channel | None = None
    with ExitStack() as held:  # the memory it was promised, and the connection, whatever the outcome
        try:
            async with deadline.kept("the sandbox was made"):
                caller = await _await_source(case, order, deadline)
                channel = caller.channel
                held.callback(channel.close)
                door = held.enter_context(case.parts.pages.door(order)) if order.mode == MigrationMode.POST_COPY else None
                promise = await _make_ready(case, caller, door, held)
                arrived = await _receive_and_restore(case, channel, door, promise, deadline)
        except (AgentError, OSError) as error:
            await refuse(case, one_line(error))
        else:
            await _commit_and_run(case, order, arrived)
        if channel is not None:
            await _tell(case, channel)


async def _await_source(case: Case, order: MoveOrder, deadline: Deadline) -> Caller:
    """Makes the sandbox and waits for the source."""
    record = case.held
    sandbox = await case.parts.engine.create(record.copy_here, record.network)
    case.hold(sandbox)
    await sandbox.expect()
    await case.parts.hooks.at("arrive.prepared", record.copy_here)
    deadline.doing(f"node/{order.source} was waited for: it did not connect")
    with case.parts.exchange.expect(record.copy_here, order.ticket, order.source) as came:
        return await came


async def _make_ready(case: Case, caller: Caller, door: Entrance | None, held: ExitStack) -> Promise:
    """Says ready, if there is room for what the source brings; the room is promised until ``held`` is closed."""
    record = case.held
    try:
        hello, follows = caller.hello, door is not None
        promise, may = case.parts.room.promise_most(hello.memory, restored=True, follows=follows, ahead=hello.ahead, held=held)
        images = case.images(record.copy_here)
        await asyncio.to_thread(make_fresh, images)
        if may:
            await reserve(images, hello.memory)
        await case.advance(DestinationStep.RECEIVING, report=_report(case, ReportPhase.ARRIVING, DestinationStep.RECEIVING))
        await caller.channel.send(Ready(pages=door.port if door else 0, ahead=may), timeout=case.parts.config.timing.connect)
    except (MoveFailed, OSError) as error:
        await _try_to_tell(case, caller.channel, Refused(reason=one_line(error)))
        raise
    return promise


async def _receive_and_restore(
    case: Case, channel: Channel, door: Entrance | None, promise: Promise, deadline: Deadline
) -> Arrived:
    sandbox, record = case.sandbox, case.held
    assert sandbox is not None
    images = case.images(record.copy_here)
    ahead = 0
    if _order(case).mode == MigrationMode.PRE_COPY:
        ahead = await receive_rounds(case, channel, images, promise, deadline)
    receiver = channel.receive_images(images, most=case.parts.room.most(promise) - ahead)
    promise.came = lambda: ahead + receiver.bytes
    clock, began = case.parts.clock, list[float]()
    receiver.on_dump(lambda: began.append(clock.monotonic()))
    deadline.doing("its images were received")
    try:
        end = await receiver.run()
    except PeerLost as error:
        lost = f"node/{_order(case).source} was lost before the whole job had come, because its agent died or the network broke"
        raise PeerLost(f"{lost}: {error}") from error
    end_at = clock.monotonic()
    frozen_at = (began[0] if began else end_at) - end.frozen_for
    await case.parts.hooks.at("arrive.received", record.copy_here)
    known = {"started_at": end.started_at, "base_cpu_seconds": end.cpu_seconds}
    known["frozen_at"] = clock.boottime() - (clock.monotonic() - frozen_at)
    await asyncio.gather(_forget_ahead(images), case.advance(DestinationStep.RESTORING, **known))
    deadline.doing("the job was being restored")
    case.parts.room.check_restore(promise, images_size(end.files))
    wire = PageWire(await door.wire()) if door else None
    await sandbox.restore(images, last_pid=end.last_pid, deadline=case.parts.config.timing.restore, wire=wire)
    if wire is not None:
        wire.sock.close()  # criu has it
    late = images_size(end.files)
    arrived = Arrived(frozen_at, end_at, ahead + late, late, clock.monotonic())
    await case.parts.hooks.at("arrive.restored", record.copy_here)
    return arrived


async def _forget_ahead(images: Path) -> None:
    """All that came ahead is in the images now; its memory is at hand for the job's own, so it is given back first."""
    await asyncio.to_thread((images / AHEAD).unlink, missing_ok=True)


async def _commit_and_run(case: Case, order: MoveOrder, arrived: Arrived) -> None:
    if order.mode == MigrationMode.POST_COPY and case.exit is not None:
        await refuse(case, f"the connection to node/{order.source} broke before the job could run")
        return
    await case.advance(DestinationStep.COMMITTING)
    if not await commit(case):
        return
    await go(case, arrived)
    restore, total = arrived.restored_at - arrived.end_at, _freeze_ms(case)
    log.info(
        "job %s: move %s done, frozen %.0f ms: %.0f until all had come, %.0f to restore, the rest to commit and resume",
        case.key,
        order.migration,
        total,
        (arrived.end_at - arrived.frozen_at) * 1000,
        restore * 1000,
    )


def _freeze_ms(case: Case) -> float:
    """Of the move that just ended; 0 when it is not known."""
    move = case.held.report.move if case.held.report else None
    return move.freeze_ms or 0.0 if move else 0.0


async def commit(case: Case) -> bool:
    """At COMMITTING: puts the claim, or learns what became of it. True: COMMITTED. False: refused or called off, the copy is dead.

    Repeats until it is known, as long as that takes: without knowing neither side may act. Raises Conflict for a claim of another
    epoch.
    """
    record = case.held
    claim = Claim(uid=record.uid, epoch=record.epoch, verdict=Verdict.ACCEPTED)
    while True:
        try:
            standing = await case.parts.ledger.claim(case.key, claim, record.revision)
            break
        except Unavailable as error:
            log.warning("job %s: not known whether the move is committed, asking again: %s", case.key, error)
            await asyncio.sleep(RETRY)
    await case.parts.hooks.at("arrive.claimed", record.copy_here)
    if standing is not None and standing.verdict == Verdict.ACCEPTED:
        await case.advance_decided(DestinationStep.COMMITTED)
        return True
    await refuse(case, standing.reason if standing else "the move was called off")
    return False


async def go(case: Case, arrived: Arrived | None = None) -> None:
    """At COMMITTED: lets the job run. Without ``arrived`` (a restarted agent) the freeze is reckoned from the journal, unless the
    job was let run before that agent died: then nobody knows how long it was."""
    sandbox = await case.adopt()
    if sandbox is None:
        case.exit = SandboxGone(f"job {case.key} was committed here and its copy is gone")
        raise case.exit
    still, frozen_at = arrived is None and await sandbox.frozen(), case.held.frozen_at
    await sandbox.resume()
    freeze = None
    if still and frozen_at is not None:
        freeze = round((case.parts.clock.boottime() - frozen_at) * 1000, 1)
    if arrived is not None:
        freeze = round((case.parts.clock.monotonic() - arrived.frozen_at) * 1000, 1)
    await case.measure()
    await case.parts.hooks.at("arrive.resumed", case.held.copy_here)
    follows = _order(case).mode == MigrationMode.POST_COPY
    step = DestinationStep.FETCHING if follows else DestinationStep.RUNNING
    report = _report(case, ReportPhase.RUNNING, step, ok=None if follows else True, freeze_ms=freeze, arrived=arrived)
    await case.advance_decided(step, report=report)


async def refuse(case: Case, reason: str) -> None:
    """Kills the copy and puts the refusal, unless the placement changed (then nothing can be claimed any more).

    Raises Unavailable when it is not known whether the refusal stands; then this is to be repeated."""
    record = case.held
    if record.at == DestinationStep.REFUSED and case.tidied:
        return
    if record.at != DestinationStep.REFUSED:
        log.warning("job %s: not taken: %s", case.key, reason)
        report = _report(case, ReportPhase.ABSENT, DestinationStep.REFUSED, ok=False, message=reason)
        record = await case.advance(DestinationStep.REFUSED, reason=reason, report=report)
    await case.forget(record.copy_here)
    standing = await case.parts.ledger.claim(case.key, refusal(record.uid, record.epoch, record.reason), record.revision)
    await case.parts.hooks.at("arrive.refused", record.copy_here)
    case.tidied = True
    if standing is not None and standing.verdict == Verdict.ACCEPTED:
        raise MoveFailed(f"job {case.key}: a claim that accepts it stands, though it was refused: left for people to look at")


async def _tell(case: Case, channel: Channel) -> None:
    """The verdict, best effort: the source learns it from its placement as well, a little later."""
    record = case.held
    if record.at in (DestinationStep.RUNNING, DestinationStep.FETCHING):
        await _try_to_tell(case, channel, Running(freeze_ms=_freeze_ms(case)))
    elif record.at == DestinationStep.REFUSED:
        await _try_to_tell(case, channel, Refused(reason=record.reason))


async def _try_to_tell(case: Case, channel: Channel, message: Message) -> None:
    try:
        await channel.send(message, timeout=case.parts.config.timing.connect)
    except PeerLost as error:
        log.info("job %s: the source was not told: %s", case.key, error)


def _order(case: Case) -> MoveOrder:
    order = case.held.order
    assert order is not None, f"job {case.key} arrives without an order"
    return order


def _report(
    case: Case,
    phase: ReportPhase,
    step: DestinationStep,
    *,
    ok: bool | None = None,
    message: str = "",
    freeze_ms: float | None = None,
    arrived: Arrived | None = None,
) -> JobReport:
    move = MoveReport(migration=_order(case).migration, step=step, ok=ok, freeze_ms=freeze_ms, message=message)
    if arrived is not None:
        move = move.model_copy(update={"bytes": arrived.bytes, "frozen_bytes": arrived.frozen_bytes})
    return case.report(phase, move=move, message=message)
