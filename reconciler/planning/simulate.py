"""A cluster in virtual time under the same decisions as the real one: what a policy is worth, without a cluster.

CPU is shared fairly on each node (processor sharing): with D tasks on c cores a task runs at min(1, c/D). A job that moves stands
still for the freeze that the model predicts and counts as under way meanwhile. Samples are exact and fresh unless ``observe``
spoils them. Memory is counted, but being short of it slows nobody down. From one event to the next all rates are constant, so
nothing is approximated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from reconciler.planning.types import JobView, MoveCost, MoveView, NodeView, PlacementRequest, Plan, Snapshot

_NEVER = float("inf")
_DONE = 1e-9
"""Core-seconds that count as nothing: what adding up leaves over."""


@dataclass(frozen=True, slots=True)
class Work:
    """A job to be simulated."""

    name: str
    cpu_seconds: float
    """Core-seconds of all its tasks together."""
    node: str | None = None
    """Where it starts; placed when None."""
    arrival: float = 0.0
    """Seconds."""
    memory: int = 0
    """Bytes."""
    tasks: int = 1
    """Runnable tasks as long as it lives."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A move that was made."""

    time: float
    job: str
    source: str
    destination: str


@dataclass(slots=True)
class Outcome:
    """What came of it. Times are seconds since the start."""

    ends: dict[str, float] = field(default_factory=dict)
    moves: list[Moved] = field(default_factory=list)
    frozen: float = 0.0
    """Sum of all freezes."""

    @property
    def makespan(self) -> float:
        """When the last job ended."""
        return max(self.ends.values(), default=0.0)

    def returns(self, within: float = 600.0) -> list[tuple[float, float]]:
        """Moves that brought a job back to a node it had left at most ``within`` seconds before, as (left, sent back).

        Not all are mistakes: when other jobs end, the node it left may be the one that is free.
        """
        left: dict[tuple[str, str], float] = {}
        found = []
        for move in self.moves:
            since = left.get((move.job, move.destination), -_NEVER)
            if move.time - since <= within:
                found.append((since, move.time))
            left[move.job, move.source] = move.time
        return found

    def wasted(self) -> int:
        """Returns although no job had ended in between: the first move was wrong when it was made."""
        return sum(not any(since <= end <= back for end in self.ends.values()) for since, back in self.returns())


@dataclass(slots=True)
class _Job:
    work: Work
    rest: float
    node: str
    since: float
    to: str = ""
    thaws: float = _NEVER

    def view(self, now: float) -> JobView:
        return JobView(
            f"default/{self.work.name}",
            self.node,
            float(self.work.tasks),
            self.work.memory,
            resident_for=now - self.since,
            age=now - self.work.arrival,
        )


class Simulation:
    """``decide`` is asked every ``interval`` seconds, ``place`` for each job that names no node."""

    def __init__(
        self,
        nodes: Sequence[NodeView],
        works: Sequence[Work],
        decide: Callable[[Snapshot], Plan],
        place: Callable[[Snapshot, PlacementRequest], str],
        *,
        interval: float = 2.0,
        move_cost: MoveCost | None = None,
        observe: Callable[[Snapshot], Snapshot] = lambda snapshot: snapshot,
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.coming = sorted(works, key=lambda work: (work.arrival, work.name), reverse=True)
        self.decide, self.place, self.observe = decide, place, observe
        self.interval, self.move_cost = interval, move_cost or MoveCost()
        self.jobs: dict[str, _Job] = {}
        self.now = 0.0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Until the last job has ended."""
        tick = self.interval
        while self.jobs or self.coming:
            rates = self._rates()
            ends = min((self.now + job.rest / rates[name] for name, job in self.jobs.items() if rates[name] > 0), default=_NEVER)
            thaws = min((job.thaws for job in self.jobs.values()), default=_NEVER)
            arrives = self.coming[-1].arrival if self.coming else _NEVER
            then = min(ends, thaws, arrives, tick)
            self._advance(then, rates)
            if then == tick:
                tick += self.interval
                self._begin(self.decide(self.observe(self.snapshot())))
        return self.outcome

    def snapshot(self) -> Snapshot:
        """The cluster as it is now, seen without delay."""
        jobs = tuple(job.view(self.now) for job in self.jobs.values())
        moves = tuple(MoveView(f"default/{name}", job.node, job.to) for name, job in self.jobs.items() if job.to)
        demand: dict[str, float] = dict.fromkeys(self.nodes, 0.0)
        memory: dict[str, int] = dict.fromkeys(self.nodes, 0)
        for job in self.jobs.values():
            demand[job.node] += job.work.tasks
            memory[job.node] += job.work.memory
        nodes = tuple(
            replace(node, cpu_demand=demand[node.name], memory_used=node.memory_used + memory[node.name])
            for node in self.nodes.values()
        )
        return Snapshot(nodes, jobs, moves, self.move_cost)

    def _rates(self) -> dict[str, float]:
        """Cores that each job has now."""
        tasks: dict[str, int] = dict.fromkeys(self.nodes, 0)
        for job in self.jobs.values():
            tasks[job.node] += 0 if job.to else job.work.tasks
        return {
            name: 0.0 if job.to else job.work.tasks * min(1.0, self.nodes[job.node].cpu_capacity / tasks[job.node])
            for name, job in self.jobs.items()
        }

    def _advance(self, then: float, rates: dict[str, float]) -> None:
        for name, job in list(self.jobs.items()):
            job.rest -= rates[name] * (then - self.now)
            if job.rest <= _DONE and not job.to:
                self.outcome.ends[name] = then
                del self.jobs[name]
            elif job.thaws <= then:
                job.node, job.since, job.to, job.thaws = job.to, then, "", _NEVER
        self.now = then
        while self.coming and self.coming[-1].arrival <= then:
            self._start(self.coming.pop())

    def _start(self, work: Work) -> None:
        request = PlacementRequest(f"default/{work.name}", float(work.tasks), work.memory)
        node = work.node or self.place(self.snapshot(), request)
        self.jobs[work.name] = _Job(work, work.cpu_seconds, node, self.now)

    def _begin(self, plan: Plan) -> None:
        for move in plan.moves:
            job = self.jobs[move.job.removeprefix("default/")]
            freeze = self.move_cost.freeze(job.work.memory)
            job.to, job.thaws = move.destination, self.now + freeze
            self.outcome.frozen += freeze
            self.outcome.moves.append(Moved(self.now, job.work.name, move.source, move.destination))


def ideal(nodes: Sequence[NodeView], works: Sequence[Work]) -> float:
    """No schedule ends sooner, for jobs that are all there at the start: all cores busy all the time, or the longest job alone."""
    cores = sum(node.cpu_capacity for node in nodes)
    fastest = max(node.cpu_capacity for node in nodes)
    return max(
        sum(work.cpu_seconds for work in works) / cores,
        max((work.cpu_seconds / min(float(work.tasks), fastest) for work in works), default=0.0),
    )
