"""By which rule load is evened out: one class a goal. All look at many jobs and many nodes at once.

A rule says which destinations are good for a job (rows: jobs of one node, columns: nodes), what each costs (the least is taken),
and how much a job's move is worth (the best of a node's jobs goes first).

**opportunity-cost.** A job moves when all of this holds:

1. the opportunity cost of CPU falls (it is convex, so this is what evens out);
2. its destination is better for the job itself, by a margin (``worth.SPARE``);
3. it saves more than ``minGain`` of its remaining time beyond the freeze.

**mosix.** A job moves when the load there and 1.3 times the job are less than the load here; the second largest job of a node goes.
MOSIX's two asymmetric indices are the two readings of ``picture``: what a node goes by itself falls at once when a job has left,
what others see of it rises at once when one is announced, and falls only with the agent's smoothed figure.

**threshold.** From nodes above ``high`` to nodes below ``low``, none of which comes above ``high``; the largest job that fits.

By 2, and its like in the other two, the larger slowness of the two nodes falls with every move and no node comes to have more: the
slownesses of all jobs, sorted, fall in lexicographic order. So the cluster never returns to where it was, and it comes to rest.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from crds.quantity import format_cpu
from reconciler.planning.cost import Scale, scale
from reconciler.planning.draft import Draft
from reconciler.planning.picture import Bools, Floats, Ints, Picture
from reconciler.planning.worth import SPARE, freezes, remaining, stretch

TINY = 1e-9
"""What adding up leaves over."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of some jobs of one node (rows) at some destinations (columns), memory and budgets aside."""

    good: Bools
    price: Floats
    """The least is taken."""
    score: Floats
    """Of a node's jobs the one with the highest goes first."""
    after: Floats
    """Load of the destination with the job."""
    gain: Floats
    """Share of its remaining time that the job saves, net of the freeze."""


class Rule(Protocol):
    """A goal."""

    def most(self, jobs: Ints, power: float, speed: float) -> Floats:
        """The load below which a node of at most this power and speed may be good for each job; whatever is good is below."""
        ...

    def judge(self, jobs: Ints, source: int, there: Ints) -> Judgement:
        """Jobs of ``source`` at the nodes ``there``."""
        ...

    def load(self) -> Floats:
        """Load of each node as others see it."""
        ...

    def satisfied(self, node: int) -> str:
        """Why nothing needs to leave the node; empty when something may."""
        ...


class OpportunityCost:
    """The default."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.picture = draft, draft.picture
        picture = self.picture
        self.scale: Scale = scale(picture.load, picture.power, picture.capacity)
        self.fastest = _fastest(picture)

    def load(self) -> Floats:
        return self.picture.load

    def most(self, jobs: Ints, power: float, speed: float) -> Floats:
        picture = self.picture
        at, demand = picture.jobs.at[jobs], picture.jobs.demand[jobs]
        here = stretch(picture.leaving[at], picture.speed[at])
        busy = np.minimum(1.0, demand)
        by_gain = here * (1 - (self.draft.policy.min_gain + freezes(picture, jobs) / remaining(picture, jobs)) / busy)
        by_spare = here - SPARE * demand / power
        limit = np.minimum(by_gain, by_spare)
        return np.where(limit > 1 / speed - TINY, limit - demand / power + TINY, -np.inf)

    def judge(self, jobs: Ints, source: int, there: Ints) -> Judgement:
        picture, policy = self.picture, self.draft.policy
        demand, memory = picture.jobs.demand[jobs][:, None], picture.jobs.memory[jobs][:, None]
        load, power, speed = picture.load[there][None, :], picture.power[there][None, :], picture.speed[there][None, :]
        leaving = picture.leaving[source]
        here, after = stretch(leaving, picture.speed[source]), load + demand / power
        slow = stretch(after, speed)
        saved = 1 - slow / here
        gain = saved * np.minimum(1.0, demand) - (freezes(picture, jobs) / remaining(picture, jobs))[:, None]
        rise = self.scale.cpu_rise(load, power, demand)
        fall = -self.scale.cpu_rise(leaving, picture.power[source], -demand) - rise
        with_spare = stretch(load + (1 + SPARE) * demand / power, speed)
        good = (fall > 1e-12) & (with_spare < here) & (gain > policy.min_gain)
        price = rise + self.scale.memory_rise(picture.memory[there][None, :], picture.capacity[there][None, :], memory)
        net = np.divide(gain, saved, out=np.zeros_like(gain), where=saved > 0)
        return Judgement(good, price, fall * net, after, gain)

    def satisfied(self, node: int) -> str:
        picture = self.picture
        if stretch(picture.leaving[node], picture.speed[node]) > 1 / self.fastest + TINY:
            return ""
        return f"{picture.names[node]} has {figures(picture, node)}: enough for all"


class Mosix:
    """The 130 % rule with two asymmetric readings."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.picture = draft, draft.picture

    def load(self) -> Floats:
        return self.picture.load

    def most(self, jobs: Ints, power: float, speed: float) -> Floats:
        demand = self.picture.jobs.demand[jobs]
        return np.asarray(self.picture.leaving[self.picture.jobs.at[jobs]] - (1 + SPARE) * demand / power + TINY)

    def judge(self, jobs: Ints, source: int, there: Ints) -> Judgement:
        picture = self.picture
        demand = picture.jobs.demand[jobs]
        load, share = self.load()[there][None, :], demand[:, None] / picture.power[there][None, :]
        here = float(self.picture.leaving[source])
        good = load + (1 + SPARE) * share < here
        turn = np.empty(len(jobs))
        turn[np.lexsort((-picture.jobs.memory[jobs], -demand))] = np.arange(len(jobs))
        turn = np.where(turn == 0, len(jobs), turn) if len(jobs) > 1 else turn
        after = load + share
        score = np.broadcast_to(1.0 + len(jobs) - turn[:, None], good.shape)
        return Judgement(good, np.broadcast_to(load, good.shape), score, after, 1 - after / max(here, TINY))

    def satisfied(self, node: int) -> str:
        picture = self.picture
        if self.picture.leaving[node] * picture.speed[node] > 1 - TINY or picture.speed[node] < _fastest(picture):
            return ""
        return f"{picture.names[node]} has {figures(picture, node)}: enough for all"


class Threshold:
    """High and low water of load."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.picture, self.limits = draft, draft.picture, draft.policy.threshold

    def load(self) -> Floats:
        return self.picture.load

    def most(self, jobs: Ints, power: float, speed: float) -> Floats:
        picture, share = self.picture, self.picture.jobs.demand[jobs] / power
        leaving = picture.leaving[picture.jobs.at[jobs]]
        limit = np.minimum(self.limits.low, np.minimum(self.limits.high, leaving) - share) + TINY
        return np.where(leaving > self.limits.high, limit, -np.inf)

    def judge(self, jobs: Ints, source: int, there: Ints) -> Judgement:
        picture, limits = self.picture, self.limits
        demand = picture.jobs.demand[jobs][:, None]
        load = picture.load[there][None, :]
        after, here = load + demand / picture.power[there][None, :], picture.leaving[source]
        good = (here > limits.high) & (load < limits.low) & (after <= limits.high) & (after < here - TINY)
        return Judgement(good, after, np.broadcast_to(demand, good.shape), after, 1 - after / max(here, TINY))

    def satisfied(self, node: int) -> str:
        if self.picture.leaving[node] > self.limits.high:
            return ""
        return f"{self.picture.names[node]} has {figures(self.picture, node)}: not above the high load of {self.limits.high:g}"


def _fastest(picture: Picture) -> float:
    return float(picture.speed[picture.open].max(initial=TINY))


def figures(picture: Picture, node: int) -> str:
    """``9.0 runnable on 0.35 cores``, ``none on 0.35``."""
    tasks, speed = picture.tasks[node] + picture.surplus[node], picture.speed[node]
    cores = format_cpu(picture.cores[node])
    at = "" if speed == 1 else f" of speed {speed:.3g}"
    if tasks < 0.05:
        return f"none on {cores}{at}"
    return f"{tasks:.1f} runnable on {cores} cores{at}"
