"""Moves one after the other, and many at once: nothing grows, no number of a witness is lost."""

import subprocess
import sys

import pytest

from tests.system.commands import PROJECT
from tests.system.labs import lab_name


def endure(seconds: float, lab: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "tests.system.faults.endurance", "--lab", lab_name(lab), *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=seconds, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.timeout(300)
def test_a_few_moves_leave_nothing_behind() -> None:
    endure(280, "endureci", "--moves", "15")


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", ["stop", "post-copy"])
def test_fifty_moves_one_after_the_other(mode: str) -> None:
    endure(1100, "endure50", "--moves", "50", "--mode", mode)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_eight_jobs_to_and_fro_for_five_minutes() -> None:
    endure(1100, "endure8", "--jobs", "8", "--seconds", "300")
