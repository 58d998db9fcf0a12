"""From an agent's report to a job's status. Pure: the same report always gives the same status."""

from datetime import datetime

from crds.job import (
    COMPLETE,
    EXITED,
    FAILED,
    FINISHED,
    NODE_LOST,
    PROCESS_LOST,
    RUNNING,
    START_FAILED,
    STARTED,
    Job,
    JobPhase,
    JobStatus,
)
from crds.meta import Truth, set_condition
from crds.report import ENDED, JobReport, ReportPhase
from reconciler.controllers import migratable


def mirror(job: Job, report: JobReport | None, *, ready: bool, now: datetime, silence: str = "") -> Job:
    """A copy of the job with the status that follows from its node's report (None: none yet) and the node's readiness.

    ``silence`` says what is known of it while the node is not ready."""
    new = job.model_copy(deep=True)
    status = new.status
    status.observed_generation = job.metadata.generation
    if report is not None and report.phase not in (ReportPhase.ARRIVING, ReportPhase.LEFT, ReportPhase.ABSENT):
        _take_figures(status, report)
    if report is not None and report.phase in ENDED:
        _finish_by(new, report, now)
    elif not ready:
        _unknown(new, now, silence)
    elif report is None or report.phase == ReportPhase.STARTING:
        status.phase, status.message = JobPhase.STARTING, f"node/{status.node} is starting it"
    elif report.phase in (ReportPhase.RUNNING, ReportPhase.FROZEN):
        _running(new, report, now)
    return new


def fail(job: Job, reason: str, message: str, now: datetime) -> Job:
    """A copy of the job that ended without its node saying so."""
    new = job.model_copy(deep=True)
    _finish(new, JobPhase.FAILED, reason, message, now, now)
    return new


def only_figures_differ(old: JobStatus, new: JobStatus) -> bool:
    """Whether nothing changed but what changes all the time."""
    return old != new and old == new.model_copy(update={"cpu_seconds": old.cpu_seconds, "memory": old.memory})


def _take_figures(status: JobStatus, report: JobReport) -> None:
    status.started_at = status.started_at or report.started_at
    status.cpu_seconds = max(status.cpu_seconds, report.cpu_seconds)
    status.memory = report.memory


def _running(job: Job, report: JobReport, now: datetime) -> None:
    job.status.phase, job.status.message = JobPhase.RUNNING, ""
    job.status.started_at = job.status.started_at or report.started_at or now
    _set(job, RUNNING, True, STARTED, f"runs on node/{job.status.node}", now)
    migratable.note(job, report, now)


def _unknown(job: Job, now: datetime, silence: str) -> None:
    message = f"node/{job.status.node} does not answer: {silence or 'the job is where it was, its state is not known'}"
    job.status.phase, job.status.message = JobPhase.UNKNOWN, message
    _set(job, RUNNING, Truth.UNKNOWN, NODE_LOST, message, now)


def _finish_by(job: Job, report: JobReport, now: datetime) -> None:
    job.status.exit_code = report.exit_code
    phase = JobPhase.SUCCEEDED if report.phase == ReportPhase.SUCCEEDED else JobPhase.FAILED
    reason = report.reason or EXITED
    if report.phase == ReportPhase.LOST:
        reason = PROCESS_LOST
    elif report.phase == ReportPhase.FAILED and report.started_at is None:
        reason = START_FAILED
    message = report.message or f"exit code {report.exit_code}"
    _finish(job, phase, reason, message, report.finished_at or now, now)


def _finish(job: Job, phase: JobPhase, reason: str, message: str, finished_at: datetime, now: datetime) -> None:
    if phase not in FINISHED:
        raise AssertionError(f"{phase} is not an end")
    status = job.status
    status.phase, status.message, status.finished_at, status.memory = phase, message, finished_at, 0
    _set(job, RUNNING, False, reason, message, now)
    _set(job, COMPLETE if phase == JobPhase.SUCCEEDED else FAILED, True, reason, message, now)


def _set(job: Job, kind: str, status: bool | Truth, reason: str, message: str, now: datetime) -> None:
    job.status.conditions = set_condition(job.status.conditions, kind, status, reason, message, now, job.metadata.generation)
