"""Job: one ordinary program (with all its processes and threads) that MX runs somewhere and may move while it runs."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, field_validator

from crds.meta import Column, Model, Name, Resource, Status, Time
from crds.quantity import Cpu, Duration, Memory, human_memory
from crds.wording import shorten

SCHEDULED = "Scheduled"
MIGRATABLE = "Migratable"
RUNNING = "Running"
COMPLETE = "Complete"
FAILED = "Failed"

PLACED = "Placed"
NO_ROOM = "NoNodeFits"
NO_ADDRESS = "NoAddress"
EXITED = "Exited"
STARTED = "Started"
START_FAILED = "StartFailed"
PROCESS_LOST = "ProcessLost"
NODE_LOST = "NodeLost"
FENCED = "Fenced"
RESTARTING = "Restarting"
NO_CHECKPOINT = "NoCheckpoint"

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


Limit = Literal[
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nofile", "nproc", "rss", "rtprio", "sigpending", "stack"
]


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
    home: Name | None = None
    """Node it belongs to: it goes back there when that costs nobody anything, and is no guest there."""
    near: list[Name] = Field(default_factory=list)
    """Jobs of the same namespace that it talks to: among equally good nodes it goes where they are."""


class MigrationMode(StrEnum):
    """How the memory of a job gets from node to node."""

    AUTO = "auto"
    """The mode whose predicted freeze fits the budget; stop when all do."""
    STOP = "stop"
    """Freeze, copy, continue."""
    POST_COPY = "post-copy"
    """Freeze, continue at the destination, copy what is touched first. For jobs that are mostly idle."""
    PRE_COPY = "pre-copy"
    """Copy while it runs, again what was written meanwhile, then freeze. Where the kernel tracks written pages."""


class JobMigration(Model):
    """Whether and how the job may be moved."""

    allowed: bool = True
    """False: neither the balancer nor drain moves it."""
    io_uring: bool = True
    """False: the job finds a kernel without io_uring, so that programs that would use it, such as node.js, can be moved."""
    mode: MigrationMode = MigrationMode.AUTO
    """For moves that do not name a mode themselves."""
    freeze_budget: Duration | None = None
    """How long a move may keep it from running."""
    hard_budget: bool = False
    """True: a move whose predicted freeze does not fit the budget is refused; otherwise the shortest is taken."""


class NetworkMode(StrEnum):
    """Whose network the job uses."""

    HOST = "host"
    """That of the node it runs on."""
    OWN = "own"
    """A network namespace with an address of its own, which moves with the job."""


class JobNetwork(Model):
    """The job's network."""

    mode: NetworkMode = NetworkMode.HOST
    """host: the node's. own: an address from the cluster's job range and a fixed MAC, which move with the job."""


class RunAs(Model):
    """Whom the job runs as: numbers, because nodes need not know the names."""

    uid: int = Field(default=0, ge=0, lt=2**32 - 1)
    """User."""
    gid: int = Field(default=0, ge=0, lt=2**32 - 1)
    """Group."""
    groups: list[Annotated[int, Field(ge=0, lt=2**32 - 1)]] = Field(default_factory=list)
    """Further groups."""


class Stdio(Model):
    """What the job's standard input and output are."""

    stdin: bool = False
    """True: whoever is attached writes to it; otherwise it is empty."""
    tty: bool = False
    """True: a terminal of its own."""
    hold: bool = False
    """True: its output waits for the first client, half a minute at most, so that this one misses nothing."""
    rows: int = Field(default=24, ge=1, lt=1 << 15)
    """Height of the terminal until a client says another."""
    columns: int = Field(default=80, ge=1, lt=1 << 15)
    """Width of the terminal until a client says another."""


class JobCheckpoint(Model):
    """When checkpoints of the job are taken by themselves."""

    interval: Duration | None = None
    """Between two checkpoints; none are taken by themselves when unset."""
    keep: int = Field(default=2, ge=1, le=100)
    """The newest so many are kept."""


class RestartPolicy(StrEnum):
    """What follows when the job failed or its node is lost."""

    NEVER = "Never"
    """Nothing: it is for people to decide."""
    ON_FAILURE = "OnFailure"
    """It is started anew."""
    FROM_CHECKPOINT = "FromCheckpoint"
    """It goes on from its newest good checkpoint; when it has none it is left to people."""


class JobRestart(Model):
    """What follows when the job failed or its node is lost."""

    policy: RestartPolicy = RestartPolicy.NEVER
    """Never, OnFailure or FromCheckpoint."""
    limit: int = Field(default=5, ge=0)
    """At most so many restarts after a failure of its own; those after the loss of a node do not count."""


class Fencing(StrEnum):
    """What a node does with its jobs when it lost touch with the cluster, before anybody may start them elsewhere."""

    FREEZE = "freeze"
    """They stand still until the node is heard again and they still are its own."""
    KILL = "kill"
    """They are ended."""
    KEEP = "keep"
    """They run on; such a job is never started elsewhere while its node is silent."""


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
    """Whether and how it may be moved."""
    network: JobNetwork = Field(default_factory=JobNetwork)
    """The node's network, or one of its own that moves along."""
    user: RunAs = Field(default_factory=RunAs)
    """Whom it runs as."""
    limits: dict[Limit, Annotated[int, Field(ge=-1)]] = Field(default_factory=dict)
    """Resource limits by their names in prlimit(1), soft and hard alike, e.g. nofile: 4096; -1 is unlimited."""
    priority: int = Field(default=0, ge=-1000, le=1000)
    """Of two jobs that could move, or would have to, the one with the higher number is served first."""
    nice: int = Field(default=0, ge=-20, le=19)
    """Its nice value."""
    umask: Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3}$")] = "022"
    """Its umask, octal."""
    stdio: Stdio = Field(default_factory=Stdio)
    """Standard input and terminal."""
    checkpoint: JobCheckpoint = Field(default_factory=JobCheckpoint)
    """When checkpoints are taken by themselves."""
    restart: JobRestart = Field(default_factory=JobRestart)
    """What follows when it failed or its node is lost."""
    fencing: Fencing | None = None
    """What its node does with it when it lost touch with the cluster; the Cluster's when unset."""
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
    mode: str = "stop"
    """How it was moved."""
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
    address: str | None = None
    """Its own address, when it has a network of its own."""
    mac: str | None = None
    """The hardware address that belongs to it."""
    names: list[str] = Field(default_factory=list)
    """What nodes and jobs call that address."""
    checkpoint: str | None = None
    """Newest good Checkpoint."""
    life: int = 0
    """Rises with every attempt to start it anew or to let it go on from a checkpoint."""
    restarts: int = 0
    """Times it was started again, or went on from a checkpoint."""
    failures: int = 0
    """Restarts that followed a failure of its own; the restart policy's limit is for these."""
    restart_at: Time | None = None
    """Pending: not before."""
    restore: str | None = None
    """Pending, or starting: the Checkpoint from which it goes on."""
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
        Column("RESTARTS", lambda j: str(j.status.restarts), wide=True),
        Column("EXIT", lambda j: "-" if j.status.exit_code is None else str(j.status.exit_code)),
        Column("ADDRESS", lambda j: j.status.address or "-", wide=True),
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
