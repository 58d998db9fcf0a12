"""Opportunity cost: what use of a node's CPU and memory costs the jobs still to come.

Source: Amir, Awerbuch, Barak, Borgstrom, Keren, "An opportunity cost approach for job assignment in a scalable computing
cluster" (IEEE TPDS 2000). Cost of a node = sum over resources of n^(used/max), n = number of nodes. For CPU, max is L, the smallest
power of two above the largest load seen: as published. One point is ours: each term is weighted by the node's size over the mean
size, so that a node of 0.4 cores costs what two of 0.2 cores cost (equal nodes: weight 1, as published). Without it the sum is
smallest with everything on the fast node as long as n is small (2 nodes, 3 jobs: 3 and 0 instead of 2 and 1).

Load is runnable tasks by core. The cost is convex in every load, so evening out lowers it; how much depends on n and L, therefore
it serves to compare, and never meets a threshold.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """What turns loads and memory into cost, the same for all nodes of one decision."""

    base: float
    """Number of nodes, at least 2: with base 1 nothing would cost anything."""
    load_max: float
    """L, runnable tasks by core."""
    mean_cpu: float
    """Mean capacity, cores."""
    mean_memory: float
    """Mean capacity, bytes."""

    def cpu(self, load: float, capacity: float) -> float:
        """Cost of a CPU that has ``load`` runnable tasks by core."""
        return capacity / self.mean_cpu * float(self.base ** (load / self.load_max))

    def memory(self, used: float, capacity: float) -> float:
        """Cost of ``used`` bytes out of ``capacity``."""
        return capacity / self.mean_memory * float(self.base ** (used / capacity))

    def cpu_rise(self, load: float, capacity: float, demand: float) -> float:
        """By how much the cost rises when ``demand`` (tasks; negative: falls when they leave) is added."""
        return self.cpu(load + demand / capacity, capacity) - self.cpu(load, capacity)

    def memory_rise(self, used: float, capacity: float, size: float) -> float:
        """By how much the cost rises when ``size`` bytes are added."""
        return self.memory(used + size, capacity) - self.memory(used, capacity)


def scale(loads: Iterable[float], cpus: list[float], memories: list[int]) -> Scale:
    """The scale for nodes of these capacities. ``loads`` are all the loads that may be asked for, by core; no list may be empty."""
    return Scale(float(max(2, len(cpus))), power_of_two_above(max(loads)), sum(cpus) / len(cpus), sum(memories) / len(memories))


def power_of_two_above(load: float) -> float:
    """L: the smallest power of two above ``load``, at least 1 (a node whose cores are all busy)."""
    if load < 1:
        return 1.0
    return float(2.0 ** (math.floor(math.log2(load)) + 1))
