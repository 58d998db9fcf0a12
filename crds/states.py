"""State tables as data: from each state, the states that may follow. Code asks ``check``; docs and tests read the tables.

The two move tables follow docs/architecture.md, "Moving a job". The destination's COMMITTED is the commit point: every failure
before it ends with the job going on at the source, every failure after it goes forward at the destination.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from crds.job import JobPhase
from crds.migration import MigrationPhase
from crds.report import ReportPhase
from crds.rollout import UpdateStep


class SourceStep(StrEnum):
    """Steps of the node a job leaves; journalled before their side effect."""

    CONNECTING = "Connecting"
    FREEZING = "Freezing"
    """criu dump --leave-stopped is under way or done; the end marker was not sent: resuming is safe."""
    SENT = "Sent"
    """The end marker may be out: only a refusal or a new placement lets the job go on here."""
    SERVING = "Serving"
    """Post-copy only: the job runs at the destination and was killed here; what is left of its memory is handed out."""
    RESUMED = "Resumed"
    """The job goes on here; the move failed."""
    GONE = "Gone"
    """The job runs at the destination; the copy here was killed."""


class DestinationStep(StrEnum):
    """Steps of the node a job comes to; journalled before their side effect."""

    PREPARING = "Preparing"
    RECEIVING = "Receiving"
    RESTORING = "Restoring"
    """criu restore --leave-stopped: nothing runs yet."""
    COMMITTING = "Committing"
    """The transaction on the claim may have happened: ask the claim before anything else."""
    COMMITTED = "Committed"
    """The commit point: only this copy may run."""
    FETCHING = "Fetching"
    """Post-copy only: the job runs here, and a part of its memory is still to come. Should it not come, the job is lost."""
    RUNNING = "Running"
    REFUSED = "Refused"


S = TypeVar("S", bound=StrEnum)

JOB: Mapping[JobPhase, frozenset[JobPhase]] = {
    JobPhase.PENDING: frozenset({JobPhase.STARTING, JobPhase.FAILED}),
    JobPhase.STARTING: frozenset({JobPhase.RUNNING, JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.UNKNOWN, JobPhase.PENDING}),
    JobPhase.RUNNING: frozenset({JobPhase.MOVING, JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.UNKNOWN, JobPhase.PENDING}),
    JobPhase.MOVING: frozenset({JobPhase.RUNNING, JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.UNKNOWN}),
    JobPhase.UNKNOWN: frozenset(
        {JobPhase.STARTING, JobPhase.RUNNING, JobPhase.MOVING, JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.PENDING}
    ),
    JobPhase.SUCCEEDED: frozenset(),
    JobPhase.FAILED: frozenset(),
}

MIGRATION: Mapping[MigrationPhase, frozenset[MigrationPhase]] = {
    MigrationPhase.PENDING: frozenset({MigrationPhase.MOVING, MigrationPhase.FAILED}),
    MigrationPhase.MOVING: frozenset({MigrationPhase.SUCCEEDED, MigrationPhase.FAILED}),
    MigrationPhase.SUCCEEDED: frozenset(),
    MigrationPhase.FAILED: frozenset(),
}

REPORT: Mapping[ReportPhase, frozenset[ReportPhase]] = {
    ReportPhase.STARTING: frozenset({ReportPhase.RUNNING, ReportPhase.SUCCEEDED, ReportPhase.FAILED, ReportPhase.LOST}),
    ReportPhase.RUNNING: frozenset({ReportPhase.FROZEN, ReportPhase.SUCCEEDED, ReportPhase.FAILED, ReportPhase.LOST}),
    ReportPhase.ARRIVING: frozenset({ReportPhase.RUNNING, ReportPhase.ABSENT, ReportPhase.LOST}),
    ReportPhase.FROZEN: frozenset(
        {ReportPhase.RUNNING, ReportPhase.LEFT, ReportPhase.SUCCEEDED, ReportPhase.FAILED, ReportPhase.LOST}
    ),
    ReportPhase.LEFT: frozenset({ReportPhase.ARRIVING}),
    ReportPhase.ABSENT: frozenset({ReportPhase.ARRIVING}),
    ReportPhase.SUCCEEDED: frozenset(),
    ReportPhase.FAILED: frozenset(),
    ReportPhase.LOST: frozenset(),
}

SOURCE_MOVE: Mapping[SourceStep, frozenset[SourceStep]] = {
    SourceStep.CONNECTING: frozenset({SourceStep.FREEZING, SourceStep.RESUMED}),
    SourceStep.FREEZING: frozenset({SourceStep.SENT, SourceStep.RESUMED}),
    SourceStep.SENT: frozenset({SourceStep.SERVING, SourceStep.GONE, SourceStep.RESUMED}),
    SourceStep.SERVING: frozenset({SourceStep.GONE}),
    SourceStep.RESUMED: frozenset(),
    SourceStep.GONE: frozenset(),
}

DESTINATION_MOVE: Mapping[DestinationStep, frozenset[DestinationStep]] = {
    DestinationStep.PREPARING: frozenset({DestinationStep.RECEIVING, DestinationStep.REFUSED}),
    DestinationStep.RECEIVING: frozenset({DestinationStep.RESTORING, DestinationStep.REFUSED}),
    DestinationStep.RESTORING: frozenset({DestinationStep.COMMITTING, DestinationStep.REFUSED}),
    DestinationStep.COMMITTING: frozenset({DestinationStep.COMMITTED, DestinationStep.REFUSED}),
    DestinationStep.COMMITTED: frozenset({DestinationStep.FETCHING, DestinationStep.RUNNING}),
    DestinationStep.FETCHING: frozenset({DestinationStep.RUNNING}),
    DestinationStep.RUNNING: frozenset(),
    DestinationStep.REFUSED: frozenset(),
}

UPDATE: Mapping[UpdateStep, frozenset[UpdateStep]] = {
    UpdateStep.DRAINING: frozenset({UpdateStep.RESTARTING, UpdateStep.KEPT}),
    UpdateStep.RESTARTING: frozenset(
        {UpdateStep.UPDATED, UpdateStep.REVERTING, UpdateStep.REVERTED, UpdateStep.STUCK, UpdateStep.KEPT}
    ),
    UpdateStep.REVERTING: frozenset({UpdateStep.REVERTED, UpdateStep.STUCK}),
    UpdateStep.UPDATED: frozenset(),
    UpdateStep.DEFERRED: frozenset(),
    UpdateStep.REVERTED: frozenset(),
    UpdateStep.STUCK: frozenset(),
    UpdateStep.KEPT: frozenset(),
}


def may_follow(table: Mapping[S, frozenset[S]], old: S, new: S) -> bool:
    """Whether the table allows the step; staying where one is always is allowed."""
    return old == new or new in table[old]
