"""The figures of bench/makespan.py and bench/slowdown.py: what they make of what was simulated."""

import pytest

from bench.slowing.cases import cases
from bench.slowing.goals import judge
from bench.slowing.measure import interval, run_seed, summary
from bench.spanning.table import bound, judge_simulated, lines, row, static


def test_the_table_is_against_the_bound() -> None:
    assert (static([300.0] * 17, 16), bound([300.0] * 17, 16)) == (600.0, 318.75)
    assert bound([10.0, 400.0], 16) == 400.0
    one = row(17, [{"bound": 318.75, "static": 600.0, "mx": 322.0, "moves": 27.0, "wasted": 0.0}])
    assert one["ratio"]["static"]["mean"] == pytest.approx(1.882)
    assert "1.010" in "\n".join(lines("x", [one]))
    assert [goal["met"] for goal in judge_simulated([one])] == [True, True]


def test_an_interval_holds_the_mean_and_narrows_with_more_seeds() -> None:
    few, many = interval([1.0, 2.0, 3.0]), interval([1.0, 2.0, 3.0] * 10)
    assert few["low"] < many["low"] < 2.0 == few["mean"] < many["high"] < few["high"]
    assert interval([5.0]) == {"mean": 5.0, "low": 5.0, "high": 5.0}


def test_a_case_runs_all_its_methods_on_the_same_jobs_and_nobody_beats_the_bound() -> None:
    known = cases()
    number = next(i for i, case in enumerate(known) if case.name == "memory hog")
    _, tallies = run_seed((number, 0))
    found = summary(known[number], [tallies])
    assert set(found["methods"]) == set(known[number].methods)
    assert all(of["by_execution"]["mean"] >= found["bound"]["mean"] for of in found["methods"].values())
    goals = judge({"memory hog": found})
    assert [goal["goal"] for goal in goals] == ["memory hog: wasted moves"]
