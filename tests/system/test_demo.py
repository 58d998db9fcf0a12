"""The demo keeps what the README promises."""

import json
from pathlib import Path

import pytest

from tests.system.commands import Terminal

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]


def play(terminal: Terminal) -> dict[str, float]:
    """The figures of one run, in which nothing may be lost however busy the machine is."""
    done = terminal.run("sudo scripts/demo --batch --json", seconds=400)
    assert done.code == 0, done.out[-2000:] + done.err[-2000:]
    figures: dict[str, float] = json.loads(done.out.splitlines()[-1])
    print(figures)
    assert (figures["nodes"], figures["jobs"], figures["lost"]) == (4, 9, 0)
    assert figures["moves"] >= 6, "nine jobs on one node need six moves to be two or three on each"
    assert figures["freeze_ms_max"] >= figures["freeze_ms_median"] > 0
    assert figures["seconds"] < 0.5 * figures["seconds_unmoved_bound"]
    return figures


def test_the_demo_balances_and_loses_nothing(tmp_path: Path) -> None:
    """What else runs on the machine can only make it slower, so the better of two runs tells how near the ideal it comes."""
    terminal = Terminal(tmp_path / "config")
    terminal.run(".venv/bin/mxctl lab down --name demo")  # left by a run that was killed: the demo names its lab itself
    for last in (False, True):
        figures = play(terminal)
        near = figures["seconds"] < 1.35 * figures["seconds_ideal_bound"]
        if near or last:
            break
    assert near, figures
