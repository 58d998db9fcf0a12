"""What decisions see of a simulated cluster: samples that are late, noisy, or 0 by mistake, as a real cluster's are at times."""

from collections import deque
from dataclasses import dataclass, replace
from random import Random

from reconciler.planning.types import NodeView
from reconciler.simulation.machine import Machine
from reconciler.simulation.work import Physics

Job = tuple[float, int]
"""Runnable tasks (smoothed) and bytes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One node at one moment, as its agent tells it."""

    time: float
    demand: float
    memory: int
    jobs: dict[str, Job]


class Sampler:
    """Keeps the samples of all nodes until they are late enough."""

    def __init__(self, physics: Physics, random: Random) -> None:
        self.physics, self.random = physics, random
        self._kept: dict[str, deque[Sample]] = {}

    def take(self, machines: dict[str, Machine], now: float) -> None:
        """A sample of every node. Machines must have advanced to ``now``."""
        for name, machine in machines.items():
            kept = self._kept.setdefault(name, deque())
            kept.append(self._sample(machine, now))
            while len(kept) > 1 and kept[1].time <= now - self.physics.stale:
                kept.popleft()

    def latest(self, name: str) -> Sample | None:
        """The sample that decisions know now: late by ``stale`` seconds; before that the first, which is then younger."""
        kept = self._kept.get(name)
        return kept[0] if kept else None

    def view(self, machine: Machine, now: float) -> NodeView:
        """The node as it is known now; one that was never sampled is taken to be empty."""
        sample = self.latest(machine.view.name)
        if sample is None:
            return machine.view
        return replace(machine.view, cpu_demand=sample.demand, memory_used=sample.memory, sample_age=now - sample.time)

    def _sample(self, machine: Machine, now: float) -> Sample:
        if self.physics.zeroes and self.random.random() < self.physics.zeroes:
            return Sample(now, 0.0, 0, {task.work.name: (0.0, 0) for task in machine.tasks})
        jobs = {task.work.name: (self._blur(task.seen), int(self._blur(task.memory))) for task in machine.tasks}
        memory = machine.view.memory_used + machine.held + sum(size for _, size in jobs.values())
        return Sample(now, sum(demand for demand, _ in jobs.values()), int(memory), jobs)

    def _blur(self, value: float) -> float:
        noise = self.physics.noise
        return value * self.random.uniform(1 - noise, 1 + noise) if noise else value
