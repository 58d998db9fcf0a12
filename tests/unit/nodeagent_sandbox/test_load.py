"""Load estimates: pure, with time passed in; the sampler on the fake engine."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds.load import JobLoad, LoadVector
from nodeagent.cgroups import Cgroups
from nodeagent.engine import Usage
from nodeagent.load import DEMAND_CONSTANT, Average, JobEstimate, LoadSampler, Watched, changed_enough, make_vector
from nodeagent.tasks import count_runnable
from tests.engine_contract import LONG, copy, started
from tests.fakes.engine import FakeEngine
from tests.fakes.world import World

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MIB = 2**20


def usage(runnable: int, cpu: float = 0.0, memory: int = 0) -> Usage:
    return Usage(cpu, memory, runnable, 1)


def observed(samples: list[tuple[float, int, float]]) -> JobEstimate:
    """From (time, runnable, cpu seconds)."""
    estimate = JobEstimate()
    for now, runnable, cpu in samples:
        estimate = estimate.observe(usage(runnable, cpu), now)
    return estimate


@given(st.floats(0, 64), st.lists(st.floats(0.01, 5), min_size=1, max_size=40))
def test_average_of_a_constant_is_the_constant(value: float, steps: list[float]) -> None:
    average = Average()
    for seconds in steps:
        average = average.add(value, seconds)
    assert average.value == pytest.approx(value)


@given(st.lists(st.tuples(st.floats(0, 8), st.floats(0.01, 5)), min_size=1, max_size=40))
def test_average_stays_between_what_was_seen(samples: list[tuple[float, float]]) -> None:
    average = Average()
    for value, seconds in samples:
        average = average.add(value, seconds)
    values = [value for value, _ in samples]
    assert min(values) - 1e-9 <= average.value <= max(values) + 1e-9


def test_step_shows_after_the_time_constant() -> None:
    before = [(i * 0.1, 0, 0.0) for i in range(3000)]
    after = [(300 + i * 0.1, 2, 0.0) for i in range(int(DEMAND_CONSTANT * 10))]
    assert observed(before + after).demand.value == pytest.approx(2 * (1 - 1 / 2.71828), rel=0.05)


def test_first_sample_is_an_estimate() -> None:
    assert observed([(5.0, 3, 0.0)]).demand.value == 3.0
    assert observed([(5.0, 3, 0.0)]).used.value == 0.0


def test_use_is_the_rate_of_cpu_seconds() -> None:
    estimate = observed([(float(i), 1, 10 + 0.35 * i) for i in range(10)])
    assert estimate.used.value == pytest.approx(0.35)
    assert estimate.demand.value == pytest.approx(1.0)


def test_frozen_job_keeps_its_demand_and_its_use() -> None:
    estimate = observed([(float(i), 1, 0.5 * i) for i in range(10)]).hold(60.0)
    assert estimate.demand.value == pytest.approx(1.0)
    assert estimate.observe(usage(1, 0.5 * 9 + 0.05), 60.1).used.value == pytest.approx(0.5, rel=0.01)


def vector(**changes: object) -> LoadVector:
    figures: dict[str, object] = {
        "cpu_capacity": 1.0,
        "memory_capacity": 1000 * MIB,
        "memory_used": 100 * MIB,
        "memory_pressure": 0.0,
    }
    jobs = {"default/a": JobLoad(cpu_demand=1.0, cpu_used=0.3, memory=50 * MIB)}
    return make_vector(**{"jobs": jobs, "when": NOW, **figures, **changes})  # type: ignore[arg-type]


def test_vector_sums_its_jobs() -> None:
    jobs = {"d/a": JobLoad(cpu_demand=1.0, cpu_used=0.3), "d/b": JobLoad(cpu_demand=2.5, cpu_used=0.1)}
    assert (vector(jobs=jobs).cpu_demand, vector(jobs=jobs).cpu_used) == (3.5, 0.4)


@pytest.mark.parametrize(
    ("changes", "enough"),
    [
        ({}, False),
        ({"when": NOW + timedelta(seconds=2.9)}, False),
        ({"when": NOW + timedelta(seconds=3)}, True),
        ({"jobs": {}}, True),
        ({"jobs": {"default/b": JobLoad()}}, True),
        ({"jobs": {"default/a": JobLoad(cpu_demand=1.05, cpu_used=0.3, memory=50 * MIB)}}, False),
        ({"jobs": {"default/a": JobLoad(cpu_demand=1.2, cpu_used=0.3, memory=50 * MIB)}}, True),
        ({"jobs": {"default/a": JobLoad(cpu_demand=1.0, cpu_used=0.5, memory=50 * MIB)}}, True),
        ({"jobs": {"default/a": JobLoad(cpu_demand=1.0, cpu_used=0.3, memory=90 * MIB)}}, True),
        ({"jobs": {"default/a": JobLoad(cpu_demand=1.0, cpu_used=0.3, memory=50 * MIB, age=99)}}, False),
        ({"memory_used": 115 * MIB}, False),
        ({"memory_used": 130 * MIB}, True),
        ({"memory_pressure": 20.0}, True),
        ({"cpu_capacity": 2.0}, True),
    ],
)
def test_changed_enough(changes: dict[str, object], enough: bool) -> None:
    assert changed_enough(vector(), vector(**changes)) is enough


def test_first_vector_is_always_written() -> None:
    assert changed_enough(None, vector())


async def test_sampler_counts_running_frozen_and_gone_jobs(fake_cgroups: Cgroups, tmp_path: Path) -> None:
    world, now = World(), [0.0]
    engine = FakeEngine(world, "n1")
    sampler = LoadSampler(fake_cgroups, clock=lambda: now[0])
    sandboxes = [await started(engine, copy(name), *LONG) for name in ("runs", "moves", "ends")]

    def watched(frozen: bool) -> list[Watched]:
        return [Watched(box.copy, box, 5.0, frozen=frozen and box.copy.name == "moves") for box in sandboxes]

    for _ in range(20):
        await sampler.sample(watched(False))
        now[0] += 0.1
    await sandboxes[1].dump(tmp_path, deadline=5)
    await sandboxes[2].kill()
    for _ in range(20):
        await sampler.sample(watched(True))
        now[0] += 0.1
    load = sampler.vector(watched(True))
    assert {name: job.cpu_demand for name, job in load.jobs.items()} == {"default/runs": 1.0, "default/moves": 1.0}
    assert load.jobs["default/runs"].age == 5.0
    assert load.cpu_capacity == pytest.approx(0.25)


@pytest.fixture
def fake_cgroups(tmp_path: Path) -> Cgroups:
    for path, text in {
        "cg/cgroup.controllers": "",
        "cg/cgroup.procs": "",
        "cg/jobs/cpu.max": "25000 100000",
        "cg/jobs/cpu.stat": "usage_usec 0",
        "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 600 kB\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return Cgroups(tmp_path / "cg", tmp_path / "proc")


@pytest.fixture
def thread(tmp_path: Path) -> Callable[[int, int, str], None]:
    def write(pid: int, tid: int, stat: str) -> None:
        directory = tmp_path / str(pid) / "task" / str(tid)
        directory.mkdir(parents=True)
        (directory / "stat").write_text(stat)

    return write


def test_runnable_threads_of_all_processes(tmp_path: Path, thread: Callable[[int, int, str], None]) -> None:
    thread(1, 1, "1 (a) R 0 0 0")
    thread(1, 2, "2 (odd) R (name) S 0 0 0")
    thread(1, 3, "3 (x y) D 0 0 0")
    thread(9, 9, "9 (b) R 0 0 0")
    assert count_runnable([1, 9, 77], tmp_path) == 2


# --- jobs at rest ---


def resting(seconds: float = 2.0) -> list[tuple[float, int, float]]:
    return [(i * 0.1, 0, 0.0) for i in range(round(seconds * 10))]


def test_a_job_that_does_nothing_rests_and_one_that_works_does_not() -> None:
    assert observed(resting()).rests
    assert not observed(resting(0.5)).rests
    assert not observed([(i * 0.1, 0, i * 0.02) for i in range(30)]).rests  # a fifth of a core, though never seen to run
    assert not observed([*resting(), (2.1, 1, 0.0)]).rests


def test_a_job_that_wakes_counts_from_the_look_before_the_one_that_shows_it() -> None:
    """A whole second of rest is not taken for a second of work."""
    seen_late = observed([*resting(), (3.0, 1, 0.0)]).demand.value
    always_seen = observed([*resting(3.0), (3.0, 1, 0.0)]).demand.value
    assert seen_late == pytest.approx(always_seen, abs=0.02)


async def test_jobs_at_rest_are_looked_at_together(fake_cgroups: Cgroups) -> None:
    engine, now, times = FakeEngine(World(), "n1"), [0.0], set()
    sampler = LoadSampler(fake_cgroups, clock=lambda: now[0])
    jobs = [await started(engine, copy(name), *LONG) for name in ("first", "second")]

    async def at_rest() -> Usage:
        times.add(now[0])
        return usage(0)

    for sandbox in jobs:
        sandbox.usage = at_rest  # type: ignore[method-assign]
    for look in range(200):
        watched = [Watched(sandbox.copy, sandbox, 1.0) for sandbox in jobs[: 1 if look < 3 else 2]]  # the second comes later
        await sampler.sample(watched)
        now[0] += 0.1
        anything_ran(fake_cgroups, look)
    assert len([when for when in times if when > 5]) <= 17, "once a second for both"
    for sandbox in jobs:
        await sandbox.kill()


async def test_a_job_at_rest_is_looked_at_once_a_second(fake_cgroups: Cgroups) -> None:
    engine, now = FakeEngine(World(), "n1"), [0.0]
    sampler = LoadSampler(fake_cgroups, clock=lambda: now[0])
    sandbox = await started(engine, copy("idle"), *LONG)
    looks: list[float] = []

    async def at_rest() -> Usage:
        looks.append(now[0])
        return usage(0)

    sandbox.usage = at_rest  # type: ignore[method-assign]
    for look in range(100):
        await sampler.sample([Watched(sandbox.copy, sandbox, 1.0)])
        now[0] += 0.1
        anything_ran(fake_cgroups, look)
    assert 18 <= len(looks) <= 22  # eleven at first, then one a second
    await sandbox.kill()


def anything_ran(cgroups: Cgroups, microseconds: int) -> None:
    (cgroups.hierarchies["unified"] / "jobs/cpu.stat").write_text(f"usage_usec {microseconds}")


async def test_while_no_job_has_run_none_is_looked_at(fake_cgroups: Cgroups) -> None:
    engine, now, looks = FakeEngine(World(), "n1"), [0.0], 0
    sampler = LoadSampler(fake_cgroups, clock=lambda: now[0])
    sandbox = await started(engine, copy("idle"), *LONG)
    works = False

    async def used() -> Usage:
        nonlocal looks
        looks += 1
        return usage(1, now[0]) if works else usage(0)

    sandbox.usage = used  # type: ignore[method-assign]

    async def live(seconds: float) -> int:
        nonlocal looks
        looks = 0
        for _ in range(round(seconds * 10)):
            await sampler.sample([Watched(sandbox.copy, sandbox, 1.0)])
            now[0] += 0.1
        return looks

    await live(3)
    assert await live(60) == 0
    assert 59 < sampler.still_for() < 64
    anything_ran(fake_cgroups, 1)  # another job, perhaps
    assert await live(60) == 1
    works = True
    anything_ran(fake_cgroups, 2)
    assert await live(3) > 15
    assert sampler.still_for() == 0
    demand = sampler.vector([Watched(sandbox.copy, sandbox, 1.0)]).jobs["default/idle"].cpu_demand
    assert demand > 0.1
    await sandbox.kill()
