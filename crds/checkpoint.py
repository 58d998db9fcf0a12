"""Checkpoint: one state of one job on the shared file system, from which it can go on after its node is lost."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from crds.meta import Column, Model, Name, Resource, Status, Time
from crds.quantity import Duration, human_memory

READY = "Ready"
TAKEN = "Taken"
NOT_TAKEN = "NotTaken"
DAMAGED = "Damaged"
JOB_ENDED = "JobEnded"
JOB_NOT_FOUND = "JobNotFound"
TIMED_OUT = "DeadlineExceeded"

FILES_FINALIZER = "mx/files"
"""Held until a node removed the files."""
BY_INTERVAL = "interval"
"""requestedBy of those that are taken by themselves."""


class CheckpointPhase(StrEnum):
    """Where a checkpoint stands."""

    PENDING = "Pending"
    TAKING = "Taking"
    READY = "Ready"
    FAILED = "Failed"


class CheckpointSpec(Model):
    """Which job."""

    job: Name
    """Job of the same namespace."""
    reason: str = ""
    """Why, for people."""
    requested_by: str = "user"
    """user, or interval."""
    deadline: Duration = 120.0
    """After that a checkpoint that is not there has failed."""


class CheckpointStatus(Status):
    """What became of it."""

    phase: CheckpointPhase = CheckpointPhase.PENDING
    """Where it stands."""
    job_uid: str = ""
    """uid of the Job it is of."""
    node: str | None = None
    """Node that took it."""
    epoch: int = 0
    """Epoch of the job when it was taken."""
    path: str = ""
    """Its directory, below the job's own."""
    digest: str = ""
    """What its manifest hashes to: nothing else is ever restored."""
    bytes: int = 0
    """Size of its files."""
    freeze_ms: float | None = None
    """Milliseconds in which no instruction of the job ran."""
    finished_at: Time | None = None
    """When it was there, or had failed."""
    message: str = ""
    """What failed, in one line."""


class Checkpoint(Resource):
    """One state of one job on the shared file system."""

    KIND: ClassVar[str] = "Checkpoint"
    PLURAL: ClassVar[str] = "checkpoints"
    SHORT: ClassVar[tuple[str, ...]] = ("cp",)
    NAMESPACED: ClassVar[bool] = True
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("JOB", lambda c: c.spec.job),
        Column("PHASE", lambda c: str(c.status.phase)),
        Column("NODE", lambda c: c.status.node or "-"),
        Column("SIZE", lambda c: human_memory(c.status.bytes) if c.status.bytes else "-"),
        Column("FREEZE", lambda c: "-" if c.status.freeze_ms is None else f"{c.status.freeze_ms:.0f}ms"),
        Column("BY", lambda c: c.spec.requested_by, wide=True),
        Column("MESSAGE", lambda c: c.status.message or "-", wide=True),
    )

    kind: Literal["Checkpoint"] = "Checkpoint"
    """Kind of the resource."""
    spec: CheckpointSpec
    """Desired state."""
    status: CheckpointStatus = Field(default_factory=CheckpointStatus)
    """Observed state."""
