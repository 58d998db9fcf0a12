"""Which samples are believed. One bad sample must not move anything: a node whose figures are old or cannot be true is left out.

Such nodes are neither source nor destination until a sample comes that can be true. The text goes into the policy's status.
"""

import math
from collections.abc import Iterable

from reconciler.planning.types import JobView, NodeView

MOST_TASKS = 10_000.0
"""More runnable tasks on one node are taken for garbage."""


def distrust(node: NodeView, jobs: list[JobView], max_age: float) -> str:
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
    if not (math.isfinite(node.memory_capacity) and node.memory_capacity > 0):
        return f"impossible sample: it has {node.memory_capacity} bytes of memory"
    if not 0 <= node.cpu_demand <= MOST_TASKS:
        return f"impossible sample: {node.cpu_demand:g} runnable tasks"
    if not 0 <= node.memory_used <= 2 * node.memory_capacity:
        return f"impossible sample: {node.memory_used} of {node.memory_capacity} bytes used"
    return next((text for job in jobs if (text := _impossible_job(job))), "")


def _impossible_job(job: JobView) -> str:
    if not 0 <= job.cpu_demand <= MOST_TASKS:
        return f"impossible sample: {job.cpu_demand:g} runnable tasks of {job.key}"
    if not 0 <= job.memory < math.inf:
        return f"impossible sample: {job.memory} bytes of {job.key}"
    return ""


def _contradiction(node: NodeView, jobs: list[JobView]) -> str:
    """Figures that contradict each other. Only jobs count that were there for long when the sample was taken."""
    settled = [job for job in jobs if job.resident_for > 2 * (node.sample_age or 0.0) + 5.0]
    demand = sum(job.cpu_demand for job in settled)
    if demand - node.cpu_demand > 0.5 and node.cpu_demand < demand / 2:
        return f"impossible sample: {node.cpu_demand:.2f} runnable tasks while its jobs alone have {demand:.2f}"
    if settled and node.cpu_demand == 0 and node.memory_used == 0:
        return f"impossible sample: all zero while {len(settled)} jobs run there"
    return ""
