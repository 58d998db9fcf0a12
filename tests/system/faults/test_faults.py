"""A sample of the faulted moves every day, all of them as a soak test. A lab has a process of its own: that enters its network."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.system.commands import PROJECT
from tests.system.labs import lab_name

SEED = os.environ.get("FAULTS_SEED", "20260801")
"""Of the shuffle. Another one draws another sample: FAULTS_SEED=$RANDOM scripts/test system tests/system/faults."""
SKIP = os.environ.get("FAULTS_SKIP", "0")
"""So many of the soak test's trials are passed over: it goes on where a run with the same seed was ended."""
SAMPLE, SAMPLE_STOP = 30, 2.0
MODES = "stop,post-copy"
LABS = 3
LEAST = 200  # moves of the soak test


def trials(directory: Path, lab: str, *arguments: str) -> subprocess.Popen[str]:
    out = directory / f"{lab}.jsonl"
    command = [sys.executable, "-m", "tests.system.faults", "--lab", lab, "--seed", SEED, "--out", str(out), *arguments]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outcome(directory: Path, processes: dict[str, "subprocess.Popen[str]"], seconds: float) -> list[dict[str, Any]]:
    """Results of all labs; what they said is shown with a failing test."""
    end, found = time.monotonic() + seconds, []
    try:
        for lab, process in processes.items():
            said, _ = process.communicate(timeout=max(1.0, end - time.monotonic()))
            print(said)
            found += [json.loads(line) for line in (directory / f"{lab}.jsonl").read_text().splitlines()]
            assert process.returncode in (0, 1), f"lab {lab} ended with {process.returncode}"
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=60)
    return found


def complaints(results: list[dict[str, Any]]) -> list[str]:
    return [f"{result['trial']}: {result['complaints']}" for result in results if result["complaints"]]


@pytest.mark.timeout(600)
def test_a_sample_of_faulted_moves_costs_no_process(tmp_path: Path) -> None:
    lab = lab_name("faultsci")
    running = trials(tmp_path, lab, "--trials", str(SAMPLE), "--stop", str(SAMPLE_STOP), "--modes", MODES)
    results = outcome(tmp_path, {lab: running}, 580)
    assert not complaints(results)
    assert len(results) == SAMPLE


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_every_fault_at_every_boundary_costs_no_process(tmp_path: Path) -> None:
    names = [lab_name(f"faults{at}") for at in range(LABS)]
    processes = {
        name: trials(tmp_path, name, "--trials", "99999", "--skip", SKIP, "--modes", MODES, "--share", f"{at}/{LABS}")
        for at, name in enumerate(names)
    }
    results = outcome(tmp_path, processes, 7100)
    print(table(results))
    assert not complaints(results)
    assert len(results) >= LEAST


def table(results: list[dict[str, Any]]) -> str:
    """Fault, boundary, outcome, seconds; then how often which outcome."""
    rows = [
        f"{result['trial']['fault']:28} {result['trial']['side']}:{result['trial']['moment']:20} "
        f"{'BAD' if result['complaints'] else result['phase']:10} {result['seconds']:6.1f} s"
        for result in sorted(
            results, key=lambda result: (result["trial"]["fault"], result["trial"]["side"], result["trial"]["moment"])
        )
    ]
    counts = Counter("BAD" if result["complaints"] else result["phase"] for result in results)
    return "\n".join([f"seed {SEED}, {len(results)} moves", *rows, str(dict(counts))])
