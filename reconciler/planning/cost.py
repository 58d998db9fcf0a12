"""Opportunity cost: what use of a node's CPU and memory costs the jobs still to come.

Source: Amir, Awerbuch, Barak, Borgstrom, Keren, "An opportunity cost approach for job assignment in a scalable computing
cluster" (IEEE TPDS 2000). Cost of a node = sum over resources of n^(used/max), n = number of nodes. For CPU, max is L, the smallest
power of two above the largest load seen: as published. One point is ours: each term is weighted by the node's size over the mean
size, so that a node of 0.4 cores costs what two of 0.2 cores cost (equal nodes: weight 1, as published). Without it the sum is
smallest with everything on the fast node as long as n is small (2 nodes, 3 jobs: 3 and 0 instead of 2 and 1).

Load is runnable tasks by power, which is cores times speed. The cost is convex in every load, so evening out lowers it; how much
depends on n and L, therefore it serves to compare, and never meets a threshold.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scale:
    """What turns loads and memory into cost, the same for all nodes of one decision."""

    base: float
    """Number of nodes, at least 2: with base 1 nothing would cost anything."""
    load_max: float
    """L, runnable tasks by power."""
    mean_cpu: float
    """Mean power, cores times speed."""
    mean_memory: float
    """Mean capacity, bytes."""

    def cpu(self, load: ArrayLike, power: ArrayLike) -> Floats:
        """Cost of CPUs that have ``load`` runnable tasks by power."""
        return np.asarray(np.asarray(power) / self.mean_cpu * self.base ** (np.asarray(load) / self.load_max))

    def memory(self, used: ArrayLike, capacity: ArrayLike) -> Floats:
        """Cost of ``used`` bytes out of ``capacity``."""
        return np.asarray(np.asarray(capacity) / self.mean_memory * self.base ** (np.asarray(used) / np.asarray(capacity)))

    def cpu_rise(self, load: ArrayLike, power: ArrayLike, demand: ArrayLike) -> Floats:
        """By how much the cost rises when ``demand`` (tasks; negative: falls when they leave) is added."""
        return np.asarray(self.cpu(load, power) * (self.base ** (np.asarray(demand) / np.asarray(power) / self.load_max) - 1))

    def memory_rise(self, used: ArrayLike, capacity: ArrayLike, size: ArrayLike) -> Floats:
        """By how much the cost rises when ``size`` bytes are added."""
        return np.asarray(self.memory(used, capacity) * (self.base ** (np.asarray(size) / np.asarray(capacity)) - 1))


def scale(loads: ArrayLike, powers: ArrayLike, memories: ArrayLike) -> Scale:
    """The scale for nodes of these sizes. ``loads`` are all the loads that may be asked for, by power; none may be empty."""
    powers, memories = np.asarray(powers, float), np.asarray(memories, float)
    return Scale(float(max(2, len(powers))), power_of_two_above(float(np.max(loads))), float(powers.mean()), float(memories.mean()))


def power_of_two_above(load: float) -> float:
    """L: the smallest power of two above ``load``, at least 1 (a node whose cores are all busy)."""
    if load < 1:
        return 1.0
    return float(2.0 ** (math.floor(math.log2(load)) + 1))
