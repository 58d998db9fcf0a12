"""The source's end of a move: reach the destination, freeze, stream, hand over the decision.

Until SENT is journalled every failure just ends this activity, and the worker lets the job go on (Do.RESUME). From SENT on only the
destination's word, or a new placement, decides; a failure here then means waiting (Do.WAIT).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from crds.job import MigrationMode
from crds.placement import MoveOrder
from crds.report import EXEC_SESSION, JobReport, MoveReport, ReportPhase
from crds.states import SourceStep
from nodeagent.ahead import AHEAD
from nodeagent.case import Case
from nodeagent.channel import Channel, Outgoing
from nodeagent.deadline import Deadline
from nodeagent.engine import PageWire, Sandbox
from nodeagent.errors import AgentError, MoveFailed, PeerLost, SandboxGone
from nodeagent.frames import Abort, End, FileSum, Hello, Ready, Refused, Running, images_size
from nodeagent.precopy import send_rounds
from nodeagent.shared import write_back
from nodeagent.space import Promise, make_fresh, release, reserve

log = logging.getLogger(__name__)

RETRY = 0.1  # seconds between two attempts to reach the destination
CAUGHT_UP = 0.005  # seconds between two looks whether all that is to go ahead has gone
FAREWELL = 0.5  # seconds to tell the destination why nothing more comes: the job may stand frozen meanwhile


@dataclass(frozen=True, slots=True)
class _Streamed:
    """All images are sent; ``frozen_for`` is the seconds from the freeze to the first of them."""

    files: list[FileSum]
    last_pid: int
    frozen_for: float

    @property
    def bytes(self) -> int:
        return images_size(self.files)


@dataclass(frozen=True, slots=True)
class _Ways:
    """To the destination: for images, and for memory that is to follow the job (None: it goes with the images)."""

    channel: Channel
    wire: PageWire | None
    parent: str | None
    """What went ahead of the job (pre-copy), seen from its images."""
    ahead: int
    """Bytes of memory that may go ahead, to be compared with the dump."""


async def send_job(case: Case, sandbox: Sandbox) -> Running | Refused:
    """From CONNECTING to the destination's answer; the record stands at SENT when it returns.

    Raises MoveFailed, EngineFailed, SandboxGone, OSError; PeerLost at SENT means that nobody knows yet.
    """
    order = case.held.order
    assert order is not None, f"job {case.key} leaves without an order"
    deadline = Deadline(order, case.parts.clock.now())
    with ExitStack() as held:
        async with deadline.kept("the job was measured"):
            memory = await _size(case)
            follows = order.mode == MigrationMode.POST_COPY
            wish = order.mode == MigrationMode.STOP
            promise, ahead = case.parts.room.promise_most(memory, restored=False, follows=follows, ahead=wish, held=held)
            channel, ready = await _connect(case, order, memory, ahead, deadline)
            held.callback(channel.close)
        async with deadline.kept("the freeze was prepared"):
            async with _telling_why(case, channel):
                await _check_obstacles(case)
                await case.parts.hooks.at("leave.connected", sandbox.copy)
                wire = PageWire(await case.parts.pages.reach(order, ready.pages)) if follows else None
                if wire is not None:
                    held.callback(wire.sock.close)
                parent = await _send_rounds(case, sandbox, channel, order, deadline)
                ways = _Ways(channel, wire, parent, memory if ready.ahead and ahead else 0)
                streamed = await _freeze_and_stream(case, sandbox, ways, promise, deadline)
                await case.advance(SourceStep.SENT, report=_report(case, SourceStep.SENT, streamed.bytes))
            deadline.doing("the end of its images was sent")
            await _send_end(case, channel, streamed)
        return await _verdict(case, channel)


async def _size(case: Case) -> int:
    """Bytes the images will take, roughly."""
    await case.measure()
    return case.usage.memory if case.usage else 0


async def _check_obstacles(case: Case) -> None:
    """The last look before the freeze. Raises MoveFailed naming what criu would stumble over, while the job still runs."""
    found = [each for each in await case.look_for_obstacles(thorough=True) if each.reason != EXEC_SESSION]
    if found:
        raise MoveFailed("; ".join(f"{obstacle.reason}: {obstacle.message}" for obstacle in found))


async def _connect(case: Case, order: MoveOrder, memory: int, ahead: bool, deadline: Deadline) -> tuple[Channel, Ready]:
    """Tries until the deadline above it strikes: the destination may not have read its placement yet."""
    told = ""
    deadline.doing(f"node/{order.destination} was being reached")
    while True:
        try:
            return await _greet(case, order, memory, ahead)
        except PeerLost as error:
            if str(error) != told:
                log.info("job %s: %s not reached yet: %s", case.key, order.destination, error)
                told = str(error)
                deadline.doing(f"node/{order.destination} was being reached: {told}")
        await asyncio.sleep(RETRY)


async def _greet(case: Case, order: MoveOrder, memory: int, ahead: bool) -> tuple[Channel, Ready]:
    """One attempt. Raises PeerLost (try again), MoveFailed (the destination does not want it)."""
    timing = case.parts.config.timing
    channel = await case.parts.exchange.dial(order.peer, node=order.destination, timeout=timing.connect)
    try:
        record = case.held
        hello = Hello(
            namespace=record.namespace,
            name=record.name,
            uid=record.uid,
            epoch=record.epoch,
            ticket=order.ticket,
            memory=memory,
            ahead=ahead,
        )
        await channel.send(hello, timeout=timing.connect)
        answer = await channel.receive(timeout=timing.hello + timing.answer)
        if isinstance(answer, Refused):
            raise MoveFailed(f"{order.destination} refused: {answer.reason}")
        if not isinstance(answer, Ready):
            raise MoveFailed(f"{order.destination} answered {answer.kind} instead of ready")
    except BaseException:
        channel.close()
        raise
    return channel, answer


@asynccontextmanager
async def _telling_why(case: Case, channel: Channel) -> AsyncIterator[None]:
    """Before SENT: whatever ends the move, the destination is told, so that its refusal names the true cause."""
    try:
        yield
    except (AgentError, OSError) as error:
        await _abort(channel, _why(case, str(error), error), case.parts.config.timing.connect)
        raise
    except asyncio.CancelledError:
        await _abort(channel, _why(case, "the move was called off, or its deadline has passed"), FAREWELL)
        raise


def _why(case: Case, otherwise: str, error: Exception | None = None) -> str:
    """For the destination. What looks like a failure of criu may be that there is nothing to dump any more."""
    ended = case.exit is not None or isinstance(error, SandboxGone)
    return "the job ended" if ended else " ".join(otherwise.split())


async def _send_rounds(case: Case, sandbox: Sandbox, channel: Channel, order: MoveOrder, deadline: Deadline) -> str | None:
    """Makes the directory of the images; with pre-copy sends memory ahead. Returns the parent of the last dump, if it has one."""
    images = case.images(sandbox.copy)
    await asyncio.to_thread(make_fresh, images)
    if order.mode != MigrationMode.PRE_COPY:
        return None
    return await send_rounds(case, sandbox, channel, images, deadline)


async def _freeze_and_stream(case: Case, sandbox: Sandbox, ways: _Ways, promise: Promise, deadline: Deadline) -> _Streamed:
    """All images are sent and the job stands frozen when it returns. The sender's thread runs before the freeze begins."""
    images, clock, first = case.images(sandbox.copy), case.parts.clock, list[float]()
    sender = ways.channel.send_images(images)
    sender.on_dump(lambda: first.append(clock.monotonic()))
    promise.came = lambda: sender.bytes
    sending = asyncio.create_task(sender.run(), name=f"send {case.key}")
    try:
        if ways.ahead:
            deadline.doing("its memory was sent ahead")
            await _send_ahead(case, sandbox, sender, sending, images / AHEAD, ways.ahead)
        deadline.doing("what it wrote was sent to the shared file system")
        await _write_back(case)  # while it runs, so that little is left for the freeze
        await case.advance(SourceStep.FREEZING, report=_report(case, SourceStep.FREEZING))
        await asyncio.to_thread(release, images)
        case.parts.room.fit()
        frozen_at = clock.monotonic()
        deadline.doing("the job was dumped")
        limit, wire = deadline.left, ways.wire
        dump = sandbox.serve(images, wire, deadline=limit) if wire else sandbox.dump(images, deadline=limit, parent=ways.parent)
        dumping = asyncio.create_task(dump, name=f"dump {case.key}")
        await _both_alive(dumping, sending)
        if wire is not None:
            wire.sock.close()  # criu has it: the other end has to hear when that is gone
        sender.dumped()
        deadline.doing("its images were sent")
        dumped_at, before = clock.monotonic(), sender.bytes
        last_pid = await sandbox.last_pid()
        await case.measure()
        await _write_back(case)
        files = await sending
        _tell_times(case, frozen_at, dumped_at, before, sender.bytes)
    except (AgentError, asyncio.CancelledError) as error:
        sender.end_early()  # at the end of a frame, so that the abort can follow
        await asyncio.wait({sending}, timeout=FAREWELL)
        if isinstance(error, PeerLost):
            raise _lost(case, error) from error
        raise
    finally:
        sending.cancel()
        await asyncio.wait({sending})
    await case.parts.hooks.at("leave.streamed", sandbox.copy)
    return _Streamed(files, last_pid, (first[0] if first else clock.monotonic()) - frozen_at)


async def _send_ahead(
    case: Case, sandbox: Sandbox, sender: Outgoing, sending: "asyncio.Task[list[FileSum]]", file: Path, most: int
) -> None:
    """While the job runs; then the sender knows what need not be sent any more."""
    began = case.parts.clock.monotonic()
    await sandbox.copy_ahead(file, most)
    await reserve(file.parent, most)
    while sender.bytes < file.stat().st_size and not sending.done():  # noqa: ASYNC110 - its thread counts, and tells nobody
        await asyncio.sleep(CAUGHT_UP)
    if sending.done():
        await sending  # raises why it ended early
    await sender.compare()
    log.info("job %s: %d bytes went ahead in %.0f ms", case.key, sender.bytes, (case.parts.clock.monotonic() - began) * 1000)
    await case.parts.hooks.at("leave.ahead", sandbox.copy)


async def _write_back(case: Case) -> None:
    """Other nodes read what the job has written when it returns. Raises MoveFailed."""
    try:
        await asyncio.to_thread(write_back, case.parts.config.shared)
    except OSError as error:
        raise MoveFailed(f"{error.filename}: {error.strerror}") from error


def _lost(case: Case, error: PeerLost) -> PeerLost:
    """In words that name the node."""
    order = case.held.order
    node = order.destination if order else "?"
    return PeerLost(f"node/{node} was lost before it had the whole job, because its agent died or the network broke: {error}")


def _tell_times(case: Case, frozen_at: float, dumped_at: float, before: int, total: int) -> None:
    """Where the freeze goes at this end."""
    dump, rest = (dumped_at - frozen_at) * 1000, (case.parts.clock.monotonic() - dumped_at) * 1000
    log.info("job %s: dump %.0f ms, %d of %d bytes streamed meanwhile, the rest in %.0f ms", case.key, dump, before, total, rest)


async def _both_alive(dumping: "asyncio.Task[None]", sending: "asyncio.Task[list[FileSum]]") -> None:
    """Waits for the dump; when the stream fails first, the dump is broken off, so that the job runs on."""
    try:
        await asyncio.wait({dumping, sending}, return_when=asyncio.FIRST_COMPLETED)
        if not dumping.done():
            await sending  # raises why it ended early
        await dumping
    finally:
        if not dumping.done():
            dumping.cancel()
            await asyncio.wait({dumping})


async def _send_end(case: Case, channel: Channel, streamed: _Streamed) -> None:
    """At SENT only: it is durable before the frame can be on its way."""
    end = End(
        files=streamed.files,
        last_pid=streamed.last_pid,
        frozen_for=streamed.frozen_for,
        cpu_seconds=case.cpu_seconds,
        started_at=case.held.started_at,
    )
    await channel.send(end, timeout=case.parts.config.timing.answer)
    await case.parts.hooks.at("leave.end_sent", case.held.copy_here)


async def _verdict(case: Case, channel: Channel) -> Running | Refused:
    """No time-out: a living destination decides, a dead one breaks the connection, and the placement may change any time."""
    answer = await channel.receive(timeout=None)
    if not isinstance(answer, Running | Refused):
        raise PeerLost(f"data channel: the destination of job {case.key} answered {answer.kind}: its decision is not known")
    await case.parts.hooks.at(f"leave.{answer.kind}", case.held.copy_here)
    return answer


async def _abort(channel: Channel, reason: str, timeout: float) -> None:
    """Best effort: a destination that gets no end frame never restores anyway."""
    try:
        await channel.send(Abort(reason=reason), timeout=timeout)
    except PeerLost as lost:
        log.info("the destination was not told: %s", lost)


def _report(case: Case, step: SourceStep, sent: int = 0) -> JobReport:
    order = case.held.order
    assert order is not None
    return case.report(ReportPhase.FROZEN, move=MoveReport(migration=order.migration, step=step, bytes=sent))
