"""Job: one ordinary program (with all its processes and threads) that MX runs somewhere and may move while it runs."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from crds.meta import Column, Model, Name, Resource, Status, Time
from crds.quantity import Cpu, Duration, Memory, human_memory
from crds.wording import shorten

SCHEDULED = "Scheduled"
RUNNING = "Running"
COMPLETE = "Complete"
FAILED = "Failed"

PLACED = "Placed"
NO_ROOM = "NoNodeFits"
EXITED = "Exited"
STARTED = "Started"
START_FAILED = "StartFailed"
PROCESS_LOST = "ProcessLost"
NODE_LOST = "NodeLost"

STOP_FINALIZER = "mx/stop"
"""Held until the job's node reported that no process of it is left."""


class JobPhase(StrEnum):
    """Where a job stands; which may follow which is in ``states.JOB``."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    MOVING = "Moving"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


FINISHED = frozenset({JobPhase.SUCCEEDED, JobPhase.FAILED})


class Resources(Model):
    """What the job is expected to want: for its first placement only; afterwards what it really uses counts."""

    cpu: Cpu | None = None
    """Cores; the Cluster's default when unset."""
    memory: Memory | None = None
    """Bytes; the Cluster's default when unset."""


class JobPlacement(Model):
    """Where the job may run."""

    node: Name | None = None
    """Node to start on; it may be moved away later unless pinned."""
    pinned: bool = False
    """Stay on that node."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels a node must have."""
    tolerations: list[str] = Field(default_factory=list)
    """Keys of taints that do not matter; "*" for all."""


class JobMigration(Model):
    """Whether the job may be moved."""

    allowed: bool = True
    """False: neither the balancer nor drain moves it."""


class JobSpec(Model):
    """What runs."""

    command: list[str] = Field(min_length=1)
    """Program and arguments; no shell unless you name one."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables beside PATH, HOME and MX_JOB."""
    workdir: str = "/shared"
    """Working directory; below /shared it is the same on all nodes."""
    resources: Resources = Field(default_factory=Resources)
    """What it is expected to want."""
    placement: JobPlacement = Field(default_factory=JobPlacement)
    """Where it may run."""
    migration: JobMigration = Field(default_factory=JobMigration)
    """Whether it may be moved."""
    termination_grace: Duration = 10.0
    """Between SIGTERM and SIGKILL when the job is deleted."""

    @field_validator("command")
    @classmethod
    def _is_text(cls, value: list[str]) -> list[str]:
        if any("\0" in word for word in value):
            raise ValueError("a program can be given no NUL characters")
        return value

    @field_validator("env")
    @classmethod
    def _are_variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not name or "=" in name or "\0" in name:
                raise ValueError(f'"{name}" is no name of a variable: it must not be empty nor contain "=" or NUL')
            if "\0" in text:
                raise ValueError(f"{name}: a program can be given no NUL characters")
        return value

    @field_validator("workdir")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        if not value.startswith("/") or "\0" in value:
            raise ValueError(f'"{value}" is no directory of a node: it must begin with "/", e.g. /shared/work')
        return value


class Move(Model):
    """One finished move of the job."""

    migration: str
    """Name of the Migration."""
    source: str
    """Node it left."""
    destination: str
    """Node it runs on since."""
    reason: str = ""
    """Why it moved."""
    bytes: int = 0
    """Memory image sent."""
    freeze_ms: float = 0.0
    """Milliseconds in which no instruction of it ran (CLOCK_REALTIME)."""
    time: Time
    """When it ran again."""


class JobStatus(Status):
    """What runs where."""

    phase: JobPhase = JobPhase.PENDING
    """Where it stands."""
    node: str | None = None
    """Node it runs (or ran last) on."""
    epoch: int = 0
    """Rises with every placement: only the highest may run."""
    reason: str = ""
    """Why it is where it is."""
    migration: str | None = None
    """Migration under way."""
    exit_code: int | None = None
    """Exit code of its first process; 128 + signal when a signal ended it."""
    message: str = ""
    """Detail to the phase."""
    started_at: Time | None = None
    """First start."""
    finished_at: Time | None = None
    """End."""
    cpu_seconds: float = 0.0
    """CPU time used on all nodes, seconds."""
    memory: Memory = 0
    """Resident bytes."""
    move_count: int = 0
    """Finished moves."""
    moves: list[Move] = Field(default_factory=list)
    """The last ten moves, newest last."""


class Job(Resource):
    """One program that MX runs somewhere."""

    KIND: ClassVar[str] = "Job"
    PLURAL: ClassVar[str] = "jobs"
    NAMESPACED: ClassVar[bool] = True
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("PHASE", lambda j: "Terminating" if j.metadata.deletion_timestamp else str(j.status.phase)),
        Column("NODE", lambda j: j.status.node or "-"),
        Column("MOVES", lambda j: str(j.status.move_count)),
        Column("EXIT", lambda j: "-" if j.status.exit_code is None else str(j.status.exit_code)),
        Column("MEMORY", lambda j: human_memory(j.status.memory) if j.status.memory else "-", wide=True),
        Column("REASON", lambda j: shorten(j.status.message or j.status.reason, 80) or "-", wide=True),
        Column("COMMAND", lambda j: " ".join(j.spec.command).replace("\n", " ")[:60], wide=True),
    )

    kind: Literal["Job"] = "Job"
    """Kind of the resource."""
    spec: JobSpec
    """Desired state."""
    status: JobStatus = Field(default_factory=JobStatus)
    """Observed state."""
