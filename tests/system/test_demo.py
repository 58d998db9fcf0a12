"""The demo keeps what the README promises."""

import json
from pathlib import Path

import pytest

from tests.system.commands import Terminal

pytestmark = pytest.mark.timeout(600)


def test_the_demo_balances_and_loses_nothing(tmp_path: Path) -> None:
    done = Terminal(tmp_path / "config").run("sudo scripts/demo --batch --json", seconds=580)
    assert done.code == 0, done.out[-2000:] + done.err[-2000:]
    figures = json.loads(done.out.splitlines()[-1])
    print(figures)
    assert (figures["nodes"], figures["jobs"], figures["lost"]) == (4, 9, 0)
    assert figures["moves"] >= 7, "nine jobs on one node need seven moves to be two or three on each"
    assert figures["freeze_ms_max"] >= figures["freeze_ms_median"] > 0
    assert figures["seconds"] < 0.5 * figures["seconds_unmoved_bound"]
    assert figures["seconds"] < 1.35 * figures["seconds_ideal_bound"]
