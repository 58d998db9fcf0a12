"""What planning sees and what it answers: plain frozen data, no clock inside. Ages are seconds, CPU is cores, memory is bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from crds.job import MigrationMode


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as planning sees it. Demand is runnable tasks, not use.

    Demand and memory include all jobs placed here, also those that its sample does not show yet; planning adds moves under way.
    """

    name: str
    cpu_capacity: float
    memory_capacity: int
    cpu_demand: float = 0.0
    memory_used: int = 0
    memory_pressure: float = 0.0
    sample_age: float | None = 0.0
    """None: it never reported."""
    ready: bool = True
    schedulable: bool = True
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()
    """What it can do beside running jobs."""
    cpu_flags: frozenset[str] = frozenset()
    """What its processors can do; empty: unknown."""
    speed: float = 1.0
    """How fast one of its cores is; only ratios between nodes matter. Never measured or declared: 1."""
    owner_present: bool = False
    """It has an owner, and he is logged in."""


@dataclass(frozen=True, slots=True)
class JobView:
    """One placed job, also while it starts or moves. ``key`` is "<namespace>/<name>".

    A sample that does not know the job yet says nothing about it: then give the demand and memory it had before its move, or those
    it was started with.
    """

    key: str
    node: str
    cpu_demand: float = 1.0
    memory: int = 0
    resident_for: float = 1e9
    """Since it was started on or moved to its node."""
    age: float = 0.0
    """Since its first start."""
    movable: bool = True
    """Running, not pinned, migration allowed."""
    why_not_movable: str = ""
    since_failed_move: float | None = None
    failed_moves: int = 0
    """Moves that failed in a row, up to now."""
    left: Mapping[str, float] = field(default_factory=dict)
    """Nodes it left in the last ten minutes, with seconds ago, if no job has come or ended anywhere since."""
    attained: float | None = None
    """CPU seconds it has had, on all nodes together. None: unknown; then it takes no part in a rotation."""
    priority: int = 0
    """Of two that could move or stay, the higher is served first."""
    home: str = ""
    """Node it belongs to and returns to when that costs nobody anything; empty: none."""
    guest: bool = False
    """Its node has an owner and it is not his."""
    near: frozenset[str] = frozenset()
    """Keys of jobs it talks to: among equally good nodes it goes where they are."""
    written: float = 0.0
    """Share of its memory that it wrote while a round of pre-copy passed, the last time; 0: unknown."""
    mode: MigrationMode = MigrationMode.STOP
    """How it would be moved."""
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    """Features its node must have."""
    cpu_flags: frozenset[str] = frozenset()
    """What its node's processors can do, so what it may be using; empty: unknown."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Nodes whose files are not those it has mapped, and why."""


class Cause(StrEnum):
    """What a move is for."""

    LOAD = "load"
    MEMORY = "memory"
    ROTATION = "rotation"
    OWNER = "owner"
    ROOM = "room"
    HOME = "home"


@dataclass(frozen=True, slots=True)
class MoveView:
    """A move under way: counted at its destination before it shows in the load there."""

    job: str
    source: str
    destination: str
    cause: Cause = Cause.LOAD


@dataclass(frozen=True, slots=True)
class MoveCost:
    """Freeze of a move in seconds: fixed + bytes / bandwidth. Calibrated from past moves by the caller."""

    fixed: float = 0.2
    bandwidth: float = 400e6

    def freeze(self, memory: int) -> float:
        """Predicted freeze, seconds."""
        return self.fixed + memory / self.bandwidth


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster at one moment."""

    nodes: tuple[NodeView, ...]
    jobs: tuple[JobView, ...] = ()
    moves: tuple[MoveView, ...] = ()
    move_cost: MoveCost = MoveCost()
    """Of a move that stops the job, and of all modes that ``mode_costs`` does not name."""
    mode_costs: Mapping[MigrationMode, MoveCost] = field(default_factory=dict)
    pending: tuple["PlacementRequest", ...] = ()
    """Jobs that no node has room for."""


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """One move with its reason.

    ``gain`` is the share of its remaining time that the job saves, net of the freeze; of a move for memory the share by which
    its source's use falls.
    """

    job: str
    source: str
    destination: str
    reason: str
    gain: float = 0.0
    cause: Cause = Cause.LOAD


@dataclass(frozen=True, slots=True)
class KeptJob:
    """A candidate that is not moved, and why."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and why nothing else. ``balanced``: within the target, or no move gains; ``reason`` and ``message`` say which."""

    moves: tuple[PlannedMove, ...] = ()
    kept: Sequence[KeptJob] = ()
    imbalance: float = 0.0
    balanced: bool = True
    reason: str = ""
    """One of the reasons in crds.balancepolicy."""
    message: str = ""
    ignored: tuple[str, ...] = ()
    """Samples not acted on, and why."""


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """A job that needs a node (its first, or a destination)."""

    job: str
    cpu: float
    memory: int
    node: str | None = None
    """The one node it must go to."""
    exclude: frozenset[str] = frozenset()
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    """Features its node must have."""
    cpu_flags: frozenset[str] = frozenset()
    """What the processors of the node it leaves can do; empty for a job that runs nowhere yet."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Nodes whose files are not those it has mapped, and why."""
    priority: int = 0
    home: str = ""
    """Node it belongs to; it goes there if that is as good as any."""
    near: frozenset[str] = frozenset()
    """Keys of jobs it talks to."""


@dataclass(frozen=True, slots=True)
class Choice:
    """``node`` is None when none fits; then ``rejected`` tells for each node why."""

    node: str | None
    reason: str
    rejected: dict[str, str] = field(default_factory=dict)
