"""A plan being drawn up: the picture, the moves so far, what the budget still allows, and why other jobs stay."""

from collections.abc import Callable

import numpy as np

from crds.balancepolicy import BalancePolicySpec
from crds.quantity import human_memory
from reconciler.planning.picture import NOWHERE, Bools, Floats, Picture
from reconciler.planning.types import Cause, JobView, PlannedMove

LONGEST_COOLDOWN = 3600.0
"""Seconds; the pause after failed moves does not double beyond."""


class Draft:
    """All that plan moves write into the same one, so that they share the budget and see each other's moves."""

    def __init__(self, policy: BalancePolicySpec, picture: Picture) -> None:
        self.policy = policy
        self.picture = picture
        self.moves: list[PlannedMove] = []
        under_way = picture.snapshot.moves
        self.under_way = len(under_way)
        self.waiting = ""
        """The first job that would move if nothing held it up, and what does; empty when none."""
        count = len(picture.views)
        self.givers, self.takers = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        self._part = np.zeros(count, np.int64)
        for move in under_way:
            self._take_part(picture.find(move.source), picture.find(move.destination))
        self._notes: dict[int, str] = {}
        self._tellers: list[Callable[[int], str]] = []

    # --- budget ---

    @property
    def spent(self) -> bool:
        """Whether the cluster's budget is used up."""
        return self.under_way + len(self.moves) >= self.policy.budget.cluster

    def budget_of(self, node: int) -> str:
        """Why the node takes part in no further move now; empty when it may."""
        budget = self.policy.budget
        if self.spent:
            return f"the cluster's budget of {budget.cluster} moves at once is used up"
        if self._part[node] >= budget.per_node:
            return f"{self.picture.names[node]}'s budget of {budget.per_node} moves at once is used up"
        return ""

    def cannot_take(self, node: int) -> str:
        """Why the node receives nothing at the moment; empty when it may. A node gives or takes, never both at once."""
        return f"{self.picture.names[node]} is about to give a job away" if self.givers[node] else self.budget_of(node)

    @property
    def busy(self) -> Bools:
        """Nodes that receive nothing at the moment."""
        return np.asarray(self.givers | (self._part >= self.policy.budget.per_node) | self.spent)

    def cannot_give(self, node: int) -> str:
        """Why nothing leaves the node at the moment; empty when it may."""
        return f"{self.picture.names[node]} is about to receive a job" if self.takers[node] else self.budget_of(node)

    # --- what holds a job up ---

    def not_now(self, row: int) -> str:
        """Why the job itself may not move yet; empty when it may."""
        job = self.picture.jobs.views[row]
        if job.resident_for < self.policy.min_residency:
            return f"on {job.node} for {job.resident_for:.1f} s, stays at least {self.policy.min_residency:g} s"
        return self.cools_down(job)

    def not_for_load(self, row: int) -> str:
        """As ``not_now``; and a job that moved stays for ten minutes, unless one comes or ends: its load comes and goes."""
        left = self.picture.jobs.views[row].left
        if left:
            return f"it moved {min(left.values()):.0f} s ago, and no job has come or ended since"
        return self.not_now(row)

    def cools_down(self, job: JobView) -> str:
        """Why the job is left alone after moves that failed; empty when it is not. Each further failure doubles the pause."""
        if job.since_failed_move is None:
            return ""
        further = max(0, min(job.failed_moves, 20) - 1)
        pause = min(self.policy.failure_cooldown * 2**further, max(LONGEST_COOLDOWN, self.policy.failure_cooldown))
        if job.since_failed_move >= pause:
            return ""
        times = f", {job.failed_moves} in a row" if further else ""
        return f"its move failed {job.since_failed_move:.0f} s ago{times}, left alone for {pause:g} s"

    # --- memory ---

    @property
    def room(self) -> Floats:
        """Bytes that each node has below the low water."""
        return np.asarray(self.policy.memory.low_water * self.picture.capacity - self.picture.memory)

    def no_room(self, node: int, row: int) -> str:
        """Why the node has no memory for the job below the low water; empty when it has."""
        after, capacity = self.picture.memory[node] + self.picture.jobs.memory[row], self.picture.capacity[node]
        low = self.policy.memory.low_water
        if after <= low * capacity:
            return ""
        return f"memory would be {after / capacity:.2f} of {human_memory(capacity)}, above low water {low:g}"

    # --- moves ---

    def move(self, row: int, destination: int, reason: str, gain: float, cause: Cause) -> None:
        """Adds a move and counts it at its destination."""
        job, source = self.picture.jobs.views[row], int(self.picture.jobs.at[row])
        names = self.picture.names
        self.moves.append(PlannedMove(job.key, names[source], names[destination], reason, round(float(gain), 4), cause))
        self._notes.pop(row, None)
        self.picture.move(row, source, destination)
        self._take_part(source, destination)

    def _take_part(self, source: int, destination: int) -> None:
        if source != NOWHERE:
            self._part[source] += 1
            self.givers[source] = True
        if destination != NOWHERE:
            self._part[destination] += 1
            self.takers[destination] = True

    # --- why others stay ---

    def keep(self, row: int, reason: str) -> None:
        """Notes why a candidate stays, whatever else is said about it."""
        self._notes[row] = reason

    def hold(self, row: int, reason: str) -> None:
        """Notes that a job would move but for ``reason``, which passes by itself."""
        self.keep(row, f"waits: {reason}")
        self.wait(row, reason)

    def wait(self, row: int, reason: str) -> None:
        """The plan is not at its end: a job would move but for ``reason``."""
        self.waiting = self.waiting or f"{self.picture.jobs.views[row].key}: {reason}"

    def tell(self, teller: Callable[[int], str]) -> None:
        """``teller`` can say of every job why it stays (empty: nothing to say). It is asked only if somebody wants to know."""
        self._tellers.append(teller)

    def candidates(self) -> list[int]:
        """Rows of the jobs that were looked at and stay: on the most loaded nodes first, then by key."""
        picture = self.picture
        if not self._tellers:
            return sorted(
                (row for row in self._notes if picture.staying[row]), key=lambda row: (-picture.leaving[picture.jobs.at[row]], row)
            )
        rows = np.flatnonzero(picture.staying)
        at = picture.jobs.at[rows]
        return [int(row) for row in rows[np.lexsort((rows, at, -picture.leaving[at]))]] if len(rows) else []

    def why(self, row: int) -> str:
        """Why the candidate stays."""
        told = [self._notes.get(row, ""), *(teller(row) for teller in self._tellers)]
        return "; ".join(dict.fromkeys(text for text in told if text))
