"""mxctl doctor: lines for people, data for programs, an exit code for scripts."""

import json

from tests.resources import node
from tests.unit.mxctl.terminal import Terminal


def test_it_fails_when_something_does(terminal: Terminal) -> None:
    terminal.create(node("n1"))
    said = terminal.run("doctor")
    assert said.code == 1
    assert "FAIL  nodes, node/n1: not Ready: it was never heard\n      -> mxctl describe node n1" in said.out
    assert "OK    reconciler: test leads\n" in said.out
    found = json.loads(terminal.run("doctor", "-o", "json").out)
    assert {"level": "OK", "check": "reconciler", "subject": "reconciler", "found": "test leads", "remedy": None} in found


def test_it_is_content_with_what_is_well(terminal: Terminal) -> None:
    said = terminal.run("doctor", "--quiet")
    assert said.code == 0 and "FAIL" not in said.out and "OK" not in said.out


def test_an_etcd_that_is_away_is_a_finding(terminal: Terminal) -> None:
    terminal.down = True
    said = terminal.run("doctor")
    assert said.code == 1 and "does not answer" in said.out
