"""Evening out CPU load: from the most loaded node downwards, one move after the other.

A job moves when all of this holds; ``gains`` is the whole rule:

1. the opportunity cost of CPU falls (it is convex, so this is what evens out);
2. its destination is better for the job itself, by a margin (``worth.SPARE``);
3. it saves more than ``minGain`` of its remaining time beyond the freeze.

By 2 the larger load of the two nodes falls with every move and no node comes to have more: the loads, sorted, fall in lexicographic
order. So no sequence of moves returns to where it was, and it ends. Within one plan a node either gives or takes, never both.
"""

import heapq
from bisect import insort
from dataclasses import dataclass, field

from crds.quantity import format_cpu
from reconciler.planning.cost import Scale, scale
from reconciler.planning.draft import LOAD, Draft
from reconciler.planning.fit import closed, refused
from reconciler.planning.picture import NodeState
from reconciler.planning.types import JobView
from reconciler.planning.worth import IDLE, SPARE, Worth, worth

LOOK_AT = 64
"""Of the acceptable destinations, least loaded first, so many are compared; bounds the time of a decision in a large cluster."""


@dataclass(slots=True)
class Search:
    """The best destination found for a job, and what spoke against others."""

    node: NodeState | None = None
    worth: Worth | None = None
    score: float = 0.0
    """Fall of the opportunity cost, less the share of the time saved that the freeze eats."""
    against: list[str] = field(default_factory=list)
    budget: str = ""
    """The only thing in the way of one that would gain."""


class Evening:
    """One run over all nodes. Destinations stay sorted by load."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.policy = draft.policy
        states = list(draft.picture.nodes.values())
        views = [state.view for state in states]
        self.scale: Scale = scale([s.load for s in states], [v.cpu_capacity for v in views], [v.memory_capacity for v in views])
        self.largest = max(view.cpu_capacity for view in views)
        self.order = sorted(_rank(state) for state in states if not closed(state.view))

    def run(self) -> None:
        """Fills the draft until no move gains or the budget is used up."""
        heap = [(-state.leaving_load, name) for name, state in self.draft.picture.nodes.items()]
        heapq.heapify(heap)
        while heap:
            _, name = heapq.heappop(heap)
            source = self.draft.picture.nodes[name]
            if self._relieve(source):
                heapq.heappush(heap, (-source.leaving_load, name))

    def _relieve(self, source: NodeState) -> bool:
        """Plans the best move away from the node, if one gains; else notes why each of its jobs stays."""
        held = self._held_up(source)
        best: tuple[float, int, str] | None = None
        choice: tuple[JobView, Search] | None = None
        for job in source.jobs:
            found = self._look_at(job, source, held)
            if found is None or found.node is None:
                continue
            key = (-round(found.score, 12), job.memory, job.key)
            if best is None or key < best:
                best, choice = key, (job, found)
        if choice is None:
            return False
        self._plan(choice[0], source, choice[1])
        return True

    def _held_up(self, source: NodeState) -> str:
        name = source.view.name
        if name in self.draft.takers:
            return f"{name} is about to receive a job"
        return self.draft.budget_of(name)

    def _look_at(self, job: JobView, source: NodeState, held: str) -> Search | None:
        """The job's best destination if it may move now; otherwise None, with the reason noted."""
        hopeless = self._hopeless(job, source)
        if hopeless:
            self.draft.keep(job, LOAD, hopeless)
            return None
        blocked = held or self.draft.not_now(job)
        if blocked and self.draft.waiting:
            self.draft.hold(job, LOAD, blocked)
            return None
        found = self._search(job, source)
        if found.node is None and found.budget:
            self.draft.hold(job, LOAD, found.budget)
        elif found.node is None:
            self.draft.keep(job, LOAD, "no node where it gains: " + "; ".join(found.against[:3]))
        elif blocked:
            self.draft.hold(job, LOAD, blocked)
            return None
        else:
            self.draft.keep(job, LOAD, f"another job of {source.view.name} goes first")
        return found

    def _hopeless(self, job: JobView, source: NodeState) -> str:
        """Why the job gains nowhere, told without a search; empty when it may gain."""
        if not job.movable:
            return job.why_not_movable or "may not be moved"
        if job.cpu_demand < IDLE:
            return f"idle: {job.cpu_demand:.2f} runnable"
        if source.leaving_load <= 1:
            return f"{source.view.name} has {_figures(source)}: enough for all"
        least = next((name for _, _, name in self.order if name != source.view.name), None)
        if least is None:
            return "there is no other node"
        there = self.draft.picture.nodes[least]
        best = there.load + job.cpu_demand / self.largest
        if best + SPARE * job.cpu_demand / self.largest >= source.leaving_load:
            return f"no gain: {source.view.name} has {_figures(source)}, {least}, the least loaded, {_figures(there)} already"
        most = worth(job, source.leaving_load, best, self.draft.move_cost)
        if most.gain <= self.policy.min_gain:
            return f"no gain: on {least} it ends at most {most.speedup:.2f}x sooner, for {most.freeze:.1f} s of freeze"
        return ""

    def _search(self, job: JobView, source: NodeState) -> Search:
        found = Search()
        here, left, cheapest = source.leaving_load, LOOK_AT, float("inf")
        falls = -self.scale.cpu_rise(here, source.view.cpu_capacity, -job.cpu_demand)
        for load, _, name in self.order:
            if load + (1 + SPARE) * job.cpu_demand / self.largest >= here or left == 0:
                break
            if self.scale.cpu_rise(load, self.largest, job.cpu_demand) >= cheapest:
                break
            state = self.draft.picture.nodes[name]
            rise = self.scale.cpu_rise(load, state.view.cpu_capacity, job.cpu_demand)
            result = worth(job, here, load + job.cpu_demand / state.view.cpu_capacity, self.draft.move_cost)
            against = self._against(job, source, state, falls - rise, result)
            held = "" if against else self._closed_now(name)
            if against or held:
                found.budget = found.budget or held
                found.against.append(f"{name}: {against or held}")
                continue
            left -= 1
            total = rise + self.scale.memory_rise(state.memory, state.view.memory_capacity, job.memory)
            if total < cheapest:
                cheapest = total
                found.node, found.worth, found.score = state, result, (falls - rise) * _net(result)
        return found

    def _against(self, job: JobView, source: NodeState, state: NodeState, fall: float, result: Worth) -> str:
        """What forbids this destination, or makes it no gain; empty when the job gains there."""
        if state is source:
            return "it is there"
        why = refused(state.view, job.node_selector, job.tolerations)
        if why:
            return why
        if not gains(job, source, state, fall, result, self.policy.min_gain):
            return f"{_figures(state)} already"
        return self.draft.room(state, job)

    def _closed_now(self, name: str) -> str:
        if name in self.draft.givers:
            return f"{name} is about to give a job away"
        return self.draft.budget_of(name)

    def _plan(self, job: JobView, source: NodeState, found: Search) -> None:
        if found.node is None or found.worth is None:
            raise ValueError(f"{job.key}: no destination to plan for")
        destination = found.node
        reason = (
            f"{source.view.name} has {_figures(source)}, {destination.view.name} {_figures(destination)}: "
            f"finishes {found.worth.speedup:.1f}x sooner for {found.worth.freeze:.1f} s of freeze"
        )
        before = _rank(destination), _rank(source)
        self.draft.move(job, source, destination, reason, found.worth.gain)
        for rank, state in zip(before, (destination, source), strict=True):
            if not closed(state.view):
                self.order.remove(rank)
                insort(self.order, _rank(state))


def gains(job: JobView, source: NodeState, state: NodeState, fall: float, result: Worth, min_gain: float) -> bool:
    """The rule of the module's docstring. ``fall`` is that of the opportunity cost of CPU."""
    with_spare = state.load + (1 + SPARE) * job.cpu_demand / state.view.cpu_capacity
    return fall > 1e-12 and with_spare < source.leaving_load and result.gain > min_gain


def even_out(draft: Draft) -> None:
    """Adds the moves that load wants."""
    Evening(draft).run()


def _rank(state: NodeState) -> tuple[float, float, str]:
    return (state.load, state.memory_share, state.view.name)


def _net(result: Worth) -> float:
    saved = 1 - 1 / result.speedup
    return result.gain / saved if saved > 0 else 0.0


def _figures(state: NodeState) -> str:
    """``9.0 runnable on 0.35 cores``, ``none on 0.35``."""
    tasks = state.tasks + state.surplus
    if tasks < 0.05:
        return f"none on {format_cpu(state.view.cpu_capacity)}"
    return f"{tasks:.1f} runnable on {format_cpu(state.view.cpu_capacity)} cores"
