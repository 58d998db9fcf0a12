"""Which samples are believed. One bad sample must not move anything: a node whose figures are old or cannot be true is left out.

Such nodes are neither source nor destination until a sample comes that can be true. The text goes into the policy's status.
All nodes are looked at in columns; only of those that are suspicious is a reason written.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np

from reconciler.planning.fit import closed
from reconciler.planning.picture import HUGE, Bools, Floats, JobColumns, floats
from reconciler.planning.types import JobView, NodeView

MOST_TASKS = 10_000.0
"""More runnable tasks on one node are taken for garbage."""
MOST_SPEED = 1000.0
"""A core that is so many times faster than another is taken for garbage, and so is one that is slower."""


def distrust(nodes: list[NodeView], jobs: JobColumns, max_age: float) -> dict[int, str]:
    """By index of each node whose load is not acted on, why. ``max_age`` is seconds."""
    ages = floats(nodes, "sample_age")
    ready = np.fromiter((node.ready for node in nodes), np.bool_, len(nodes))
    odd = ~ready | ~(ages <= max_age) | _odd(nodes, jobs) | _odd_sums(nodes, jobs, ages)
    return _told(odd, nodes, jobs, lambda node, there: _distrust(node, there, max_age))


def unusable(nodes: list[NodeView], jobs: JobColumns) -> dict[int, str]:
    """By index of each node that nothing can be placed on, why, its sample's age aside."""
    shut = np.fromiter((bool(closed(node)) for node in nodes), np.bool_, len(nodes))
    return _told(shut | _odd(nodes, jobs), nodes, jobs, lambda node, there: closed(node) or impossible(node, there))


def _told(odd: Bools, nodes: list[NodeView], jobs: JobColumns, why: Callable[[NodeView, list[JobView]], str]) -> dict[int, str]:
    """The reasons of those that look odd."""
    if not odd.any():
        return {}
    there: dict[int, list[JobView]] = defaultdict(list)
    for row in np.flatnonzero(odd[jobs.at] & (jobs.at >= 0) & ~jobs.moving):
        there[int(jobs.at[row])].append(jobs.views[row])
    texts = {int(index): why(nodes[index], there[int(index)]) for index in np.flatnonzero(odd)}
    return {index: text for index, text in texts.items() if text}


def _odd(nodes: list[NodeView], jobs: JobColumns) -> Bools:
    """Nodes with a figure that cannot be true, whatever the node does; the same rules as ``impossible``."""
    cores, memory, speed = floats(nodes, "cpu_capacity"), floats(nodes, "memory_capacity"), floats(nodes, "speed")
    demand, used = floats(nodes, "cpu_demand"), floats(nodes, "memory_used")
    good = np.isfinite(cores) & (cores > 0) & np.isfinite(memory) & (memory > 0) & (memory < HUGE)
    good &= (speed >= 1 / MOST_SPEED) & (speed <= MOST_SPEED)
    good &= (demand >= 0) & (demand <= MOST_TASKS) & (used >= 0) & (used <= 2 * memory)
    bad = jobs.at[~possible(jobs) & (jobs.at >= 0) & ~jobs.moving]
    good[bad] = False
    return np.asarray(~good)


def possible(jobs: JobColumns) -> Bools:
    """Jobs whose figures can be true."""
    return np.asarray((jobs.demand >= 0) & (jobs.demand <= MOST_TASKS) & (jobs.memory >= 0) & (jobs.memory < HUGE))


def _odd_sums(nodes: list[NodeView], jobs: JobColumns, ages: Floats) -> Bools:
    """Nodes whose own figures contradict those of their jobs; the same rules as ``_contradiction``."""
    count = len(nodes)
    rows = np.flatnonzero((jobs.at >= 0) & ~jobs.moving & possible(jobs))
    at = jobs.at[rows]
    settled = jobs.resident[rows] > 2 * np.nan_to_num(ages[at]) + 5.0
    demand = np.bincount(at[settled], jobs.demand[rows][settled], count) if count else np.zeros(0)
    some = np.bincount(at[settled], minlength=count) > 0
    own = floats(nodes, "cpu_demand")
    less = (demand - own > 0.5) & (own < demand / 2)
    return np.asarray(less | (some & (own == 0) & (floats(nodes, "memory_used") == 0)))


def _distrust(node: NodeView, jobs: list[JobView], max_age: float) -> str:
    """Why the node's load is not acted on; empty when it is. ``jobs`` are the jobs placed on it, ``max_age`` is seconds."""
    if not node.ready:
        return "not ready"
    if node.sample_age is None:
        return "never reported its load"
    if not math.isfinite(node.sample_age):
        return f"impossible sample: it is {node.sample_age} s old"
    if node.sample_age > max_age:
        return f"its load sample is {node.sample_age:.0f} s old, more than {max_age:g} s"
    return impossible(node, jobs) or _contradiction(node, jobs)


def impossible(node: NodeView, jobs: Iterable[JobView]) -> str:
    """Which figure cannot be true, whatever the node does; empty when all can."""
    if not (math.isfinite(node.cpu_capacity) and node.cpu_capacity > 0):
        return f"impossible sample: it has {node.cpu_capacity:g} cores"
    if not 0 < node.memory_capacity < HUGE:
        return f"impossible sample: it has {_short(node.memory_capacity)} bytes of memory"
    if not 1 / MOST_SPEED <= node.speed <= MOST_SPEED:
        return f"impossible sample: its cores have speed {node.speed:g}"
    if not 0 <= node.cpu_demand <= MOST_TASKS:
        return f"impossible sample: {node.cpu_demand:g} runnable tasks"
    if not 0 <= node.memory_used <= 2 * node.memory_capacity:
        return f"impossible sample: {_short(node.memory_used)} of {node.memory_capacity} bytes used"
    return next((text for job in jobs if (text := _impossible_job(job))), "")


def _impossible_job(job: JobView) -> str:
    if not 0 <= job.cpu_demand <= MOST_TASKS:
        return f"impossible sample: {job.cpu_demand:g} runnable tasks of {job.key}"
    if not 0 <= job.memory < HUGE:
        return f"impossible sample: {_short(job.memory)} bytes of {job.key}"
    return ""


def _short(number: float) -> str:
    return f"{number}" if abs(number) < 1e18 else "far too many"


def _contradiction(node: NodeView, jobs: list[JobView]) -> str:
    """Figures that contradict each other. Only jobs count that were there for long when the sample was taken."""
    settled = [job for job in jobs if job.resident_for > 2 * (node.sample_age or 0.0) + 5.0]
    demand = sum(job.cpu_demand for job in settled)
    if demand - node.cpu_demand > 0.5 and node.cpu_demand < demand / 2:
        return f"impossible sample: {node.cpu_demand:.2f} runnable tasks while its jobs alone have {demand:.2f}"
    if settled and node.cpu_demand == 0 and node.memory_used == 0:
        return f"impossible sample: all zero while {len(settled)} jobs run there"
    return ""
