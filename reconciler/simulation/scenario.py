"""A scenario as people write it: nodes, jobs that come, what the world is like, and the policy to try."""

from random import Random
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crds.balancepolicy import BalancePolicySpec
from crds.meta import API_VERSION, Model, Name
from crds.quantity import Cpu, Duration, Memory
from reconciler.planning.types import NodeView
from reconciler.simulation.trace import read_trace
from reconciler.simulation.work import NEVER, Linear, MoveModel, Physics, Work

Share = Annotated[float, Field(ge=0, le=1)]


class Nodes(Model):
    """One node, or several equal ones with numbers behind the name."""

    name: Name
    count: int = Field(default=1, ge=1, le=10_000)
    cpu: Cpu = Field(default=1.0, gt=0)
    memory: Memory = Field(default=2**30, gt=0)
    speed: float = Field(default=1.0, gt=0)
    """Of a core; only ratios matter."""
    labels: dict[str, str] = Field(default_factory=dict)
    taints: list[str] = Field(default_factory=list)
    schedulable: bool = True

    def views(self) -> list[NodeView]:
        """As planning sees them."""
        names = [self.name] if self.count == 1 else [f"{self.name}{i}" for i in range(1, self.count + 1)]
        more = {"labels": self.labels, "taints": tuple(self.taints), "schedulable": self.schedulable}
        return [NodeView(name, self.cpu, self.memory, speed=self.speed, **more) for name in names]  # type: ignore[arg-type]


class Jobs(Model):
    """One job, or several equal ones, one ``every`` so often."""

    name: Name
    count: int = Field(default=1, ge=1, le=100_000)
    cpu_time: Duration = Field(gt=0)
    """Core-seconds on a core of speed 1."""
    arrival: Duration = 0.0
    every: Duration = 0.0
    """Between two arrivals."""
    node: Name | None = None
    """Where they start; placed by the method when unset."""
    memory: Memory = 0
    grows_to: Memory = 0
    """What it ends up with."""
    growth: Memory = 2**20
    """Bytes more for each second of CPU it had."""
    tasks: int = Field(default=1, ge=1)
    """Runnable tasks at a time."""
    busy: Duration | None = Field(default=None, gt=0)
    """Seconds of CPU after which it sleeps, again and again."""
    idle: Duration = 0.0
    """Seconds it sleeps."""

    def works(self) -> list[Work]:
        """What arrives."""
        return [
            Work(
                self.name if self.count == 1 else f"{self.name}{i}",
                self.cpu_time,
                self.node,
                self.arrival + (i - 1) * self.every,
                self.memory,
                self.tasks,
                self.grows_to,
                float(self.growth),
                self.busy or NEVER,
                self.idle,
            )
            for i in range(1, self.count + 1)
        ]


class Lifetimes(Model):
    """Random CPU times, seconds."""

    shape: Literal["heavy-tailed", "exponential", "uniform"] = "heavy-tailed"
    """heavy-tailed: least / r, r uniform: as those of real programs."""
    least: Duration = 2.0
    """heavy-tailed and uniform: the shortest."""
    most: Duration = 1000.0
    """All: longer ones are cut."""
    mean: Duration = 12.0
    """exponential: the mean."""

    def draw(self, random: Random) -> float:
        """One of them."""
        if self.shape == "exponential":
            return min(self.most, max(0.01, random.expovariate(1 / self.mean)))
        if self.shape == "uniform":
            return random.uniform(self.least, self.most)
        return min(self.most, self.least / max(random.random(), 1e-9))


class Stream(Model):
    """Random arrivals."""

    name: Name
    every: Duration = Field(gt=0)
    """Mean pause between two arrivals, exponential."""
    seconds: Duration = Field(default=600.0, alias="for", gt=0)
    """How long they go on."""
    cpu_time: Lifetimes = Field(default_factory=Lifetimes)
    memory: list[Memory] = Field(default_factory=lambda: [0, 0], min_length=2, max_length=2)
    """Least and most; uniform."""
    node: Name | None = None

    def works(self, random: Random) -> list[Work]:
        """What arrives."""
        works: list[Work] = []
        now = random.expovariate(1 / self.every)
        while now < self.seconds:
            memory = random.randint(min(self.memory), max(self.memory))
            works.append(Work(f"{self.name}{len(works)}", self.cpu_time.draw(random), self.node, now, memory))
            now += random.expovariate(1 / self.every)
        return works


class Trace(Model):
    """A file in the Standard Workload Format."""

    file: str
    """Its path, from the scenario's directory."""
    most: int = Field(default=0, ge=0)
    """So many of its jobs; 0: all."""
    faster: float = Field(default=1.0, gt=0)
    """Arrivals come so many times as quickly."""
    memory: Memory = 0
    """By process, where the trace does not say."""


class Time(Model):
    """Of a job with so many bytes: fixed + bytes / bandwidth."""

    fixed: Duration = 0.0
    bandwidth: Memory | None = Field(default=None, gt=0)
    """Bytes a second; unset: size does not matter."""

    def linear(self) -> Linear:
        """As the simulation has it."""
        return Linear(self.fixed, float(self.bandwidth or NEVER))


class Move(Model):
    """What a move takes: the job runs on where it is, stands, then runs there while the rest follows."""

    before: Time = Field(default_factory=lambda: Time(fixed=0.3))
    freeze: Time = Field(default_factory=lambda: Time(fixed=0.2, bandwidth=400_000_000))
    after: Time = Field(default_factory=Time)
    failures: Share = 0.0
    """Share of the moves that fail."""


class Samples(Model):
    """How the load is known."""

    every: Duration = 1.0
    late: Duration = 0.0
    """Seconds from a sample to the decision that uses it."""
    noise: Share = 0.0
    """Share by which figures are wrong at most."""
    zeroes: Share = 0.0
    """Share of the samples that say 0 of everything by mistake."""


class ScenarioSpec(Model):
    """What is simulated."""

    seed: int = 0
    nodes: list[Nodes] = Field(min_length=1)
    jobs: list[Jobs] = Field(default_factory=list)
    streams: list[Stream] = Field(default_factory=list)
    trace: Trace | None = None
    move: Move = Field(default_factory=Move)
    samples: Samples = Field(default_factory=Samples)
    thrash: float = Field(default=10.0, ge=1)
    """A node that overcommits its memory is so many times slower."""
    policy: BalancePolicySpec = Field(default_factory=BalancePolicySpec)
    """As the spec of a BalancePolicy."""

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if not (self.jobs or self.streams or self.trace):
            raise ValueError("nothing runs: say jobs, streams or trace")
        known = {view.name for nodes in self.nodes for view in nodes.views()}
        if len(known) < sum(nodes.count for nodes in self.nodes):
            raise ValueError("two nodes have the same name")
        for name, node in [*((j.name, j.node) for j in self.jobs), *((s.name, s.node) for s in self.streams)]:
            if node is not None and node not in known:
                raise ValueError(f'{name} starts on "{node}", which is none of the nodes: {", ".join(sorted(known)[:8])}')
        return self

    def views(self) -> list[NodeView]:
        """All nodes."""
        return [view for nodes in self.nodes for view in nodes.views()]

    def works(self, seed: int, trace: str = "") -> list[Work]:
        """All that arrives, the same for every method. ``trace`` is the text of the trace's file. Raises BrokenTrace."""
        random = Random(seed)
        works = [work for jobs in self.jobs for work in jobs.works()]
        works += [work for stream in self.streams for work in stream.works(random)]
        if self.trace:
            works += read_trace(trace, most=self.trace.most, memory=self.trace.memory, faster=self.trace.faster)
        return works

    def physics(self, aged: bool) -> Physics:
        """What the world is like."""
        move, samples = self.move, self.samples
        model = MoveModel(move.before.linear(), move.freeze.linear(), move.after.linear(), move.failures)
        return Physics(model, self.thrash, aged, samples.every, samples.late, samples.noise, samples.zeroes)


class ScenarioMetadata(Model):
    """Its name."""

    name: Name


class Scenario(Model):
    """Never stored: a file to simulate with."""

    api_version: Literal["mx/v1"] = API_VERSION
    kind: Literal["Scenario"] = "Scenario"
    metadata: ScenarioMetadata
    spec: ScenarioSpec
