"""Daemons are killed at rest: jobs go on, everything reconnects by itself, and what mxctl says becomes true again."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.system.commands import Terminal
from tests.system.labs import lab_name

pytestmark = pytest.mark.timeout(300)

LAB = lab_name("kills")
COUNT = "import time,itertools\nfor i in itertools.count(): print(i, flush=True); time.sleep(.05)"
TRUTH_SECONDS = 10  # the promise: so long after the restart `get` tells the truth again
RESTART_SECONDS = 5

DAEMONS = {
    "reconciler": ("head", "mx-reconciler"),
    "agent of the job": ("n1", "mx-nodeagent"),
    "another agent": ("n2", "mx-nodeagent"),
    "etcd": ("head", "etcd"),
}


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path_factory.mktemp("kills") / "config")
    terminal.mxctl("lab", "up", "--name", LAB, "--nodes", "2", "--cpus", "0.4")
    try:
        terminal.mxctl("run", "--name", "w", "--on", "n1", "--pin", "--", "python3", "-c", COUNT)
        terminal.mxctl("wait", "job/w", "--for=condition=Running", "--timeout=30s")
        yield terminal
    finally:
        terminal.mxctl("lab", "down", "--name", LAB, ok=False)


def until(truth: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def numbers(terminal: Terminal, job: str) -> list[int]:
    return [int(line) for line in terminal.mxctl("logs", job).split()]


def process(terminal: Terminal, node: str, pattern: str) -> str:
    return terminal.mxctl("lab", "exec", "--name", LAB, node, "--", "pgrep", "-o", "-f", pattern, ok=False).strip()


def kill(terminal: Terminal, node: str, pattern: str) -> None:
    """SIGKILL to a daemon; returns when another one runs in its place."""
    victim = process(terminal, node, pattern)
    assert victim, f"no {pattern} on {node}"
    terminal.mxctl("lab", "exec", "--name", LAB, node, "--", "kill", "-9", victim)
    until(lambda: process(terminal, node, pattern) not in {"", victim}, RESTART_SECONDS, f"{pattern} runs again")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_killed_daemon_costs_nothing(terminal: Terminal, daemon: str) -> None:
    node, pattern = DAEMONS[daemon]
    name = f"ends-{node}-{pattern.removeprefix('mx-')}"
    gate = f"/shared/{name}"
    terminal.mxctl(
        "run", "--name", name, "--on", "n1", "--pin", "--", "bash", "-c", f"until [ -e {gate} ]; do sleep .05; done; exit 3"
    )
    terminal.mxctl("wait", f"job/{name}", "--for=condition=Running", "--timeout=30s")
    before = len(numbers(terminal, "w"))

    kill(terminal, node, pattern)
    terminal.mxctl("lab", "exec", "--name", LAB, "n2", "--", "touch", gate)

    terminal.mxctl("wait", f"job/{name}", "--for=jsonpath={.status.phase}=Failed", f"--timeout={TRUTH_SECONDS}s")
    assert terminal.mxctl("get", "job", name, "-o", "jsonpath={.status.exitCode}") == "3"
    terminal.mxctl("wait", "node/n1", "node/n2", "--for=condition=Ready", f"--timeout={TRUTH_SECONDS}s")
    assert terminal.mxctl("get", "job", "w", "-o", "jsonpath={.status.phase}") == "Running"
    until(lambda: len(numbers(terminal, "w")) > before, TRUTH_SECONDS, "the job goes on")
    found = numbers(terminal, "w")
    assert found == list(range(len(found)))


def test_a_job_that_ends_while_its_agent_is_down_is_told_truly(terminal: Terminal) -> None:
    gate = "/shared/while-down"
    script = f"until [ -e {gate} ]; do sleep .02; done; exit 7"
    terminal.mxctl("run", "--name", "down", "--on", "n2", "--pin", "--", "bash", "-c", script)
    terminal.mxctl("wait", "job/down", "--for=condition=Running", "--timeout=30s")
    terminal.mxctl("lab", "exec", "--name", LAB, "n2", "--", "bash", "-c", f"pkill -9 -f mx-nodeagen[t]; touch {gate}")
    terminal.mxctl("wait", "job/down", "--for=jsonpath={.status.phase}=Failed", "--timeout=20s")
    assert terminal.mxctl("get", "job", "down", "-o", "jsonpath={.status.exitCode}") == "7"


def test_an_object_broken_behind_our_back_stops_nothing(terminal: Terminal) -> None:
    broken = '{"apiVersion":"mx/v1","kind":"Job","metadata":{"name":"bad","namespace":"default"},"spec":{"command":"not a list"}}'
    put = ["lab", "exec", "--name", LAB, "head", "--", "etcdctl", "--endpoints", "127.0.0.1:2379", "put"]
    terminal.mxctl(*put, "/mx/kinds/jobs/default/bad", broken)
    terminal.mxctl(*put, "/mx/kinds/nodes/_/worse", "no JSON at all")
    terminal.mxctl("run", "--name", "after", "--on", "n1", "--wait", "--", "true")
    until(lambda: "bad" in terminal.mxctl("events"), TRUTH_SECONDS, "an event tells of the broken job")
    until(lambda: "worse" in terminal.mxctl("events", "-A"), TRUTH_SECONDS, "an event tells of the broken node")
    stored = terminal.mxctl(
        "lab", "exec", "--name", LAB, "head", "--", "etcdctl", "get", "--print-value-only", "/mx/kinds/jobs/default/bad"
    )
    assert '"Valid"' in stored
    assert "after" in terminal.mxctl("get", "jobs")
