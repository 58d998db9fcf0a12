"""A plan being drawn up: the picture, the moves so far, what the budget still allows, and why other jobs stay."""

from collections import Counter

from crds.balancepolicy import BalancePolicySpec
from crds.quantity import human_memory
from reconciler.planning.picture import NodeState, Picture
from reconciler.planning.types import JobView, KeptJob, MoveCost, PlannedMove, Snapshot

LOAD = "load"
MEMORY = "memory"


class Draft:
    """Memory and CPU write into the same one, so that both share the budget and see each other's moves."""

    def __init__(self, snapshot: Snapshot, policy: BalancePolicySpec, picture: Picture) -> None:
        self.policy = policy
        self.picture = picture
        self.move_cost: MoveCost = snapshot.move_cost
        self.moves: list[PlannedMove] = []
        self.under_way = len(snapshot.moves)
        self.waiting = ""
        """The first job that would move if nothing held it up, and what does; empty when none."""
        self.givers = {move.source for move in snapshot.moves}
        self.takers = {move.destination for move in snapshot.moves}
        self._taking_part = Counter(name for move in snapshot.moves for name in (move.source, move.destination))
        self._kept: dict[str, dict[str, str]] = {}

    def budget_of(self, node: str) -> str:
        """Why the node takes part in no further move now; empty when it may."""
        budget = self.policy.budget
        if self.under_way + len(self.moves) >= budget.cluster:
            return f"the cluster's budget of {budget.cluster} moves at once is used up"
        if self._taking_part[node] >= budget.per_node:
            return f"{node}'s budget of {budget.per_node} moves at once is used up"
        return ""

    def cannot_take(self, node: str) -> str:
        """Why the node receives nothing at the moment; empty when it may. A node gives or takes, never both at once."""
        return f"{node} is about to give a job away" if node in self.givers else self.budget_of(node)

    def not_now(self, job: JobView) -> str:
        """Why the job itself may not move yet; empty when it may."""
        if job.resident_for < self.policy.min_residency:
            return f"on {job.node} for {job.resident_for:.1f} s, stays at least {self.policy.min_residency:g} s"
        if job.since_failed_move is not None and job.since_failed_move < self.policy.failure_cooldown:
            return f"its move failed {job.since_failed_move:.0f} s ago, left alone for {self.policy.failure_cooldown:g} s"
        return ""

    def room(self, state: NodeState, job: JobView) -> str:
        """Why the node has no memory for the job below the low water; empty when it has."""
        node, low = state.view, self.policy.memory.low_water
        if state.memory + job.memory <= low * node.memory_capacity:
            return ""
        share = (state.memory + job.memory) / node.memory_capacity
        return f"memory would be {share:.2f} of {human_memory(node.memory_capacity)}, above low water {low:g}"

    def move(self, job: JobView, source: NodeState, destination: NodeState, reason: str, gain: float) -> None:
        """Adds a move and counts it at its destination."""
        self.moves.append(PlannedMove(job.key, source.view.name, destination.view.name, reason, round(gain, 4)))
        self._kept.pop(job.key, None)
        source.give(job)
        destination.receive(job)
        self.givers.add(source.view.name)
        self.takers.add(destination.view.name)
        self._taking_part.update((source.view.name, destination.view.name))

    def keep(self, job: JobView, about: str, reason: str) -> None:
        """Notes why a candidate stays; the latest reason about LOAD and the latest about MEMORY hold."""
        self._kept.setdefault(job.key, {})[about] = reason

    def hold(self, job: JobView, about: str, reason: str) -> None:
        """Notes that a job would move but for ``reason``, which passes by itself."""
        self.keep(job, about, f"waits: {reason}")
        self.waiting = self.waiting or f"{job.key}: {reason}"

    def kept(self) -> tuple[KeptJob, ...]:
        """In the order in which they were looked at."""
        return tuple(KeptJob(job, "; ".join(dict.fromkeys(reasons.values()))) for job, reasons in self._kept.items())
