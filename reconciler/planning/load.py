"""Evening out CPU load: from the most loaded node downwards, one move after the other, by the rule of the goal (``rules``).

Three more rules spare moves that a later plan would revise: a node gives or takes within one plan, never both; nodes below the mean
give nothing as long as others do, for they will receive; and a job waits for its best destination rather than go to a worse one
because the best is busy.

The time of a decision depends on the number of jobs by little more than reading their columns: first all are asked at once whether
anything could be good for them (``_hopeful``), then only nodes that have such jobs are looked at. As a giver takes nothing and a
taker gives nothing, what is hopeless stays so within one plan.
"""

import heapq
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from reconciler.planning.draft import Draft
from reconciler.planning.fit import refused, wants
from reconciler.planning.picture import NOWHERE, Bools, Floats, Ints, rows
from reconciler.planning.rules import TINY, OpportunityCost, Rule, figures
from reconciler.planning.types import Cause
from reconciler.planning.worth import HOME, IDLE, NEAR, SPARE, freezes, remaining, stretch

LOOK_AT = 128
"""Of the destinations so many, least loaded first, are compared at first; all only if none of these is good."""
WORSE = 1.15
"""How many times longer the job may take at a free destination before it had better wait for the best, which is busy."""
SIZES = 12
"""Kinds of nodes by power and speed that are told apart when all jobs are looked at at once."""
FINE_SIZES = 64
"""The same when only the jobs that are left are."""
PATIENCE = 16
"""Nodes looked at in vain, after which all that are left are sifted once more, by what their jobs want of a node."""
TRIES = 200
"""Jobs that are held up, of which one that would move is looked for."""


@dataclass(slots=True)
class Found:
    """The best move of a job. ``node`` NOWHERE: none now; ``held`` says what its best destination waits for."""

    node: int = NOWHERE
    score: float = -np.inf
    gain: float = 0.0
    after: float = 0.0
    held: str = ""


class Evening:
    """One run over all nodes."""

    def __init__(self, draft: Draft, rule: Rule) -> None:
        self.draft, self.rule, self.picture = draft, rule, draft.picture
        self.mean = self.picture.mean
        self.order = self._order()
        self.hopeful = self._hopeful(self._candidates())

    def run(self) -> None:
        """Fills the draft until no move gains or the budget is used up."""
        draft, picture = self.draft, self.picture
        free = self.hopeful & (picture.jobs.resident >= draft.policy.min_residency)
        leaving, vain = picture.leaving, 0
        heap = [(-float(leaving[node]), node) for node in np.unique(picture.jobs.at[free]).tolist()]
        heapq.heapify(heap)
        while heap and not draft.spent:
            node = heapq.heappop(heap)[1]
            if self._held_up(node):
                continue
            if self._relieve(node):
                heapq.heappush(heap, (-float(picture.leaving[node]), node))
                continue
            vain += 1
            if vain == PATIENCE and not picture.fit.free_for_all:
                self.hopeful = self._sift(self.hopeful)
                left = set(picture.jobs.at[self.hopeful].tolist())
                heap = [entry for entry in heap if entry[1] in left]
                heapq.heapify(heap)
            if vain == 2 * PATIENCE:
                break  # their best destinations are busy now, and nothing else keeps them: the next plan goes on
        if not draft.moves and not draft.under_way:
            self._look_for_one_that_waits()
        draft.tell(self.why)

    # --- all jobs at once ---

    def _candidates(self) -> Bools:
        picture = self.picture
        movable = np.fromiter(map(attrgetter("movable"), picture.jobs.views), np.bool_, len(picture.jobs.views))
        return np.asarray(picture.staying & movable & (picture.jobs.demand >= IDLE))

    def _hopeful(self, among: Bools, allowed: Bools | None = None, sizes: int = SIZES) -> Bools:
        """Jobs for which some node may be good: its load is low enough and it has the memory, wherever that node is."""
        picture, found = self.picture, np.zeros(len(among), np.bool_)
        jobs = np.flatnonzero(among)
        usable = picture.open if allowed is None else picture.open & allowed
        load, room = self.rule.load(), self.draft.room
        for nodes, power, speed in self._sizes(usable, sizes):
            order = nodes[np.argsort(load[nodes])]
            most_room = np.maximum.accumulate(room[order])
            below = np.searchsorted(load[order], self.rule.most(jobs, power, speed), "right")
            found[jobs] |= (below > 0) & (most_room[np.maximum(below - 1, 0)] >= picture.jobs.memory[jobs])
        return found

    def _sizes(self, usable: Bools, most: int) -> list[tuple[Ints, float, float]]:
        """Usable nodes in groups of like size: rows, largest power, largest speed."""
        nodes = np.flatnonzero(usable)
        if not len(nodes):
            return []
        power, speed = self.picture.power[nodes], self.picture.speed[nodes]
        exact = np.unique(np.stack((power, speed)), axis=1, return_inverse=True)
        if exact[0].shape[1] <= most:
            group = exact[1].ravel()
        else:
            bounds = np.quantile(power, np.linspace(0, 1, most + 1)[1:-1])
            group = np.searchsorted(bounds, power)
        parts = (nodes[group == number] for number in np.unique(group))
        return [(part, float(self.picture.power[part].max()), float(self.picture.speed[part].max())) for part in parts]

    def _sift(self, among: Bools) -> Bools:
        """Of these jobs those for which some node that they may run on may be good."""
        picture, found = self.picture, np.zeros(len(among), np.bool_)
        kinds: dict[Hashable, list[int]] = defaultdict(list)
        for row in rows(among & picture.staying):
            kinds[wants(picture.jobs.views[row])].append(row)
        for members in kinds.values():
            mine = np.zeros(len(among), np.bool_)
            mine[members] = True
            found |= self._hopeful(mine, picture.fit.allowed(picture.jobs.views[members[0]]), FINE_SIZES)
        return found

    # --- one node ---

    def _relieve(self, node: int) -> bool:
        """Plans the best move away from the node; False when none gains."""
        jobs = self.picture.on(node)
        jobs = np.array([row for row in jobs[self.hopeful[jobs]] if not self.draft.not_for_load(int(row))], np.int64)
        found = self._search(jobs, node)
        moving = [(self._turn(int(row), one), int(row), one) for row, one in zip(jobs, found, strict=True) if one.node != NOWHERE]
        if not moving:
            return False
        _, row, best = min(moving, key=lambda entry: entry[0])
        self.draft.move(row, best.node, self._reason(row, node, best), best.gain, Cause.LOAD)
        self.order = self._order()
        return True

    def _turn(self, row: int, found: Found) -> tuple[int, float, float, int]:
        jobs = self.picture.jobs
        return (-jobs.views[row].priority, -round(found.score, 12), float(jobs.memory[row]), row)

    def _held_up(self, node: int) -> str:
        """Why nothing leaves the node now."""
        if self.draft.takers[node]:
            return self.draft.cannot_give(node)
        if self.picture.leaving[node] <= self.mean and (self.draft.moves or self.draft.under_way):
            return f"{self.picture.names[node]} is below the mean load, nodes above it go first"
        return self.draft.cannot_give(node)

    def _order(self) -> Ints:
        """Nodes that take jobs, least loaded first."""
        picture, load = self.picture, self.rule.load()
        nodes = np.flatnonzero(picture.open)
        share = picture.memory[nodes] / picture.capacity[nodes]
        return np.asarray(nodes[np.lexsort((nodes, share, load[nodes]))])

    def _search(self, jobs: Ints, source: int) -> list[Found]:
        """For each of the node's jobs the destination of the lowest price; among equals the least loaded."""
        if not len(jobs):
            return []
        first = self._least_loaded()
        found = self._compare(jobs, source, first)
        if len(first) < len(self.order):
            missing = [number for number, one in enumerate(found) if one.node == NOWHERE and not one.held]
            for number, one in zip(missing, self._compare(jobs[missing], source, self.order) if missing else (), strict=True):
                found[number] = one
        return found

    def _least_loaded(self) -> Ints:
        """The least loaded nodes of each power, so that a small idle one does not hide a large one."""
        if len(self.order) <= LOOK_AT:
            return self.order
        powers, group = np.unique(self.picture.power[self.order], return_inverse=True)
        if len(powers) > SIZES:
            return self.order[:LOOK_AT]
        each = LOOK_AT // len(powers)
        chosen = np.concatenate([np.flatnonzero(group == number)[:each] for number in range(len(powers))])
        return np.asarray(self.order[np.sort(chosen)])

    def _compare(self, jobs: Ints, source: int, there: Ints) -> list[Found]:
        picture, busy = self.picture, self.draft.busy[there]
        judged = self.rule.judge(jobs, source, there)
        room, views = self.draft.room[there], picture.jobs.views
        fits = np.stack([picture.fit.allowed(views[row])[there] & (room >= picture.jobs.memory[row]) for row in jobs])
        good = judged.good & fits & (there != source)[None, :]
        slow = WORSE * stretch(judged.after, picture.speed[there][None, :])
        limits = np.where(good & busy[None, :], slow, np.inf)
        price = np.where(good & ~busy[None, :], judged.price - self._liking(jobs, there) * (judged.price + TINY), np.inf)
        best, wait = np.argmin(price, axis=1), np.argmin(limits, axis=1)
        found = []
        for number in range(len(jobs)):
            column, limit = int(best[number]), float(limits[number, wait[number]])
            held = self.draft.cannot_take(int(there[wait[number]])) if limit < np.inf else ""
            one = Found(held=held)
            if price[number, column] < np.inf and stretch(judged.after[number, column], picture.speed[there[column]]) <= limit:
                score, gain, after = (float(values[number, column]) for values in (judged.score, judged.gain, judged.after))
                one = Found(int(there[column]), score, gain, after)
            found.append(one)
        return found

    def _liking(self, jobs: Ints, there: Ints) -> Floats:
        """The share of the price that a job gladly pays for its home, and for being where those are that it talks to."""
        picture, bonus = self.picture, np.zeros((len(jobs), len(there)))
        for number, row in enumerate(jobs):
            view = picture.jobs.views[row]
            if view.home and (home := picture.find(view.home)) != NOWHERE:
                bonus[number] += HOME * (there == home)
            for key in view.near:
                if (friend := picture.jobs.find(key)) != NOWHERE:
                    bonus[number] = np.maximum(bonus[number], NEAR * (there == picture.jobs.at[friend]))
        return bonus

    # --- what is said ---

    def _reason(self, row: int, source: int, found: Found) -> str:
        picture, one = self.picture, np.array([row])
        here = stretch(picture.leaving[source], picture.speed[source])
        sooner = float(here / stretch(found.after, picture.speed[found.node]))
        freeze = float(freezes(picture, one)[0])
        return (
            f"{picture.names[source]} has {figures(picture, source)}, {picture.names[found.node]} {figures(picture, found.node)}: "
            f"finishes {sooner:.1f}x sooner for {freeze:.1f} s of freeze"
        )

    def _look_for_one_that_waits(self) -> None:
        """One job that would surely move is enough to call the cluster unbalanced."""
        picture = self.picture
        left = self._sift(self.hopeful) if self.hopeful.sum() > TRIES else self.hopeful
        jobs = np.flatnonzero(left & picture.staying)
        at = picture.jobs.at[jobs]
        for row in jobs[np.lexsort((jobs, at, -picture.leaving[at]))][:TRIES]:
            held = self.draft.not_for_load(int(row))
            node = int(picture.jobs.at[row])
            found = self._search(np.array([row]), node)[0]
            if (held and found.node != NOWHERE) or found.held:
                self.draft.wait(int(row), held or found.held)
                return

    def why(self, row: int) -> str:
        """Why the job stays, as things stand at the end of the plan."""
        node = int(self.picture.jobs.at[row])
        return self._hopeless(row, node) or self._waits(row, node) or self._nowhere(row, node)

    def _waits(self, row: int, node: int) -> str:
        held = self._held_up(node) or self.draft.not_for_load(row)
        found = Found() if held else self._search(np.array([row]), node)[0]
        held = held or found.held or ("its turn comes with the next plan" if found.node != NOWHERE else "")
        return f"waits: {held}" if held else ""

    def _hopeless(self, row: int, node: int) -> str:
        """Why the job gains nowhere, told without a search; empty when it may gain."""
        view = self.picture.jobs.views[row]
        if not view.movable:
            return view.why_not_movable or "may not be moved"
        if view.cpu_demand < IDLE:
            return f"idle: {view.cpu_demand:.2f} runnable"
        if satisfied := self.rule.satisfied(node):
            return satisfied
        least = next((int(other) for other in self.order[:2] if other != node), None)
        if least is None:
            return "there is no other node"
        if self.hopeful[row]:
            return ""
        return self._no_gain(row, node, least)

    def _no_gain(self, row: int, node: int, least: int) -> str:
        picture = self.picture
        power, speed = picture.power[picture.open].max(), picture.speed[picture.open].max()
        here = float(stretch(picture.leaving[node], picture.speed[node]))
        share = picture.jobs.demand[row] / power
        best = float(stretch(self.rule.load()[least] + share, speed))
        with_spare = float(stretch(self.rule.load()[least] + (1 + SPARE) * share, speed))
        if with_spare >= here or not isinstance(self.rule, OpportunityCost):
            there = f"{picture.names[least]}, the least loaded, {figures(picture, least)} already"
            return f"no gain: {picture.names[node]} has {figures(picture, node)}, {there}"
        one = np.array([row])
        freeze, busy = float(freezes(picture, one)[0]), min(1.0, float(picture.jobs.demand[row]))
        if (1 - best / here) * busy - freeze / float(remaining(picture, one)[0]) > self.draft.policy.min_gain:
            return ""
        return f"no gain: on {picture.names[least]} it ends at most {here / best:.2f}x sooner, for {freeze:.1f} s of freeze"

    def _nowhere(self, row: int, source: int) -> str:
        others = [int(node) for node in self.order[:4] if node != source][:3]
        against = [f"{self.picture.names[node]}: {self._against(row, source, node)}" for node in others]
        return "no node where it gains: " + "; ".join(against)

    def _against(self, row: int, source: int, node: int) -> str:
        """What forbids this destination, or makes it no gain."""
        why = refused(self.picture.views[node], self.picture.jobs.views[row])
        if not why and self.rule.judge(np.array([row]), source, np.array([node])).good[0, 0]:
            why = self.draft.no_room(node, row)
        return why or f"{figures(self.picture, node)} already"
