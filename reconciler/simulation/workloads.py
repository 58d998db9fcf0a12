"""Streams of jobs to try policies on. What their authors did not publish is a field of ``Stream``, with a stated value."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from reconciler.planning.types import NodeView
from reconciler.simulation.work import Work

MIB = 2**20


SPEEDS = {
    "equal": (1.0,) * 6,
    "three-kinds": (1.0, 1.0, 1.0, 0.665, 0.665, 0.45),
    "slow": (1.0, 0.665, 0.665, 0.45, 0.45, 0.45),
}
"""Of six machines, as 200, 133 and 90 MHz are to each other."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The constants of the MOSIX stream (Amir et al. 2000); what stands here is the calibrated set.

    Of the sets tried, this one brings PVM to 14.4 and Enhanced PVM to 9.9 by execution (mean of 400), where 14.33 and 9.79 were
    published.
    """

    speeds: tuple[float, ...] = SPEEDS["slow"]
    """Of the six machines. Assumed."""
    memories: tuple[int, ...] = (64, 64, 64, 32, 32, 24)
    """MiB. Assumed."""
    seconds: float = 1000.0
    """Jobs arrive for so long. Published."""
    every: float = 10.0
    """Mean seconds between two arrivals, exponential. The mean is published."""
    cpu: float = 2.0
    """cpu / r seconds on the fastest machine, r ~ U(0, 1). Published."""
    most_cpu: float = float("inf")
    """Seconds; longer ones are cut. Not published."""
    most_memory: float = 0.3
    """Share of the largest machine's memory; 1/m per cent with m ~ U(0, 1) has no end. Not published."""
    parallel: float = 0.05
    """Share of the arrivals that are 1 to 20 parallel parts. Published."""
    parallel_cpu: float = 20.0
    """Seconds, as ``cpu``. Published."""
    divided_cpu: bool = False
    """The parts divide the CPU time; otherwise each has as much. Not published."""
    divided_memory: bool = False
    """The parts divide the memory; otherwise each has as much. Not published."""
    thrash: float = 2.5
    """A node that overcommits its memory is so many times slower. The authors' slides say 10."""

    def nodes(self) -> list[NodeView]:
        """The machines."""
        pairs = zip(self.speeds, self.memories, strict=True)
        return [NodeView(f"n{i}", 1.0, size * MIB, speed=speed) for i, (speed, size) in enumerate(pairs, 1)]

    def works(self, random: Random) -> list[Work]:
        """One execution: the same for every method."""
        works: list[Work] = []
        now, count = random.expovariate(1 / self.every), 0
        while now < self.seconds:
            works += self._arrival(random, now, f"j{count:03}")
            now, count = now + random.expovariate(1 / self.every), count + 1
        return works

    def _arrival(self, random: Random, now: float, name: str) -> list[Work]:
        many = random.random() < self.parallel
        parts = random.randint(1, 20) if many else 1
        cpu = min(self.most_cpu, (self.parallel_cpu if many else self.cpu) / max(random.random(), 1e-6))
        largest = max(self.memories) * MIB
        memory = min(self.most_memory, 0.01 / max(random.random(), 1e-6)) * largest
        if parts == 1:
            return [Work(name, cpu, arrival=now, memory=int(memory))]
        cpu, memory = cpu / (parts if self.divided_cpu else 1), memory / (parts if self.divided_memory else 1)
        return [Work(f"{name}.{part:02}", cpu, arrival=now, memory=int(memory), batch=name) for part in range(parts)]


def heavy_tailed(random: Random) -> tuple[list[NodeView], list[Work]]:
    """Life times 2/r seconds cut at 200, on six equal nodes at 70 % load."""
    return equal(6), arrivals(random, lambda: min(200.0, 2 / max(random.random(), 1e-3)), 0.7 * 6)


def exponential(random: Random) -> tuple[list[NodeView], list[Work]]:
    """Exponential life times of 11.2 s, the same mean: age says nothing of what is left, so moving promises least."""
    return equal(6), arrivals(random, lambda: max(0.05, random.expovariate(1 / 11.2)), 0.7 * 6)


def old_and_new(random: Random) -> tuple[list[NodeView], list[Work]]:
    """Heavy-tailed life times on three machines and three half as fast, at 60 % load."""
    nodes = [replace(node, speed=1.0 if i < 3 else 0.5) for i, node in enumerate(equal(6))]
    return nodes, arrivals(random, lambda: min(200.0, 2 / max(random.random(), 1e-3)), 0.6 * 4.5)


def unix_mix(random: Random) -> tuple[list[NodeView], list[Work]]:
    """Nine of ten are commands of 0.4 s, the others live on as 1/x from 1 s to 2000 s; as measured on UNIX systems."""

    def length() -> float:
        return max(0.05, random.expovariate(2.5)) if random.random() < 0.9 else min(2000.0, 1 / max(random.random(), 5e-4))

    return equal(6), arrivals(random, length, 0.6 * 6, count=600, mean=0.9 * 0.4 + 0.1 * 8.6)


def oscillator(random: Random) -> tuple[list[NodeView], list[Work]]:
    """Ten jobs on four nodes that compute and sleep by turns of some 15 s: what chases the load of the moment never rests."""
    works = []
    for i in range(10):
        turn = random.uniform(10, 20)
        works.append(Work(f"o{i}", 200.0, arrival=random.uniform(0, 30), memory=20 * MIB, busy=turn, idle=turn))
    return equal(4), works


def memory_hog(random: Random) -> tuple[list[NodeView], list[Work]]:
    """Four nodes of 512 MiB; pairs of jobs that start on one node and grow to 300 MiB each, among small ones."""
    works = [Work(f"small{i}", random.uniform(20, 200), arrival=random.uniform(0, 60), memory=20 * MIB) for i in range(8)]
    for i in range(3):
        where, begin = f"n{random.randint(1, 4)}", i * 150.0 + random.uniform(0, 30)
        works += [
            Work(f"hog{i}{part}", 120.0, where, begin, 20 * MIB, grows_to=300 * MIB, growth=random.uniform(5, 20) * MIB)
            for part in "ab"
        ]
    return [NodeView(f"n{i}", 1.0, 512 * MIB) for i in range(1, 5)], works


def equal(count: int) -> list[NodeView]:
    """Nodes of one core each, with memory enough."""
    return [NodeView(f"n{i}", 1.0, 4096 * MIB) for i in range(1, count + 1)]


def arrivals(random: Random, length: Callable[[], float], cores: float, *, count: int = 200, mean: float = 11.2) -> list[Work]:
    """Jobs of these lengths that come at random and want so many cores on the whole; ``mean`` is the mean length."""
    works: list[Work] = []
    now = 0.0
    for i in range(count):
        now += random.expovariate(cores / mean)
        works.append(Work(f"j{i:03}", length(), arrival=now, memory=20 * MIB))
    return works
