"""The figures of bench/freeze.py: what it makes of what it measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.freeze import Series, judge, largest_gap, parse, ratios, table


def series(*values: float) -> Series:
    made = Series()
    for value in values:
        made.add(value)
    return made


def case(megabytes: int, **more: Any) -> dict[str, Any]:
    found = {"raw": series(100, 110, 120), "stop": series(150, 165, 500), "podman": series(900)}
    data = {name: each.to_data() for name, each in found.items()}
    return {"megabytes": megabytes, "job": "idle", "failures": [], "ratios": ratios(found), **data, **more}


def test_figures_of_a_series() -> None:
    data = series(3, 1, 2).to_data()
    assert (data["n"], data["p50"], data["p99"], data["least"], data["values"]) == (3, 2.0, 3.0, 1.0, [3.0, 1.0, 2.0])


def test_the_job_itself_says_how_long_it_stood(tmp_path: Path) -> None:
    (tmp_path / "gaps").write_text("100.0 0\n101.0 900.5\n103.0 20.1\n104.0 80.4\n")
    assert largest_gap(tmp_path / "gaps", 102.0) == 80.4
    assert largest_gap(tmp_path / "gaps", 105.0) == 0.0


def test_goals_are_judged_with_what_was_measured() -> None:
    goals = {each["goal"]: each for each in judge([case(200)], {"before": {"cpu_percent": 0.4, "rss_mb": 61.0, "seconds": 30}})}
    assert goals["idle 200 MB: stop to raw"] == {
        "goal": "idle 200 MB: stop to raw",
        "measured": 1.5,
        "wanted": "<= 1.5",
        "met": True,
    }
    assert goals["idle 200 MB: podman to stop"]["met"]
    assert goals["agent at rest before: cpu_percent"]["met"] and not goals["agent at rest before: rss_mb"]["met"]


def test_a_move_that_failed_is_a_goal_missed() -> None:
    [failed, *_] = judge([case(16, failures=["stop: Refused: no"])], {})
    assert (failed["goal"], failed["met"]) == ("idle 16 MB: moves that failed", False)


def test_the_table_names_every_series() -> None:
    text = table({"freeze": [case(16)], "goals": judge([case(16)], {})})
    assert "podman" in text and "MISSED idle 16 MB: stop, ms: 165 (wanted <= 80)" in text
    json.dumps(case(16))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (10, [16, 200, 1024], ["idle", "writing"])),
        (["--quick"], (2, [16], ["idle"])),
        (["--sizes", "1,2"], (10, [1, 2], None)),
    ],
)
def test_options(words: list[str], expected: tuple[int, list[int], list[str] | None]) -> None:
    options = parse(words)
    assert (options.times, options.sizes) == expected[:2]
    assert expected[2] in (None, options.jobs)
