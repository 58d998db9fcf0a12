"""What people write: scenarios and traces."""

import pytest

from crds.balancepolicy import BalancePolicySpec, Goal
from reconciler.simulation.compare import figures, simulate
from reconciler.simulation.methods import known, method
from reconciler.simulation.scenario import Scenario, ScenarioSpec
from reconciler.simulation.trace import BrokenTrace, read_trace

LINE = "{job} {submit} 0 {run} {processors} {cpu} {memory} 1 -1 -1 1 1 1 1 1 1 -1 -1"


def line(**more: float) -> str:
    return LINE.format(**{"job": 1, "submit": 100, "run": 30, "processors": 1, "cpu": -1, "memory": -1, **more})


def spec(**more: object) -> ScenarioSpec:
    data = {"nodes": [{"name": "n", "count": 2, "memory": "64Mi"}], "jobs": [{"name": "a", "cpuTime": "5s"}], **more}
    return Scenario.model_validate({"metadata": {"name": "s"}, "spec": data}).spec


def test_a_trace_gives_a_job_for_each_process() -> None:
    text = "; a comment\n" + line() + "\n\n" + line(submit=160, processors=2, cpu=20, memory=1024) + "\n"
    works = read_trace(text, faster=2.0, memory=5)
    assert [(w.arrival, w.cpu_seconds, w.memory) for w in works] == [(0, 30, 5), (30, 20, 2**20), (30, 20, 2**20)]
    assert {w.batch for w in works[1:]} == {"l4"} and len({w.name for w in works}) == 3


def test_jobs_of_a_trace_that_never_ran_are_left_out() -> None:
    assert [w.arrival for w in read_trace("\n".join([line(run=-1), line(submit=200), line(submit=210)]), most=1)] == [0]


@pytest.mark.parametrize(("text", "number"), [("1 2 3", 1), (line() + "\n" + line(run="x"), 2), (line(submit=-1), 1)])  # type: ignore[arg-type]
def test_a_broken_trace_names_its_line(text: str, number: int) -> None:
    with pytest.raises(BrokenTrace) as raised:
        read_trace(text)
    assert raised.value.line == number


def test_every_method_runs_the_same_jobs_to_their_ends() -> None:
    made = spec(
        jobs=[{"name": "pile", "count": 4, "cpuTime": "20s", "node": "n1", "memory": "5Mi"}],
        streams=[{"name": "s", "every": "2s", "for": "20s", "memory": ["1Mi", "9Mi"]}],
        move={"failures": 0.2},
        samples={"noise": 0.1},
    )
    works, nodes = made.works(3), made.views()
    for name in known():
        one = method(name, BalancePolicySpec(interval=1.0, min_residency=2.0))
        found = figures(simulate(one, nodes, works, made.physics(one.aged), seed=3), nodes, works)
        assert found.jobs == len(works) and found.mean >= 1 and 0 < found.fairness <= 1, name
        assert (found.moves > 0) == (name in ("mx", Goal.MOSIX, Goal.THRESHOLD, "enhanced-mosix")), name


def test_arrivals_depend_on_the_seed_alone() -> None:
    made = spec(streams=[{"name": "s", "every": "2s", "for": "60s"}])
    assert made.works(1) == made.works(1) != made.works(2)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"jobs": []}, "nothing runs"),
        ({"jobs": [{"name": "a", "cpuTime": "1s", "node": "m"}]}, "none of the nodes"),
        ({"nodes": [{"name": "n1"}, {"name": "n", "count": 2}]}, "same name"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        spec(**more)
