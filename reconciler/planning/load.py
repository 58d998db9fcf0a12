"""Evening out CPU load: from the most loaded node downwards, one move after the other.

A job moves when all of this holds; ``gains`` is the whole rule:

1. the opportunity cost of CPU falls (it is convex, so this is what evens out);
2. its destination is better for the job itself, by a margin (``worth.SPARE``);
3. it saves more than ``minGain`` of its remaining time beyond the freeze.

By 2 the larger load of the two nodes falls with every move and no node comes to have more: the loads, sorted, fall in lexicographic
order. So the cluster never returns to a state it was in, and it comes to rest. Three more rules spare moves that a later plan would
revise: a node gives or takes within one plan, never both; nodes below the mean give nothing as long as others do, for they will
receive; and a job waits for its best destination rather than go to a worse one because the best is busy.
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
from reconciler.planning.worth import IDLE, SPARE, Worth, stretch, worth

LOOK_AT = 64
"""Of the acceptable destinations, least loaded first, so many are compared; bounds the time of a decision in a large cluster."""


WORSE = 1.15
"""How many times longer the job may take at a free destination before it had better wait for the best, which is busy."""


@dataclass(slots=True)
class Search:
    """The best destination found for a job, and what spoke against others."""

    node: NodeState | None = None
    worth: Worth | None = None
    after: float = 0.0
    """Load of the node with the job."""
    score: float = 0.0
    """Fall of the opportunity cost, less the share of the time saved that the freeze eats."""
    against: list[str] = field(default_factory=list)
    held: str = ""
    """Why the best destination takes no job at the moment."""
    worth_waiting: float = float("inf")
    """Load from which on another destination is so much worse that the job had better wait for the best.

    A job that goes to the second best because the best is busy for a second goes twice, or even comes back.
    """

    def wait_for(self, held: str, limit: float) -> None:
        """A good destination is busy; ``limit`` is how loaded another may become and still be as good."""
        if limit < self.worth_waiting:
            self.held, self.worth_waiting = held, limit


class Evening:
    """One run over all nodes. Destinations stay sorted by load."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.policy = draft.policy
        states = list(draft.picture.nodes.values())
        views = [state.view for state in states]
        self.scale: Scale = scale([s.load for s in states], [v.cpu_capacity for v in views], [v.memory_capacity for v in views])
        self.mean = sum(state.tasks for state in states) / sum(view.cpu_capacity for view in views)
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
        best: tuple[float, int, str] | None = None
        choice: tuple[JobView, Search] | None = None
        for most, job in self._hopeful(source):
            if best is not None and most <= -best[0]:
                self.draft.keep(job, LOAD, f"another job of {source.view.name} goes first")
                continue
            found = self._try(job, source)
            key = (-round(found.score, 12), job.memory, job.key)
            if found.node is not None and (best is None or key < best):
                best, choice = key, (job, found)
        if choice is None:
            return False
        self._plan(choice[0], source, choice[1])
        return True

    def _hopeful(self, source: NodeState) -> list[tuple[float, JobView]]:
        """Jobs that may move now and might gain, each with the most that its move can score, best first. Of the others: why not."""
        held = self._held_up(source)
        hopeful = []
        for job in source.jobs:
            hopeless = self._hopeless(job, source)
            if hopeless:
                self.draft.keep(job, LOAD, hopeless)
            elif held or self.draft.not_now(job):
                self._hold(job, source, held or self.draft.not_now(job))
            else:
                hopeful.append((self._most(job, source), job))
        return sorted(hopeful, key=lambda pair: (-pair[0], pair[1].memory, pair[1].key))

    def _hold(self, job: JobView, source: NodeState, why: str) -> None:
        """One job that would surely move is enough to call the cluster unbalanced, so the search is made for that one only."""
        if not self.draft.waiting and self._try(job, source).node is None:
            return
        self.draft.hold(job, LOAD, why)

    def _try(self, job: JobView, source: NodeState) -> Search:
        """The job's best destination; with why it stays unless it is the one that is chosen."""
        found = self._search(job, source)
        if found.node is not None:
            self.draft.keep(job, LOAD, f"another job of {source.view.name} goes first")
        elif found.held:
            self.draft.hold(job, LOAD, found.held)
        else:
            self.draft.keep(job, LOAD, "no node where it gains: " + "; ".join(found.against[:3]))
        return found

    def _most(self, job: JobView, source: NodeState) -> float:
        """Fall of the cost if the largest node were as empty as the emptiest."""
        falls = -self.scale.cpu_rise(source.leaving_load, source.view.cpu_capacity, -job.cpu_demand)
        return falls - self.scale.cpu_rise(self.order[0][0], self.largest, job.cpu_demand)

    def _held_up(self, source: NodeState) -> str:
        name = source.view.name
        if name in self.draft.takers:
            return f"{name} is about to receive a job"
        if source.leaving_load <= self.mean and (self.draft.moves or self.draft.under_way):
            return f"{name} is below the mean load, nodes above it go first"
        return self.draft.budget_of(name)

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
        """The destination where the job adds least to the opportunity cost, CPU and memory; among equals one that is free now."""
        found = Search()
        here, left, cheapest = source.leaving_load, LOOK_AT, float("inf")
        falls = -self.scale.cpu_rise(here, source.view.cpu_capacity, -job.cpu_demand)
        for load, _, name in self.order:
            with_job = load + job.cpu_demand / self.largest
            if with_job + SPARE * job.cpu_demand / self.largest >= here or with_job > found.worth_waiting or left == 0:
                break
            if self.scale.cpu_rise(load, self.largest, job.cpu_demand) >= cheapest:
                break
            state = self.draft.picture.nodes[name]
            after = load + job.cpu_demand / state.view.cpu_capacity
            rise = self.scale.cpu_rise(load, state.view.cpu_capacity, job.cpu_demand)
            result = worth(job, here, after, self.draft.move_cost)
            against = self._against(job, source, state, falls - rise, result)
            if against:
                found.against.append(f"{name}: {against}")
                continue
            held = self.draft.cannot_take(name)
            if held:
                found.wait_for(held, WORSE * stretch(after))
                continue
            left -= 1
            total = rise + self.scale.memory_rise(state.memory, state.view.memory_capacity, job.memory)
            if total < cheapest:
                cheapest = total
                found.node, found.worth, found.after, found.score = state, result, after, (falls - rise) * _net(result)
        if found.after > found.worth_waiting:
            found.node = None
        return found

    def _against(self, job: JobView, source: NodeState, state: NodeState, fall: float, result: Worth) -> str:
        """What forbids this destination, or makes it no gain; empty when the job gains there."""
        if state is source:
            return "it is there"
        why = refused(state.view, job)
        if why:
            return why
        if not gains(job, source, state, fall, result, self.policy.min_gain):
            return f"{_figures(state)} already"
        return self.draft.room(state, job)

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
