"""What others do, to compare with: places and moves as published, with the same knowledge of the cluster as ours.

Goals of a BalancePolicy (mosix, threshold, none) are no baselines here: the real decision code is simulated for those.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from reconciler.planning.fit import closed, refused
from reconciler.planning.types import JobView, NodeView, PlacementRequest, Plan, PlannedMove, Snapshot
from reconciler.simulation.cluster import Decide, Place


@dataclass(slots=True)
class NodeState:
    """A node with what is placed on it or on its way there; use that no job explains is what its sample says."""

    view: NodeView
    jobs: list[JobView] = field(default_factory=list)
    tasks: float = 0.0
    memory: float = 0.0

    @property
    def power(self) -> float:
        """Cores of speed 1."""
        return self.view.cpu_capacity * self.view.speed

    @property
    def load(self) -> float:
        """Runnable tasks by power."""
        return self.tasks / self.power

    def take(self, job: JobView) -> None:
        """Counts a job that comes."""
        self.tasks += job.cpu_demand
        self.memory += job.memory

    def give(self, job: JobView) -> None:
        """Counts a job that goes."""
        self.tasks -= job.cpu_demand
        self.memory -= job.memory
        self.jobs.remove(job)


def states(snapshot: Snapshot) -> list[NodeState]:
    """Of all nodes that take jobs, in the order of the snapshot."""
    found = {view.name: NodeState(view) for view in snapshot.nodes}
    going = {move.job: move.destination for move in snapshot.moves}
    for job in snapshot.jobs:
        found[going.get(job.key, job.node)].take(job)
        if job.key not in going:
            found[job.node].jobs.append(job)
    for state in found.values():
        state.tasks, state.memory = max(state.tasks, state.view.cpu_demand), max(state.memory, float(state.view.memory_used))
    return [state for state in found.values() if not closed(state.view)]


def _willing(snapshot: Snapshot, request: PlacementRequest) -> list[NodeState]:
    """Nodes that may take the job, memory and load aside."""
    return [state for state in states(snapshot) if not refused(state.view, request)]


def random_place(random: Random) -> Place:
    """Any node."""

    def place(snapshot: Snapshot, request: PlacementRequest) -> str | None:
        nodes = _willing(snapshot, request)
        return random.choice(nodes).view.name if nodes else None

    return place


def round_robin(_: Random) -> Place:
    """One node after the other: what PVM does."""
    turn = 0

    def place(snapshot: Snapshot, request: PlacementRequest) -> str | None:
        nonlocal turn
        nodes = _willing(snapshot, request)
        turn += 1
        return nodes[(turn - 1) % len(nodes)].view.name if nodes else None

    return place


def least_loaded(_: Random) -> Place:
    """Where it would have the most CPU; memory does not count."""

    def place(snapshot: Snapshot, request: PlacementRequest) -> str | None:
        nodes = _willing(snapshot, request)
        best = min(nodes, key=lambda s: ((s.tasks + request.cpu) / s.power, s.view.name), default=None)
        return best.view.name if best else None

    return place


def two_choices(random: Random) -> Place:
    """The less loaded of two nodes taken at random."""

    def place(snapshot: Snapshot, request: PlacementRequest) -> str | None:
        nodes = _willing(snapshot, request)
        pair = random.sample(nodes, min(2, len(nodes)))
        best = min(pair, key=lambda s: ((s.tasks + request.cpu) / s.power, s.view.name), default=None)
        return best.view.name if best else None

    return place


@dataclass(frozen=True, slots=True)
class PublishedCost:
    """n^(memory used / memory) + n^(load / L), as published: no weights, L of the largest load there is."""

    base: float
    load_max: float

    def of(self, tasks: float, memory: float, state: NodeState) -> float:
        """Of a node with so many tasks and bytes."""
        cpu: float = self.base ** (tasks / state.power / self.load_max)
        return cpu + float(self.base ** min(50.0, memory / state.view.memory_capacity))

    def rise(self, state: NodeState, tasks: float, memory: float) -> float:
        """By how much it rises (or falls) with these more (or fewer)."""
        return self.of(state.tasks + tasks, state.memory + memory, state) - self.of(state.tasks, state.memory, state)


def _published(nodes: list[NodeState]) -> PublishedCost:
    return PublishedCost(float(max(2, len(nodes))), _power_of_two_above(max(node.load for node in nodes)))


def _power_of_two_above(load: float) -> float:
    return float(2.0 ** (math.floor(math.log2(load)) + 1)) if load >= 1 else 1.0


def enhanced_pvm(_: Random) -> Place:
    """Where the published opportunity cost rises least."""

    def place(snapshot: Snapshot, request: PlacementRequest) -> str | None:
        nodes = _willing(snapshot, request)
        if not nodes:
            return None
        cost = _published(nodes)
        return min(nodes, key=lambda s: (cost.rise(s, request.cpu, request.memory), s.view.name)).view.name

    return place


def enhanced_mosix(snapshot: Snapshot) -> Plan:
    """Greedily the moves that lower the published opportunity cost most, until none does; each job once."""
    nodes = states(snapshot)
    cost = _published(nodes)
    moves: list[PlannedMove] = []
    done: set[str] = set()
    while found := _cheapest_move(nodes, cost, done):
        job, source, there = found
        done.add(job.key)
        moves.append(PlannedMove(job.key, source.view.name, there.view.name, "the opportunity cost falls"))
        source.give(job)
        there.take(job)
        there.jobs.append(job)
    return Plan(tuple(moves))


def _cheapest_move(nodes: list[NodeState], cost: PublishedCost, done: set[str]) -> tuple[JobView, NodeState, NodeState] | None:
    best, found = -1e-9, None
    for source in nodes:
        for job in source.jobs:
            if not job.movable or job.key in done:
                continue
            falls = cost.rise(source, -job.cpu_demand, -job.memory)
            for there in nodes:
                change = falls + cost.rise(there, job.cpu_demand, job.memory) if there is not source else 0.0
                if change < best and not refused(there.view, job):
                    best, found = change, (job, source, there)
    return found


def stay(_: Snapshot) -> Plan:
    """Nothing moves."""
    return Plan()


BASELINES: dict[str, tuple[Callable[[Random], Place], Decide, str]] = {
    "random": (random_place, stay, "placed at random, never moved"),
    "pvm": (round_robin, stay, "placed round robin, never moved: PVM"),
    "least-loaded": (least_loaded, stay, "placed where the load is least, never moved"),
    "two-choices": (two_choices, stay, "placed on the less loaded of two random nodes, never moved"),
    "enhanced-pvm": (enhanced_pvm, stay, "placed by the published opportunity cost, never moved"),
    "enhanced-mosix": (enhanced_pvm, enhanced_mosix, "placed and moved by the published opportunity cost"),
}
