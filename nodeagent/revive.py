"""Letting a job go on from a checkpoint on this node.

The reconciler orders it only when nothing of the job can run anywhere. The record stands at RESTORE until the job is there,
restored and stopped; only then it says that the job is held here, and only after that the job runs. So whatever breaks off before
can be done again from the beginning: files are cut back to the same length, scratch directories are filled with the same content.
"""

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

from crds.job import RunAs
from crds.report import ReportPhase, RestoreReport
from nodeagent import archive, rollback
from nodeagent.case import Case, one_line
from nodeagent.checkpoint import despite_cancellation, inside, stoppable
from nodeagent.errors import AgentError, CheckpointDamaged, CheckpointFailed
from nodeagent.jobs import Placed, new_record
from nodeagent.journal import Stage
from nodeagent.openfiles import read_lengths
from nodeagent.space import make_fresh
from store.errors import Unavailable

log = logging.getLogger(__name__)

RETRY = 0.2  # seconds between two attempts to learn whether the order still stands
CUT = "cut"
"""Below the job's directory: what was cut off its files, by life."""
CUT_SECONDS = 60.0  # for cutting files on a slow file server


async def begin_restoring(case: Case, placed: Placed) -> None:
    """Journals what it goes on from; restoring is an activity of its own."""
    order = placed.placement.checkpoint
    if order is None:
        raise CheckpointFailed(
            f"job {case.key}: its placement says restore without a checkpoint: the reconciler has to write it anew"
        )
    await case.parts.ledger.remove_claim(case.key)
    case.failure = ""
    record = new_record(case, placed, Stage.RESTORE).model_copy(update={"checkpoint": order, "revision": placed.revision})
    case.record = record
    report = case.report(ReportPhase.ARRIVING, restored=RestoreReport(name=order.name))
    await case.begin(record.model_copy(update={"report": report}))


async def restore_job(case: Case, placed: Placed) -> None:
    """The activity: from RESTORE to HELD, or to an end that says why it cannot go on from this checkpoint."""
    order = case.held.checkpoint
    assert order is not None, f"job {case.key} has no checkpoint to go on from"
    try:
        said = await _restore(case, order.path, order.digest)
    except (AgentError, OSError, TimeoutError) as error:
        message, damaged = one_line(error), isinstance(error, CheckpointDamaged)
        log.error("job %s: does not go on from checkpoint %s: %s", case.key, order.name, message)
        restored = RestoreReport(name=order.name, ok=False, damaged=damaged, message=message)
        await case.forget(case.held.copy_here)
        report = case.report(ReportPhase.ABSENT, restored=restored, message=message, finished_at=case.parts.clock.now())
        await case.advance_decided(Stage.ENDED, report=report)
        return
    finally:
        await despite_cancellation(case.remove_images(case.held.copy_here))
    await _wait_until_ours(case, placed.revision)
    report = case.report(ReportPhase.RUNNING, restored=RestoreReport(name=order.name, ok=True, message=said))
    await case.advance(Stage.HELD, report=report)
    assert case.sandbox is not None
    await case.sandbox.resume()
    case.checked = True
    log.info("job %s: goes on from checkpoint %s; %s", case.key, order.name, said or "its files were as they had been")


async def _wait_until_ours(case: Case, revision: int) -> None:
    """Until it is known that the order still stands and we are not given up. Raises Conflict when it does not stand."""
    while True:
        try:
            await case.parts.ledger.confirm(case.key, revision)
            case.parts.fence.check()
            return
        except Unavailable as error:
            log.warning("job %s: restored, and stands still until etcd answers: %s", case.key, error)
            await asyncio.sleep(RETRY)


async def _restore(case: Case, path: str, digest: str) -> str:
    """Leaves it restored and stopped; returns what was cut off its files."""
    record, source = case.held, inside(case.directory, path)
    await case.forget(record.copy_here)
    images = case.images(record.copy_here)
    with case.parts.room.promise(await asyncio.to_thread(_size, source), restored=True):
        return await _fetch_and_restore(case, source, images, digest)


async def _fetch_and_restore(case: Case, source: Path, images: Path, digest: str) -> str:
    record = case.held
    await asyncio.to_thread(make_fresh, images)
    manifest = await stoppable(case, lambda stopped: archive.fetch(source, images, digest, stopped))
    if manifest.job_uid != record.uid:
        raise CheckpointDamaged(f"{source.name}: it is of another job")
    await case.parts.hooks.at("revive.fetched", record.copy_here)
    await case.begin(record.model_copy(update={"started_at": manifest.started_at, "base_cpu_seconds": manifest.cpu_seconds}))
    await asyncio.to_thread(archive.unpack_scratch, images, case.directory)
    said = await _roll_back(case, images)
    sandbox = await case.parts.engine.create(record.copy_here, record.network)
    case.hold(sandbox)
    await sandbox.expect()
    await sandbox.restore(images, last_pid=manifest.last_pid, deadline=case.parts.config.timing.restore)
    await case.parts.hooks.at("revive.restored", record.copy_here)
    return said


def _size(source: Path) -> int:
    try:
        return archive.size(source)
    except FileNotFoundError as error:
        raise CheckpointDamaged(f"{source.name}: its directory is not there any more") from error


# --- the job's files ---


async def _roll_back(case: Case, images: Path) -> str:
    """Cuts what the job has open for writing back to the length it had; says in one line what was cut."""
    files, user = read_lengths(images, case.parts.config.shared), case.held.spec.user
    if not files:
        return ""
    keep = case.directory / CUT / str(case.held.life)
    await asyncio.to_thread(_make_place, keep, user)
    as_user = [user.uid, user.gid, user.groups]
    answer = await _ask(json.dumps({"user": as_user, "keep": str(keep), "files": files}).encode())
    if "error" in answer:
        raise CheckpointDamaged(f"the job's files do not fit the checkpoint any more: {answer['error']}")
    cut = [f"{path} by {length} bytes (kept in {kept})" for path, length, kept in answer["cut"]]
    return f"cut back to the checkpoint: {'; '.join(cut)}" if cut else ""


def _make_place(keep: Path, user: RunAs) -> None:
    keep.mkdir(parents=True, exist_ok=True, mode=0o700)
    keep.chmod(0o700)
    os.chown(keep, user.uid, user.gid)


async def _ask(request: bytes) -> dict[str, list[tuple[str, int, str]]]:
    """Runs rollback.py, which becomes the job's user. CheckpointFailed when it does not answer.

    Had it to be started as that user, Python would fork instead of vfork, and gRPC's threads sometimes crash in such a child.
    """
    program = [sys.executable, "-ISE", str(Path(rollback.__file__))]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe, stderr=pipe, env={})
    try:
        async with asyncio.timeout(CUT_SECONDS):
            said, problem = await process.communicate(request)
    except TimeoutError:
        raise CheckpointFailed(f"the job's files could not be cut back within {CUT_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = problem.decode(errors="replace").strip().splitlines() or [f"the program ended with {process.returncode}, silently"]
        raise CheckpointFailed(f"the job's files could not be cut back: {lines[-1]}")
    answer: dict[str, list[tuple[str, int, str]]] = json.loads(said)
    return answer
