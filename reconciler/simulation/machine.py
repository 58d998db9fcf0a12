"""One simulated node with its jobs. Between two events all its rates are constant, so nothing is approximated."""

import math
from dataclasses import dataclass

from crds.timesharing import weight
from reconciler.planning.types import NodeView
from reconciler.simulation.sharing import shares
from reconciler.simulation.work import NEVER, Physics, Work

DONE = 1e-9
"""Core-seconds that count as nothing: what adding up leaves over."""


@dataclass(slots=True, eq=False)
class Task:
    """A job that runs, sleeps or stands on a node."""

    work: Work
    rest: float
    """Core-seconds left, on a core of speed 1."""
    since: float
    """When it came to its node."""
    memory: float
    attained: float = 0.0
    """Core-seconds it had."""
    until_sleep: float = NEVER
    """Core-seconds left until it sleeps."""
    wakes: float = -1.0
    """Sleeps until then."""
    frozen: bool = False
    rate: float = 0.0
    """Cores it has now."""
    seen: float = 0.0
    """Its demand as the agent's smoothed samples show it."""
    failed: float | None = None
    failures: int = 0

    def wants(self, now: float) -> int:
        """Its runnable tasks."""
        return 0 if self.frozen or self.wakes > now else self.work.tasks


class Machine:
    """The node ``view`` is as it is without jobs."""

    def __init__(self, view: NodeView, physics: Physics) -> None:
        self.view, self.physics = view, physics
        self.tasks: list[Task] = []
        self.held = 0.0
        """Bytes of jobs that have left but whose memory has not."""
        self.now = 0.0
        self.next = NEVER
        """When something happens here if nothing comes from outside."""
        self._worth = 1.0
        """Core-seconds had for each that is given: less when memory is short."""

    @property
    def memory(self) -> float:
        """Bytes in use."""
        return self.view.memory_used + self.held + sum(task.memory for task in self.tasks)

    def demand(self) -> int:
        """Runnable tasks."""
        return sum(task.wants(self.now) for task in self.tasks)

    def advance(self, now: float) -> None:
        """Lets the time pass; call ``settle`` when something changed."""
        passed = now - self.now
        if passed > 0:
            keep = math.exp(-passed / self.physics.smoothing)
            for task in self.tasks:
                if task.rate:
                    had = task.rate * self._worth * passed
                    task.attained += had
                    task.rest -= had * self.view.speed
                    task.until_sleep -= had
                    if task.memory < task.work.grows_to:
                        task.memory = min(float(task.work.grows_to), task.memory + task.work.growth * had)
                task.seen = task.seen * keep + task.wants(self.now) * (1 - keep)
        self.now = now

    def settle(self) -> list[Task]:
        """Ends, sleeps and wakes what is due, gives out the cores anew; returns the jobs that ended."""
        ended = []
        for task in self.tasks:
            if task.rest <= DONE and not task.frozen:
                ended.append(task)
            elif task.until_sleep <= DONE:
                task.until_sleep, task.wakes = task.work.busy, self.now + task.work.idle
        if ended:
            self.tasks = [task for task in self.tasks if task not in ended]
        self._share()
        return ended

    def _share(self) -> None:
        wants = [task.wants(self.now) for task in self.tasks]
        aged = self.physics.aged
        weights = [weight(task.attained / task.work.tasks) for task in self.tasks] if aged else [1.0] * len(wants)
        over = self.memory > self.view.memory_capacity
        self._worth = 1.0 / self.physics.thrash if over else 1.0
        for task, share in zip(self.tasks, shares(self.view.cpu_capacity, wants, weights), strict=True):
            task.rate = share
        self.next = min((self._due(task) for task in self.tasks), default=NEVER)
        growing = sum(task.rate * task.work.growth for task in self.tasks if task.memory < task.work.grows_to)
        if growing and not over:
            self.next = min(self.next, self.now + (self.view.memory_capacity - self.memory) / growing + 1e-6)
        if aged and self.view.cpu_capacity < sum(wants) and len(wants) > 1:
            self.next = min(self.next, self.now + self.physics.weights_every)

    def _due(self, task: Task) -> float:
        if task.frozen:
            return NEVER
        if task.wakes > self.now:
            return task.wakes
        if not task.rate:
            return NEVER
        rate = task.rate * self._worth
        due = min(task.rest / (rate * self.view.speed), task.until_sleep / rate)
        if task.memory < task.work.grows_to:
            due = min(due, (task.work.grows_to - task.memory) / (rate * task.work.growth))
        return self.now + max(due, 1e-9)
