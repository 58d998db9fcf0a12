"""Ten thousand steps of everything that can go wrong: one copy, never lost, converges, stops. In two processes, for two cores."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
PARTS, RUNS, STEPS = 2, 22, 250  # hypothesis ends some runs early
LEAST = 10_000
MOVES = 200
"""At least so many moves must have succeeded in all, or the steps were about nothing."""


@pytest.mark.timeout(900)
def test_ten_thousand_steps() -> None:
    first = random.randrange(10**6) if os.environ.get("HYPOTHESIS_PROFILE") == "random" else 1
    said = _run([first + part for part in range(PARTS)])
    counted = [re.fullmatch(r"seed \d+: (\d+) steps, (\d+) moves", line) for line in said]
    steps, moves = (sum(int(found[number]) for found in counted if found) for number in (1, 2))
    print("; ".join(said))
    assert steps >= LEAST
    assert moves >= MOVES


def _run(seeds: list[int]) -> list[str]:
    """The last line of each part."""
    parts = {}
    for seed in seeds:
        command = [
            sys.executable,
            "-m",
            "tests.integration.machine",
            "--seed",
            str(seed),
            "--runs",
            str(RUNS),
            "--steps",
            str(STEPS),
        ]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        parts[seed] = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    said = []
    try:
        for seed, part in parts.items():
            output, _ = part.communicate(timeout=880)
            assert part.returncode == 0, f"seed {seed}:\n{output[-20000:]}"
            said.append(output.strip().splitlines()[-1])
    finally:
        for part in parts.values():
            if part.poll() is None:
                part.kill()
                part.wait()
    return said
