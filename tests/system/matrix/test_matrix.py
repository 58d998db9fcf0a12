"""The workload matrix: all programs run at once in a lab, each is moved three times there and back, and says no wrong word.

What preflight foretells is compared with what happens: all that moves was called movable before, and what cannot be moved is
refused with its reason while it runs on.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import cluster
from lab.model import Places
from tests.system.labs import lab_name
from tests.system.matrix.drive import HOPS
from tests.system.matrix.workloads import PACKAGES, WORKLOADS, Workload

LAB = lab_name("matrix")
PROJECT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(__file__).with_name("programs")
SECONDS = 600
COMPILE = "cd /shared/matrix && gcc -O1 -o counter counter.c"

pytestmark = pytest.mark.timeout(1500)  # the first test of all waits for the image, then for all moves


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """What came of each workload, by name."""
    assert os.geteuid() == 0, "system tests need root: run sudo scripts/test system"
    config = tmp_path_factory.mktemp("matrix") / "config"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MXCONFIG", str(config))
        cluster.up(LAB, 2, "0.4", "1Gi", packages=PACKAGES)
        try:
            shutil.copytree(PROGRAMS, Places(LAB).shared / "matrix")
            subprocess.run(cluster.exec_command(LAB, "n1", ["bash", "-c", COMPILE]), check=True, timeout=60)
            yield {outcome["name"]: outcome for outcome in _drive()}
        finally:
            cluster.down(LAB)


def _drive() -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.system.matrix.drive", LAB]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def named(workload: Workload) -> str:
    """For pytest."""
    return workload.name


@pytest.mark.parametrize("workload", [each for each in WORKLOADS if not each.obstacle], ids=named)
def test_moves_three_times_there_and_back(outcomes: dict[str, dict[str, Any]], workload: Workload) -> None:
    found = outcomes[workload.name]
    assert not found["error"], found["error"]
    assert found["condition"].startswith("True NoObstacles")
    assert len(found["freezes"]) == HOPS and all(0 < freeze < 60_000 for freeze in found["freezes"])
    assert found["steps"] >= 2 * HOPS


@pytest.mark.parametrize("workload", [each for each in WORKLOADS if each.obstacle], ids=named)
def test_what_cannot_move_is_refused_with_its_reason(outcomes: dict[str, dict[str, Any]], workload: Workload) -> None:
    found = outcomes[workload.name]
    assert not found["error"], found["error"]
    assert found["condition"].startswith(f"False {workload.obstacle}: ")
    assert workload.obstacle in found["refused"] and found["steps"] > 3
