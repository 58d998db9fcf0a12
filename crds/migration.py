"""Migration: one move of one job, from the wish to its outcome; kept for a while as history."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from crds.job import MigrationMode
from crds.meta import Column, Model, Name, Resource, Status, Time
from crds.quantity import Duration, Memory

COMPLETE = "Complete"
FAILED = "Failed"

MOVED = "Moved"
REFUSED = "Refused"
TIMED_OUT = "DeadlineExceeded"
JOB_ENDED = "JobEnded"
JOB_NOT_RUNNING = "JobNotRunning"
JOB_NOT_FOUND = "JobNotFound"
NO_DESTINATION = "NoDestination"
SAME_NODE = "AlreadyThere"
NODE_NOT_READY = "NodeNotReady"
CANCELLED = "Cancelled"
NOT_MIGRATABLE = "NotMigratable"
OVER_BUDGET = "FreezeBudgetExceeded"


class MigrationPhase(StrEnum):
    """Where a move stands; which may follow which is in ``states.MIGRATION``."""

    PENDING = "Pending"
    MOVING = "Moving"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class MigrationSpec(Model):
    """Which job, where to, why."""

    job: Name
    """Job of the same namespace."""
    to: Name | None = None
    """Destination; chosen like a first placement when unset."""
    mode: MigrationMode | None = None
    """How; the job's own wish when unset."""
    cancelled: bool = False
    """True: call it off, unless it has reached its commit point."""
    reason: str = ""
    """Why, for people."""
    cause: str = ""
    """What it is for, of a move that the balancer asks for: load, memory, rotation, owner, room or home."""
    requested_by: str = "user"
    """user, drain or the policy's name."""
    deadline: Duration = 60.0
    """After that a move that has not reached its commit point is called off."""


class MigrationStatus(Status):
    """How the move goes."""

    phase: MigrationPhase = MigrationPhase.PENDING
    """Where it stands."""
    source: str | None = None
    """Node the job leaves."""
    destination: str | None = None
    """Node the job goes to."""
    epoch: int = 0
    """Epoch of the job's placement at the destination."""
    mode: MigrationMode | None = None
    """How it is moved, once that is decided."""
    mode_reason: str = ""
    """Why in this way."""
    predicted_freeze_ms: float | None = None
    """Milliseconds of freeze that were expected."""
    memory: Memory = 0
    """Resident bytes of the job when the move began."""
    bytes: int = 0
    """Images sent: all the memory, or (post-copy) what the job could not begin without."""
    frozen_bytes: int = 0
    """Of these, what was sent while the job stood still: less than all in a pre-copy."""
    freeze_ms: float | None = None
    """Milliseconds in which no instruction of the job ran (CLOCK_REALTIME)."""
    started_at: Time | None = None
    """When the placements were changed."""
    finished_at: Time | None = None
    """When the outcome was known."""
    message: str = ""
    """Outcome in one line."""


def _ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.0f}ms"


class Migration(Resource):
    """One move of one job."""

    KIND: ClassVar[str] = "Migration"
    PLURAL: ClassVar[str] = "migrations"
    SHORT: ClassVar[tuple[str, ...]] = ("mig",)
    NAMESPACED: ClassVar[bool] = True
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("JOB", lambda m: m.spec.job),
        Column("PHASE", lambda m: str(m.status.phase)),
        Column("FROM", lambda m: m.status.source or "-"),
        Column("TO", lambda m: m.status.destination or m.spec.to or "-"),
        Column("MODE", lambda m: str(m.status.mode or m.spec.mode or "-"), wide=True),
        Column("PREDICTED", lambda m: _ms(m.status.predicted_freeze_ms), wide=True),
        Column("FREEZE", lambda m: _ms(m.status.freeze_ms)),
        Column("BY", lambda m: m.spec.requested_by, wide=True),
        Column("CAUSE", lambda m: m.spec.cause or "-", wide=True),
        Column("REASON", lambda m: m.spec.reason or "-", wide=True),
        Column("MESSAGE", lambda m: m.status.message or "-", wide=True),
    )

    kind: Literal["Migration"] = "Migration"
    """Kind of the resource."""
    spec: MigrationSpec
    """Desired state."""
    status: MigrationStatus = Field(default_factory=MigrationStatus)
    """Observed state."""
