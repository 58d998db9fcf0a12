"""What planning believes of each node while it draws up a plan: the snapshot in columns, with moves counted where they go.

A load comes in two readings, both on the safe side (MOSIX keeps two asymmetric indices for the same purpose):

- ``leaving``, for a node that might give a job away: the jobs that stay there and nothing else, so that the demand of a
  job that has just left, which fades only slowly from the node's own figure, drives out no second one;
- ``load``, for a node that might receive one: the larger of that and the node's own figure, and a newcomer counts as one whole task
  until it is known, so that two decisions in a row do not fill the same gap.

Both are runnable tasks by ``power``, which is cores times speed. It is all columns, for fifty thousand jobs are decided on at once.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconciler.planning.fit import Fit, closed
from reconciler.planning.types import JobView, NodeView, Snapshot

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Distrust = Callable[[list[NodeView], "JobColumns"], dict[int, str]]
"""By index of a node, why its sample is not acted on."""

NOWHERE = -1
HUGE = 1e300
"""What stands for a figure beyond what a float can hold: it is garbage anyway, and judged as that."""


def floats(items: Sequence[Any], name: str) -> Floats:
    """The attribute of each item; None becomes NaN."""
    get = attrgetter(name)
    try:
        return np.fromiter(map(get, items), np.float64, len(items))
    except (TypeError, OverflowError):
        return np.array([_float(get(item)) for item in items], np.float64)


def _float(value: Any) -> float:
    if value is None:
        return float("nan")
    return min(max(value, -HUGE), HUGE) if isinstance(value, int) else float(value)


@dataclass
class JobColumns:
    """One row a job, sorted by key. ``at`` is the index of its node, NOWHERE if that does not count."""

    views: list[JobView]
    at: Ints
    demand: Floats
    memory: Floats
    resident: Floats
    moving: Bools

    @cached_property
    def age(self) -> Floats:
        """Seconds since its first start."""
        return floats(self.views, "age")

    def find(self, key: str) -> int:
        """The row of the job; NOWHERE when there is none."""
        row = bisect_left(self.views, key, key=attrgetter("key"))
        return row if row < len(self.views) and self.views[row].key == key else NOWHERE


class Picture:
    """All nodes that count, one row each in name order, and all jobs.

    ``tasks`` are runnable tasks of the jobs that stay or come; ``surplus`` tasks beyond these that the node reports, or that
    newcomers are taken to have; ``memory`` bytes used with all that comes; ``departing`` bytes of jobs that go, which are free only
    when these have gone.
    """

    def __init__(self, snapshot: Snapshot, views: list[NodeView], jobs: JobColumns, newcomer: float) -> None:
        self.snapshot = snapshot
        self.views = views
        self.names = [view.name for view in views]
        self.jobs = jobs
        self.fit = Fit(views)
        self.distrusted: dict[str, str] = {}
        """Nodes that are left out, and why."""
        self.lost: list[str] = []
        """Jobs that are left out, and why."""
        self.cores, self.speed = floats(views, "cpu_capacity"), floats(views, "speed")
        self.power = self.cores * self.speed
        self.capacity = floats(views, "memory_capacity")
        self.open = np.array([not closed(view) for view in views], np.bool_)
        self._count(newcomer)
        self.staying: Bools = (jobs.at >= 0) & ~jobs.moving
        """Jobs that are on a node that counts, and are not moving."""
        order = np.argsort(jobs.at, kind="stable")
        self._order = order[np.searchsorted(jobs.at[order], 0) :]
        self._start = np.searchsorted(jobs.at[self._order], np.arange(len(views) + 1))

    def _count(self, newcomer: float) -> None:
        """Memory is at least that of the jobs placed there, whatever a late sample says."""
        jobs, count = self.jobs, len(self.views)
        here = jobs.at >= 0
        at = jobs.at[here]
        self.tasks = _sums(at, jobs.demand[here], count)
        fresh = np.where(jobs.resident < newcomer, np.maximum(0.0, 1.0 - jobs.demand), 0.0)
        self.surplus = np.maximum(0.0, floats(self.views, "cpu_demand") - self.tasks) + _sums(at, fresh[here], count)
        self.memory = np.maximum(floats(self.views, "memory_used"), _sums(at, jobs.memory[here], count))
        self.departing = np.zeros(count)

    @property
    def leaving(self) -> Floats:
        """Runnable tasks by power, the lower reading."""
        return np.asarray(self.tasks / self.power)

    @property
    def load(self) -> Floats:
        """Runnable tasks by power, the upper reading."""
        return np.asarray((self.tasks + self.surplus) / self.power)

    @property
    def mean(self) -> float:
        """Runnable tasks by power over all nodes."""
        return float(self.tasks.sum() / self.power.sum())

    @property
    def ignored(self) -> tuple[str, ...]:
        """All that is left out, one line each."""
        return (*(f"{name}: {why}" for name, why in self.distrusted.items()), *self.lost)

    def on(self, node: int) -> Ints:
        """Rows of the jobs on the node that are not moving, by key."""
        rows = self._order[self._start[node] : self._start[node + 1]]
        return np.asarray(rows[self.staying[rows]])

    def find(self, node: str) -> int:
        """The row of the node; NOWHERE when it does not count."""
        row = bisect_left(self.names, node)
        return row if row < len(self.names) and self.names[row] == node else NOWHERE

    def move(self, job: int, source: int, destination: int) -> None:
        """Counts a job where it goes; NOWHERE for an end that does not count."""
        self.staying[job] = False
        if source != NOWHERE:
            self.tasks[source] -= self.jobs.demand[job]
            self.departing[source] += self.jobs.memory[job]
        if destination != NOWHERE:
            self.tasks[destination] += self.jobs.demand[job]
            self.memory[destination] += self.jobs.memory[job]


def draw(snapshot: Snapshot, distrust: Distrust, newcomer: float = 0.0) -> Picture:
    """The picture without the nodes that ``distrust`` gives a reason for. A job is a newcomer for that many seconds."""
    nodes = sorted(snapshot.nodes, key=attrgetter("name"))
    jobs = _columns(snapshot, nodes)
    why = distrust(nodes, jobs)
    garbage = ~(np.isfinite(jobs.demand) & np.isfinite(jobs.memory))
    jobs.demand[garbage] = jobs.memory[garbage] = 0.0
    unknown = np.flatnonzero(jobs.at == NOWHERE)
    kept = np.array([index not in why for index in range(len(nodes))], np.bool_)
    rows = np.append(np.where(kept, np.cumsum(kept) - 1, NOWHERE), NOWHERE)
    jobs.at = rows[jobs.at]
    picture = Picture(snapshot, [view for view, keep in zip(nodes, kept, strict=True) if keep], jobs, newcomer)
    picture.distrusted = {nodes[index].name: text for index, text in why.items()}
    strays = sorted((jobs.views[row] for row in unknown), key=attrgetter("node"))
    picture.lost = [f"{job.key}: its node {job.node} is unknown" for job in strays]
    _count_moves(picture, snapshot)
    return picture


def _columns(snapshot: Snapshot, nodes: list[NodeView]) -> JobColumns:
    views = sorted(snapshot.jobs, key=attrgetter("key"))
    rows = {view.name: row for row, view in enumerate(nodes)}
    at = np.fromiter(map(rows.get, map(attrgetter("node"), views), repeat(NOWHERE)), np.int64, len(views))
    moving = np.zeros(len(views), np.bool_)
    jobs = JobColumns(views, at, floats(views, "cpu_demand"), floats(views, "memory"), floats(views, "resident_for"), moving)
    moving[[row for move in snapshot.moves if (row := jobs.find(move.job)) != NOWHERE]] = True
    return jobs


def _count_moves(picture: Picture, snapshot: Snapshot) -> None:
    """Each move under way counts at its destination, and as one task at least: a frozen job shows no demand."""
    jobs = picture.jobs
    for move in snapshot.moves:
        job = jobs.find(move.job)
        if job == NOWHERE:
            picture.lost.append(f"{move.job}: moves from {move.source} to {move.destination}, but is unknown")
            continue
        here, there = int(jobs.at[job]), picture.find(move.destination)
        if here == there:
            continue
        picture.move(job, here, there)
        if there != NOWHERE:
            picture.surplus[there] += max(0.0, 1.0 - jobs.demand[job])


def _sums(at: Ints, values: Floats, count: int) -> Floats:
    return np.asarray(np.bincount(at, values, count), np.float64) if count else np.zeros(0)


def rows(mask: Bools) -> Iterable[int]:
    """Indices at which it holds, as plain numbers."""
    return (int(row) for row in np.flatnonzero(mask))
