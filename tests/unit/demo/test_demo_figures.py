"""The demo's figures must be able to show a loss: its witnesses are read strictly."""

import subprocess
import sys
from pathlib import Path

import pytest

from lab.demo.summary import summarise
from lab.demo.witness import Statement, read_statement

GOOD = ["start 0.5 100.0", "0 0.1 100.1", "1 0.1 100.2", "2 0.1 101.2", "end 3"]


def test_a_whole_statement_has_no_faults() -> None:
    assert read_statement(GOOD) == Statement(
        iterations=3, faults=0, cpu_seconds=pytest.approx(0.8), longest_pause=pytest.approx(1.0)
    )


@pytest.mark.parametrize(
    "lines",
    [
        [GOOD[0], GOOD[1], GOOD[3], GOOD[4]],
        [*GOOD[:3], GOOD[2], *GOOD[3:]],
        GOOD[:-1],
        [*GOOD[:2], "1 0.1", *GOOD[3:]],
        [*GOOD, "3 0.1 101.3"],
        [*GOOD[:2], GOOD[0], *GOOD[2:]],
        [],
    ],
    ids=["missing", "repeated", "no end", "torn line", "after the end", "started twice", "empty"],
)
def test_every_loss_shows(lines: list[str]) -> None:
    assert read_statement(lines).faults > 0


def test_bounds_come_from_the_work_that_was_done() -> None:
    summary = summarise([0.5] * 4, [Statement(1, 0, 10.0, 0.0)] * 8, [100.0, 300.0, 200.0], 0, 45.0)
    assert (summary.seconds_unmoved_bound, summary.seconds_ideal_bound) == (160.0, 40.0)
    assert (summary.moves, summary.freeze_ms_median, summary.freeze_ms_max, summary.lost) == (3, 200.0, 300.0, 0)


def test_the_ideal_is_never_faster_than_the_longest_job() -> None:
    assert summarise([0.5] * 4, [Statement(1, 0, 10.0, 0.0)], [], 0, 45.0).seconds_ideal_bound == 20.0


def test_the_program_of_the_demo_is_a_good_witness() -> None:
    program = Path(__file__).parents[3] / "examples" / "work.py"
    output = subprocess.run([sys.executable, program, "0.2", "1"], capture_output=True, text=True, timeout=60, check=True).stdout
    statement = read_statement(output.splitlines())
    assert statement.faults == 0
    assert statement.cpu_seconds >= 0.2
