"""What runs in a simulated cluster, and where."""

from dataclasses import dataclass

from reconciler.planning.types import NodeView

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Work:
    """A job to be simulated, as nature knows it: nothing of this is told to the decisions before it shows."""

    name: str
    cpu_seconds: float
    """Core-seconds of all its tasks together, on a core of speed 1."""
    node: str | None = None
    """Where it starts; placed when None."""
    arrival: float = 0.0
    """Seconds."""
    memory: int = 0
    """Bytes when it starts."""
    tasks: int = 1
    """Runnable tasks as long as it computes."""
    grows_to: int = 0
    """Bytes it ends up with; below ``memory``: it does not grow."""
    growth: float = 0.0
    """Bytes more for each core-second it had."""
    busy: float = NEVER
    """Core-seconds after which it sleeps for ``idle`` seconds, again and again."""
    idle: float = 0.0
    batch: str = ""
    """Jobs of one batch are the parallel parts of one; empty: it is alone."""
    priority: int = 0

    def best(self, nodes: list[NodeView]) -> float:
        """Seconds it would take alone on the best of the nodes: what slowdown is measured against."""
        fastest = max(min(float(self.tasks), node.cpu_capacity) * node.speed for node in nodes)
        sleeps = max(0, -int(-self.cpu_seconds // self.busy) - 1) if self.busy < NEVER else 0
        return self.cpu_seconds / fastest + sleeps * self.idle


@dataclass(frozen=True, slots=True)
class Linear:
    """Seconds that something takes for a job of so many bytes: fixed + bytes / bandwidth."""

    fixed: float = 0.0
    bandwidth: float = NEVER

    def seconds(self, size: float) -> float:
        """For a job of ``size`` bytes."""
        return self.fixed + size / self.bandwidth


@dataclass(frozen=True, slots=True)
class MoveModel:
    """A move in three parts, all counted as under way: it still runs here, it stands, it runs there already."""

    before: Linear = Linear()
    freeze: Linear = Linear(0.2, 400e6)
    after: Linear = Linear()
    failures: float = 0.0
    """Share of the moves that fail: the job goes on where it was, after the freeze."""

    def describe(self) -> str:
        """For people."""
        parts = {"runs on": self.before, "stands": self.freeze, "runs there while the rest comes": self.after}
        shown = ", ".join(f"{what} {_words(part)}" for what, part in parts.items() if part != Linear())
        return f"{shown}; {self.failures:.0%} of the moves fail"


def _words(part: Linear) -> str:
    return f"{part.fixed:g} s" + (f" + bytes / {part.bandwidth / 1e6:g} MB/s" if part.bandwidth < NEVER else "")


STOP = MoveModel(Linear(0.3), Linear(0.2, 400e6))
"""What our own moves by stop take, rounded up."""
POST_COPY = MoveModel(Linear(0.3), Linear(0.21), Linear(0.0, 400e6))
"""Measured: 150-270 ms of freeze whatever the size."""
FREE = MoveModel(freeze=Linear())


@dataclass(frozen=True, slots=True)
class Physics:
    """What the simulated cluster is like, beside its nodes and jobs. None of it is known to the decisions."""

    move: MoveModel = STOP
    thrash: float = 10.0
    """A node that has more memory in use than it has computes so many times slower."""
    aged: bool = False
    """Aged time-sharing: young tasks go first, see ``crds.timesharing``."""
    sample_every: float = 1.0
    """Seconds between two load samples of a node."""
    stale: float = 0.0
    """Seconds that a sample takes until it is acted on."""
    noise: float = 0.0
    """Share by which each figure of a sample is wrong at most."""
    zeroes: float = 0.0
    """Share of the samples that say 0 of everything by mistake."""
    smoothing: float = 15.0
    """Time constant of the demand that samples show, seconds: that of the agents."""
    weights_every: float = 1.0
    """Seconds between two settings of the weights of aged time-sharing."""
