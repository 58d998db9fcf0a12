"""What is done with a job that is not on its way: start, hold, end, stop, and what follows when something of it is missing.

Each function is one action of decide.py: it may be broken off anywhere, by an error or the agent's death, and done again.
"""

import asyncio
import logging
import signal
from dataclasses import dataclass

from crds.job import FENCED, RestartPolicy
from crds.placement import Placement, Role
from crds.report import JobReport, MoveReport, ReportPhase
from crds.states import DestinationStep
from nodeagent.case import Case, one_line
from nodeagent.engine import Exit, Network, Sandbox
from nodeagent.errors import AgentError, EngineFailed, SandboxGone, StartFailed
from nodeagent.jobdir import remove_all, remove_scratch
from nodeagent.journal import Record, Stage

log = logging.getLogger(__name__)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KILLED = "killed by its node, which had lost touch with the cluster (fencing: kill)"
EMPTY = 1.0  # seconds in which an adopted sandbox without processes may still tell an exit


@dataclass(frozen=True, slots=True)
class Placed:
    """A placement and its mod_revision."""

    placement: Placement
    revision: int


def new_record(case: Case, placed: Placed, step: Stage, report: JobReport | None = None) -> Record:
    """The first record of a job that is placed here."""
    namespace, name = case.key.split("/")
    placement = placed.placement
    return Record(
        namespace=namespace,
        name=name,
        uid=placement.uid,
        epoch=placement.epoch,
        copy_epoch=placement.epoch,
        life=placement.life,
        step=step,
        spec=placement.spec,
        network=_network(placement),
        report=report,
    )


def _network(placement: Placement) -> Network | None:
    if placement.address is None or placement.mac is None:
        return None
    return Network(placement.address, placement.mac, placement.gateway)


async def start(case: Case, placed: Placed) -> None:
    """Exactly once: the report, created only if there is none, is the intent; STARTING is journalled before the process is made.

    Who finds an intent of his own at START was stopped in between, and starts; at STARTING what is there counts.
    """
    if case.record is None:
        started_at = case.parts.clock.now()
        record = new_record(case, placed, Stage.START).model_copy(update={"started_at": started_at})
        await case.begin(record)
    ledger = case.parts.ledger
    if case.held.at == Stage.STARTING or (ledger.stored(case.key) is not None and not case.intent and await _was_begun(case)):
        await _judge(case)
        return
    case.intent = True
    stands = not await ledger.create(case.key, case.report(ReportPhase.STARTING), placed.revision)
    await case.parts.hooks.at("start.intent", case.held.copy_here)
    found = ledger.stored(case.key)
    if stands and found is not None and found.report is not None and found.report.phase != ReportPhase.STARTING:
        await _judge(case)
        return
    case.parts.fence.check()
    case.intent = False
    await _create_and_start(case)


async def _create_and_start(case: Case) -> None:
    record = case.held
    try:
        if record.life:
            await remove_scratch(case.directory)  # a former life's
        sandbox = await case.parts.engine.create(record.copy_here, record.network)
        await case.parts.hooks.at("start.created", record.copy_here)
        await case.advance(Stage.STARTING)
        await sandbox.start(record.spec, environment(record))
    except StartFailed as error:
        await _finish(case, ReportPhase.FAILED, one_line(error), exit_code=error.exit_code)
        return
    except (EngineFailed, SandboxGone) as error:
        await _finish(case, ReportPhase.FAILED, f"could not be started: {one_line(error)}")
        return
    await case.parts.hooks.at("start.started", record.copy_here)
    case.hold(sandbox)
    await case.advance_decided(Stage.HELD, report=case.report(ReportPhase.RUNNING))


def environment(record: Record) -> dict[str, str]:
    """What the job sees; its own variables win. HOME is the working directory: the same on all nodes."""
    return {"PATH": PATH, "HOME": record.spec.workdir, "MX_JOB": record.key, **record.spec.env}


async def _was_begun(case: Case) -> bool:
    """Whether a process may have been made, though the journal says START: another version of the agent was less exact."""
    found = case.parts.ledger.stored(case.key)
    if found is None or found.report is None or found.report.phase != ReportPhase.STARTING:
        return True
    sandbox = await case.adopt()
    if sandbox is not None and await _has_job(case, sandbox):
        return True
    case.release()
    return False


async def _judge(case: Case) -> None:
    """A former life of this agent wanted to start it: whatever is there now counts."""
    sandbox = await case.adopt()
    if sandbox is None or not await _has_job(case, sandbox):
        await _finish(case, ReportPhase.LOST, "it was being started when the agent died; what is left of it is gone")
    else:
        await case.advance_decided(Stage.HELD, report=case.report(ReportPhase.RUNNING))


async def _has_job(case: Case, sandbox: Sandbox) -> bool:
    """Whether a process of the job lives in the sandbox, or its exit is known."""
    try:
        if (await sandbox.usage()).processes > 0:
            return True
    except AgentError as error:
        log.debug("job %s: use is not known: %s", case.key, error)
    try:
        async with asyncio.timeout(EMPTY):
            await sandbox.wait_exit()
    except (TimeoutError, SandboxGone):
        return False
    return True


async def hold(case: Case, placed: Placed | None) -> None:
    """It runs here: watched, not frozen, reported under the placement's epoch. Without a placement only what is local."""
    sandbox = await case.adopt()
    if sandbox is None:
        case.lost("it was running here, and is gone without an exit code")
        return
    if not case.checked and case.exit is None:
        await _settle(case, sandbox)
    if placed is None:
        return
    record, epoch = case.held, placed.placement.epoch
    if record.epoch != epoch:
        report = case.report(ReportPhase.RUNNING, epoch=epoch)
        await case.advance_decided(record.at, epoch=epoch, report=report)
    if placed.placement.role == Role.RUN:
        await case.parts.ledger.remove_claim(case.key)


async def _settle(case: Case, sandbox: Sandbox) -> None:
    """Once: a dead agent may have journalled that it runs, and not have come to it. Its images are of no use any more."""
    try:
        if await sandbox.frozen():
            await sandbox.resume()
    except SandboxGone as error:
        log.debug("job %s has ended meanwhile: %s", case.key, error)  # the watch for its exit tells how
    await case.remove_images(case.held.copy_here)
    case.checked = True


async def thaw(case: Case, placed: Placed | None) -> None:
    """It stands still since the node lost touch. It may go on only as long as we are known, and the placement is what we think."""
    sandbox = await case.adopt()
    if sandbox is None:
        case.fenced = False
        return
    await case.parts.ledger.confirm(case.key, placed.revision if placed else 0)
    case.parts.fence.check()
    await sandbox.thaw()
    await case.parts.fence.act()  # should we have been stopped ourselves just before that
    case.fenced = await sandbox.fenced()
    log.info("job %s: goes on: it still is this node's", case.key)
    case.changed()


async def end(case: Case, placed: Placed | None) -> None:
    """It ended by itself."""
    ended = case.exit
    await case.measure()
    epoch = placed.placement.epoch if placed else case.held.epoch
    if isinstance(ended, Exit):
        phase = ReportPhase.SUCCEEDED if ended.code == 0 else ReportPhase.FAILED
        said = KILLED if ended.fenced else "" if ended.code == 0 else f"exit code {ended.code}"
        await _finish(case, phase, said, ended, epoch=epoch)
    else:
        await _finish(case, ReportPhase.LOST, _why_gone(case, ended), epoch=epoch)


def _why_gone(case: Case, ended: SandboxGone | None) -> str:
    order = case.held.order
    why = one_line(ended) if ended else "it is gone"
    if case.held.at == DestinationStep.FETCHING and order is not None:
        return f"lost while its memory was to follow it from node/{order.source}: {why}"
    return why


async def _finish(
    case: Case, phase: ReportPhase, message: str, ended: Exit | None = None, *, exit_code: int | None = None, epoch: int = 0
) -> None:
    record = case.held
    old = record.report.move if record.report else None
    came = {"ok": True} if record.at == DestinationStep.FETCHING else {"ok": False, "message": "the job ended before it was moved"}
    move = old.model_copy(update=came) if old and old.ok is None else None
    report = case.report(
        phase,
        move=move,
        message=message,
        epoch=epoch or record.epoch,
        exit_code=ended.code if ended else exit_code,
        reason=FENCED if ended and ended.fenced else "",
        finished_at=ended.time if ended else case.parts.clock.now(),
    )
    await case.advance(Stage.ENDED, report=report, epoch=epoch or record.epoch)


async def keep(case: Case, placed: Placed) -> None:
    """It ended: the report stays, its processes' remains go, its log stays until the job is deleted."""
    record, epoch = case.held, placed.placement.epoch
    if record.epoch != epoch:
        report = record.report.model_copy(update={"epoch": epoch}) if record.report else None
        await case.advance_decided(record.at, epoch=epoch, report=report)
    if placed.placement.role == Role.RUN:  # it may have ended as soon as it had come
        await case.parts.ledger.remove_claim(case.key)
    if not case.tidied:
        await case.forget(record.copy_here)
        if record.spec.restart.policy == RestartPolicy.NEVER:  # otherwise another node may use them by now
            await remove_scratch(case.directory)
        case.tidied = True


async def inherit(case: Case, placed: Placed) -> None:
    """Takes the directory of a deleted job that no node has: when the placement goes, ``stop`` removes it."""
    record = case.record = new_record(case, placed, Stage.ENDED)
    report = case.report(ReportPhase.ABSENT, message="its directory is to be removed", finished_at=case.parts.clock.now())
    await case.begin(record.model_copy(update={"report": report}))


async def stop(case: Case) -> None:
    """The job was deleted: SIGTERM, its grace, SIGKILL; then nothing of it stays, here or on the shared file system."""
    record = case.held
    sandbox = await case.adopt()
    await case.parts.hooks.at("stop.before", record.copy_here)
    if sandbox is not None and case.exit is None:
        await _terminate(case, sandbox, record.spec.termination_grace)
    await case.forget(record.copy_here)
    await remove_all(case.directory)
    await case.parts.hooks.at("stop.killed", record.copy_here)
    await case.parts.ledger.remove(case.key)
    await case.drop()
    log.info("job %s: stopped and removed", case.key)


async def _terminate(case: Case, sandbox: Sandbox, grace: float) -> None:
    """``grace`` in seconds. Whoever is left is killed by the caller."""
    try:
        if await sandbox.frozen():
            await sandbox.resume()  # a stopped process never sees SIGTERM
        await sandbox.signal(signal.SIGTERM)
        async with asyncio.timeout(grace):
            await sandbox.wait_exit()
    except TimeoutError:
        log.info("job %s: not ended %.0f s after SIGTERM, killing it", case.key, grace)
    except (SandboxGone, EngineFailed) as error:
        log.info("job %s: could not be asked to end, killing it: %s", case.key, error)


async def lose(case: Case, placed: Placed) -> None:
    """The placement says that it is here, and it is not: say so, never start it."""
    message = f"node/{case.parts.config.node} was told that it is here, but it is not"
    report = JobReport(
        uid=placed.placement.uid,
        epoch=placed.placement.epoch,
        life=placed.placement.life,
        phase=ReportPhase.LOST,
        boot_id=case.parts.boot_id,
        message=message,
        finished_at=case.parts.clock.now(),
        move=_unfinished(case),
    )
    old = case.record
    record = old or new_record(case, placed, Stage.ENDED)
    await case.begin(record.model_copy(update={"step": str(Stage.ENDED), "epoch": placed.placement.epoch, "report": report}))


def _unfinished(case: Case) -> MoveReport | None:
    return case.record.report.move if case.record and case.record.report else None


async def clear(case: Case) -> None:
    """What stands in etcd of a job that is neither placed nor recorded here."""
    await case.parts.ledger.remove(case.key)
    case.changed()
