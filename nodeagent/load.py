"""The node's load vector: what its jobs *want* (runnable threads) and what they get.

Sampled about ten times a second and smoothed. The average is exponential, weighted by the length of the interval and by what
has been seen at all, so the first sample of a job that has just arrived already is an estimate of it, not a tenth of one.
Estimates are values and time is passed in; only ``LoadSampler`` looks at the machine.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from crds.load import JobLoad, LoadVector
from nodeagent.beat import Beat
from nodeagent.cgroups import Capacity, Cgroups
from nodeagent.engine import Copy, Sandbox, Usage
from nodeagent.errors import SandboxGone
from nodeagent.people import People
from nodeagent.weighing import Weighed, Weighing

SAMPLE_SECONDS = 0.1
REST_SECONDS = 1.0
"""Between two looks at a job that rests: ten times a second would be the dearest thing an agent does."""
FACTS_SECONDS = 5.0
"""Between two looks at what hardly ever changes: cores, memory, who is logged in."""
REST_AFTER = 10
"""Looks in a row without a runnable thread, and with hardly any use, after which a job rests."""
REST_USE = 0.05
"""Cores."""
TIME_CONSTANT = 2.5
"""Seconds after which a step in use shows to 63 per cent."""
DEMAND_CONSTANT = 15.0
"""The same for demand, by which jobs are moved: one that computes and sleeps by turns is not to be chased. A job that comes or ends
shows at once all the same."""

DEMAND_STEP = 0.1
"""Cores; smaller changes are not told at once."""
MEMORY_STEP = 0.02
"""Of the node's memory."""
PRESSURE_STEP = 5.0
"""Per cent."""
LONGEST_SILENCE = 3.0
"""Seconds; a policy does not act on old samples, so one is due even when nothing changed."""


@dataclass(frozen=True, slots=True)
class Average:
    """An exponential average that knows how much it has seen."""

    total: float = 0.0
    weight: float = 0.0

    @property
    def value(self) -> float:
        """0 when nothing was seen."""
        return self.total / self.weight if self.weight else 0.0

    def add(self, value: float, seconds: float, time_constant: float = TIME_CONSTANT) -> "Average":
        """With a value that held for so many seconds."""
        keep = math.exp(-seconds / time_constant)
        return Average(self.total * keep + value * (1 - keep), self.weight * keep + (1 - keep))


@dataclass(frozen=True, slots=True)
class JobEstimate:
    """What is known of one job's load on this node."""

    demand: Average = field(default_factory=Average)
    used: Average = field(default_factory=Average)
    memory: int = 0
    seen: float | None = None
    """Time of the last sample, monotonic seconds."""
    cpu_seconds: float = 0.0
    quiet: int = 0
    """Samples in a row that showed it at rest."""

    def observe(self, usage: Usage, now: float) -> "JobEstimate":
        """With one more sample. One that rested until now is taken to have begun just before the look that shows it awake."""
        if self.seen is None:
            return JobEstimate(
                self.demand.add(usage.runnable, SAMPLE_SECONDS, DEMAND_CONSTANT), self.used, usage.memory, now, usage.cpu_seconds
            )
        seconds = max(now - self.seen, 1e-6)
        rate = max(0.0, usage.cpu_seconds - self.cpu_seconds) / seconds
        quiet = self.quiet + 1 if usage.runnable == 0 and rate < REST_USE else 0
        awake = min(seconds, SAMPLE_SECONDS) if self.rests else seconds
        demand = self.demand.add(0.0, seconds - awake, DEMAND_CONSTANT).add(usage.runnable, awake, DEMAND_CONSTANT)
        return JobEstimate(demand, self.used.add(rate, seconds), usage.memory, now, usage.cpu_seconds, quiet)

    def rest(self, now: float) -> "JobEstimate":
        """With the knowledge that nothing of it has run since."""
        return self.observe(Usage(self.cpu_seconds, self.memory, runnable=0, processes=0), now)

    @property
    def rests(self) -> bool:
        return self.quiet >= REST_AFTER

    def due(self, now: float) -> float:
        """Seconds from now until it is to be looked at again; 0 or less: now."""
        if self.seen is None:
            return 0.0
        return self.seen + (REST_SECONDS if self.rests else SAMPLE_SECONDS) - now

    def hold(self, now: float) -> "JobEstimate":
        """A frozen job wants what it wanted when it was frozen; the time it stands does not count."""
        return JobEstimate(self.demand, self.used, self.memory, now if self.seen is not None else None, self.cpu_seconds)

    def load(self, age: float, before: float = 0.0) -> JobLoad:
        """For the vector; ``age`` in seconds, ``before`` CPU seconds that it had elsewhere."""
        return JobLoad(
            cpu_demand=round(self.demand.value, 3),
            cpu_used=round(self.used.value, 3),
            memory=self.memory,
            age=round(age, 1),
            attained=round(before + self.cpu_seconds, 2),
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """A copy whose load counts here."""

    copy: Copy
    sandbox: Sandbox
    age: float
    """Seconds since the job was first started, anywhere."""
    frozen: bool = False
    """It is being moved: it counts with its last demand."""
    attained_before: float = 0.0
    """CPU seconds that it had before it came here."""
    aged: bool = False
    """It shares the CPU by age, and not evenly."""


_EARLY = SAMPLE_SECONDS / 4  # timers are not exact
_TOGETHER = REST_SECONDS / 2
"""When one job that rests is due, all that are due so soon are looked at as well: the agent wakes once for all of them."""


class LoadSampler:
    """Looks at the jobs and at the node. ``clock`` is monotonic seconds."""

    def __init__(self, cgroups: Cgroups, clock: Callable[[], float] = time.monotonic) -> None:
        self._cgroups = cgroups
        self._clock = clock
        self._estimates: dict[Copy, JobEstimate] = {}
        self._people = People()
        self._facts: tuple[float, Capacity, dict[str, int]] | None = None
        self._total = -1.0
        self._still_since = 0.0
        self._weighing = Weighing()

    async def run(self, watched: Callable[[], Iterable[Watched]], beat: Beat) -> None:
        """Samples until cancelled: jobs that work ten times a second, those that rest once."""
        while True:
            await self.sample(watched())
            if all(estimate.rests for estimate in self._estimates.values()):
                await beat.sleep(REST_SECONDS)  # a job that has just come is seen after this time, too
            else:
                await asyncio.sleep(SAMPLE_SECONDS)

    async def sample(self, watched: Iterable[Watched]) -> None:
        """One look at each job that is due; those not named any more are forgotten. One that ended meanwhile is passed over."""
        fresh: dict[Copy, JobEstimate] = {}
        now = self._clock()
        round_of_rest = any(estimate.rests and estimate.due(now) <= _EARLY for estimate in self._estimates.values())
        if round_of_rest:
            self._look_whether_any_ran()
        jobs = list(watched)
        for job in jobs:
            old = self._estimates.get(job.copy, JobEstimate())
            if not job.frozen and old.due(self._clock()) > (_TOGETHER if old.rests and round_of_rest else _EARLY):
                fresh[job.copy] = old
                continue
            if not job.frozen and old.rests and old.seen is not None and old.seen >= self._still_since:
                fresh[job.copy] = old.rest(self._clock())
                continue
            try:
                usage = None if job.frozen else await job.sandbox.usage()
            except SandboxGone:
                continue
            now = self._clock()
            fresh[job.copy] = old.hold(now) if usage is None else old.observe(usage, now)
        self._estimates = fresh
        await self._weighing.weigh([_weighed(job, fresh[job.copy]) for job in jobs if job.copy in fresh])

    def _look_whether_any_ran(self) -> None:
        """One figure for all jobs: those that were looked at since it last changed need no look of their own."""
        total = self._cgroups.cpu_seconds()
        if total != self._total:
            self._total, self._still_since = total, self._clock()

    def still_for(self) -> float:
        """Seconds in which no job has run at all."""
        resting = all(estimate.rests for estimate in self._estimates.values())
        return self._clock() - self._still_since if resting and self._estimates else 0.0

    def _seldom_changed(self) -> tuple[Capacity, dict[str, int]]:
        now = self._clock()
        if self._facts is None or now - self._facts[0] >= FACTS_SECONDS:
            self._facts = (now, self._cgroups.capacity(), self._people.logged_in())
        return self._facts[1:]

    def vector(self, watched: Iterable[Watched]) -> LoadVector:
        """The load as it is estimated now."""
        known = self._estimates
        jobs = {job.copy.key: known[job.copy].load(job.age, job.attained_before) for job in watched if job.copy in known}
        capacity, users = self._seldom_changed()
        return make_vector(
            jobs,
            cpu_capacity=capacity.cpu,
            memory_capacity=capacity.memory,
            memory_used=self._cgroups.memory_used(),
            memory_pressure=self._cgroups.memory_pressure(),
        ).model_copy(update={"users": users})


def _weighed(job: Watched, estimate: JobEstimate) -> Weighed:
    attained = job.attained_before + estimate.cpu_seconds
    return Weighed(job.copy, job.sandbox, job.aged, attained, estimate.demand.value, estimate.rests or job.frozen)


def make_vector(
    jobs: Mapping[str, JobLoad],
    *,
    cpu_capacity: float,
    memory_capacity: int,
    memory_used: int,
    memory_pressure: float,
    when: datetime | None = None,
) -> LoadVector:
    """The vector of a node with these jobs."""
    return LoadVector(
        time=when or datetime.now(UTC),
        cpu_capacity=cpu_capacity,
        cpu_demand=round(sum(job.cpu_demand for job in jobs.values()), 3),
        cpu_used=round(sum(job.cpu_used for job in jobs.values()), 3),
        memory_capacity=memory_capacity,
        memory_used=memory_used,
        memory_pressure=memory_pressure,
        jobs=dict(jobs),
    )


def changed_enough(old: LoadVector | None, new: LoadVector) -> bool:
    """Whether ``new`` should be written though ``old`` was."""
    if old is None or set(old.jobs) != set(new.jobs):
        return True
    facts = [(vector.cpu_capacity, vector.memory_capacity, vector.unguarded, vector.users) for vector in (old, new)]
    if facts[0] != facts[1]:
        return True
    if (new.time - old.time).total_seconds() >= LONGEST_SILENCE:
        return True
    step = max(1, new.memory_capacity) * MEMORY_STEP
    return (
        abs(new.memory_used - old.memory_used) > step
        or abs(new.memory_pressure - old.memory_pressure) > PRESSURE_STEP
        or any(_job_changed(old.jobs[name], job, step) for name, job in new.jobs.items())
    )


def _job_changed(old: JobLoad, new: JobLoad, memory_step: float) -> bool:
    demand = abs(new.cpu_demand - old.cpu_demand) > max(DEMAND_STEP, 0.1 * old.cpu_demand)
    return demand or abs(new.cpu_used - old.cpu_used) > DEMAND_STEP or abs(new.memory - old.memory) > memory_step
