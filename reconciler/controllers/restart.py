"""What follows when a job failed or its node is lost: decided from its restart policy, purely.

    Never           nothing: it is for people to decide
    OnFailure       it starts anew
    FromCheckpoint  it goes on from its newest good checkpoint; without one it is for people to decide
After a failure of its own there are ``limit`` restarts, after growing pauses. The loss of a node is no fault of the job's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from crds.checkpoint import Checkpoint
from crds.job import FENCED, Job, RestartPolicy
from crds.report import JobReport, ReportPhase

LONGEST_PAUSE = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Restart:
    """It starts again in ``after`` seconds: from a checkpoint, or (None) anew. ``counts``: it was a failure of its own."""

    restore: Checkpoint | None
    after: float
    counts: bool
    why: str


@dataclass(frozen=True, slots=True)
class Leave:
    """It is for people to decide. ``why`` is empty when nothing else was asked for."""

    why: str


def pause(failures: int) -> float:
    """Seconds before the restart that follows the failure number ``failures``, which counts from 0: 1, 2, 4 … 60."""
    return min(LONGEST_PAUSE, 2.0 ** min(failures, 10))


def after_end(job: Job, report: JobReport, usable: Sequence[Checkpoint]) -> Restart | Leave:
    """It ended otherwise than with 0. ``usable``: checkpoints it could go on from, the newest first."""
    if report.phase == ReportPhase.LOST or report.reason == FENCED:
        return _restart(job, usable, after=pause(0), counts=False, why=report.message or "its node lost it")
    return _after_failure(job, usable, report.message or f"exit code {report.exit_code}")


def after_loss(job: Job, usable: Sequence[Checkpoint], why: str) -> Restart | Leave:
    """Its node is silent, and nothing of it runs there any more."""
    return _restart(job, usable, after=0.0, counts=False, why=why)


def after_restore(job: Job, report: JobReport, usable: Sequence[Checkpoint]) -> Restart | Leave:
    """It could not go on from a checkpoint. From one that is damaged nothing ever will, so the one before it is next."""
    about = report.restored
    if about is None:
        return Leave("its node says nothing about the checkpoint it was to go on from")
    why = f"checkpoint/{about.name}: {about.message}"
    if not about.damaged:
        return _after_failure(job, usable, why)
    others = [checkpoint for checkpoint in usable if checkpoint.name != about.name]
    plan = _restart(job, others, after=0.0, counts=False, why=why)
    return plan if isinstance(plan, Restart) or plan.why else Leave(why)


def _after_failure(job: Job, usable: Sequence[Checkpoint], why: str) -> Restart | Leave:
    done, limit = job.status.failures, job.spec.restart.limit
    if job.spec.restart.policy != RestartPolicy.NEVER and done >= limit:
        return Leave(f"{why}; it was restarted {done} times, and no more are allowed" if done else why)
    return _restart(job, usable, after=pause(done), counts=True, why=why)


def _restart(job: Job, usable: Sequence[Checkpoint], *, after: float, counts: bool, why: str) -> Restart | Leave:
    match job.spec.restart.policy:
        case RestartPolicy.NEVER:
            return Leave("")
        case RestartPolicy.ON_FAILURE:
            return Restart(None, after, counts, why)
        case RestartPolicy.FROM_CHECKPOINT:
            return Restart(usable[0], after, counts, why) if usable else Leave(f"{why}; it has no checkpoint to go on from")
