"""Taking a checkpoint: the job stands still while it is dumped into memory, and runs on while that is copied to shared storage.

The record stays where it is: that the job runs here. So an agent that dies in the middle lets it run on when it comes back
(jobs.hold ends criu and resumes what stands frozen), finds the order in the placement and no word of it in its report, and takes
the checkpoint anew. What was half-written has another name and is removed then.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from crds.placement import CheckpointOrder, Placement, Role
from crds.report import CheckpointReport, JobReport
from nodeagent import archive
from nodeagent.case import Case, one_line
from nodeagent.engine import Sandbox
from nodeagent.errors import AgentError, CheckpointFailed
from nodeagent.jobdir import CHECKPOINTS, remove_tree
from nodeagent.jobs import Placed
from nodeagent.openfiles import write_lengths
from nodeagent.shared import write_back
from nodeagent.space import SLACK, make_fresh
from nodeagent.stream import in_thread

log = logging.getLogger(__name__)

PATIENCE = 120.0  # seconds for an order without a deadline
T = TypeVar("T")


def is_due(placement: Placement, report: JobReport | None) -> bool:
    """Whether the placement orders one of which the report says nothing."""
    order = placement.checkpoint
    if order is None or placement.role != Role.RUN:
        return False
    return report is None or report.checkpoint is None or report.checkpoint.name != order.name


async def take(case: Case, placed: Placed) -> None:
    """The activity: takes it, and says how that went. Never raises for a checkpoint that cannot be taken."""
    order = placed.placement.checkpoint
    assert order is not None, f"job {case.key} has no checkpoint to take"
    try:
        said = await _take(case, order)
    except (AgentError, OSError, TimeoutError) as error:
        log.warning("job %s: no checkpoint %s: %s", case.key, order.name, one_line(error))
        said = CheckpointReport(name=order.name, ok=False, message=one_line(error))
    finally:
        await despite_cancellation(case.remove_images(case.held.copy_here))
    report = case.held.report
    if report is not None:
        await case.advance_decided(case.held.at, report=report.model_copy(update={"checkpoint": said}))


async def _take(case: Case, order: CheckpointOrder) -> CheckpointReport:
    sandbox = await case.adopt()
    if sandbox is None or case.exit is not None:
        raise CheckpointFailed("the job has ended")
    target = inside(case.directory, order.path)
    images = case.images(sandbox.copy)
    left = (order.deadline - case.parts.clock.now()).total_seconds() if order.deadline else PATIENCE
    try:
        async with asyncio.timeout(left):
            with case.parts.room.promise(await _size(case), restored=False):
                await asyncio.to_thread(archive.remove_partial, target.parent)
                await asyncio.to_thread(make_fresh, images)
                freeze, last_pid = await _freeze(case, sandbox, images, left)
                await case.parts.hooks.at("checkpoint.frozen", sandbox.copy)
                digest, size = await _store(case, order, images, target, last_pid)
    except TimeoutError:
        raise CheckpointFailed(f"not done within {left:.0f} s") from None
    await case.parts.hooks.at("checkpoint.stored", sandbox.copy)
    log.info("job %s: checkpoint %s, %d bytes, frozen %.0f ms", case.key, order.name, size, freeze * 1000)
    return CheckpointReport(name=order.name, ok=True, bytes=size, digest=digest, freeze_ms=round(freeze * 1000, 1))


async def _size(case: Case) -> int:
    """Bytes it will take, roughly. CheckpointFailed when the shared file system has no room for them."""
    await case.measure()
    memory = case.usage.memory if case.usage else 0
    scratch = await asyncio.to_thread(archive.scratch_size, case.directory)
    case.directory.mkdir(parents=True, exist_ok=True)
    archive.check_space(case.directory, memory + scratch + SLACK)
    return memory + scratch


async def _freeze(case: Case, sandbox: Sandbox, images: Path, left: float) -> tuple[float, int]:
    """Seconds in which the job stood still, and its last PID. However it ends, the job runs on."""
    frozen_at = case.parts.clock.monotonic()
    case.checked = False
    try:
        await sandbox.dump(images, deadline=left)
        last_pid = await sandbox.last_pid()
        await asyncio.to_thread(write_back, case.parts.config.shared)  # what is lost with this node would be missing then
        await asyncio.to_thread(write_lengths, images, case.parts.config.shared)
        await asyncio.to_thread(archive.pack_scratch, case.directory, images)
    finally:
        await despite_cancellation(sandbox.resume())
    case.checked = True
    return case.parts.clock.monotonic() - frozen_at, last_pid


async def _store(case: Case, order: CheckpointOrder, images: Path, target: Path, last_pid: int) -> tuple[str, int]:
    await case.measure()
    manifest = archive.Manifest(
        job_uid=case.held.uid,
        name=order.name,
        last_pid=last_pid,
        cpu_seconds=case.cpu_seconds,
        started_at=case.held.started_at,
        files=[],
    )
    owner = case.held.spec.user
    return await stoppable(case, lambda stopped: archive.store(images, target, manifest, owner, stopped))


async def discard(case: Case, paths: list[str]) -> None:
    """Removes checkpoints that are not wanted any more, and says so. Raises OSError."""
    report = case.held.report
    if report is None or report.discarded == paths:
        return
    for path in paths:
        await asyncio.to_thread(remove_tree, inside(case.directory, path))
    await case.advance_decided(case.held.at, report=report.model_copy(update={"discarded": paths}))


def inside(directory: Path, path: str) -> Path:
    """A checkpoint's directory. CheckpointFailed for a path that leads anywhere else."""
    target = directory / path
    if target.parent != directory / CHECKPOINTS or target.name in ("", ".", ".."):
        raise CheckpointFailed(f'"{path}" is no directory of a checkpoint: the reconciler has to write the placement anew')
    return target


async def stoppable(case: Case, work: Callable[[archive.Stopped], T]) -> T:
    """Runs blocking work in a thread; a cancellation tells it to stop, and waits for that."""
    stop = threading.Event()
    return await in_thread(case.parts.copies, lambda: work(stop.is_set), stop.set)


async def despite_cancellation(work: Coroutine[Any, Any, None]) -> None:
    """Waits for ``work`` to its end even when we are cancelled meanwhile, and is cancelled then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
