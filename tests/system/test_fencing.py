"""Nodes that lose touch, for real: what runs there stands still before anybody can miss the node, and goes on where it was."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import cluster, plan
from lab.model import Lab, Places, Service
from tests.system.commands import Terminal
from tests.system.labs import lab_name

pytestmark = pytest.mark.timeout(300)

LAB = lab_name("fencing")
LEASE = 5.0
PATIENCE = 30.0
ALIVE = "/mx/nodes/n1/alive"
GONE = f"""
exec 3< <(exec etcdctl watch --rev=$1 {ALIVE})
while read -r word <&3; do
    [ "$word" = DELETE ] && echo $EPOCHREALTIME && kill $! && exit
done
"""
COUNT = "import time,itertools\nfor i in itertools.count(): print(i, time.time(), flush=True); time.sleep(.02)"


def services(node: str) -> tuple[Service, ...]:
    agent, guard = plan.agent_service(node)
    return (Service(name=agent.name, command=[*agent.command, "--lease", str(LEASE)]), guard)


class Machine:
    """A lab of one node, and what a test does to it."""

    def __init__(self, lab: Lab, terminal: Terminal) -> None:
        self.terminal = terminal
        self.places = Places(LAB)
        init = lab.node("n1").init
        assert init is not None
        self.init = init.pid

    def on(self, node: str, *command: str) -> str:
        done = subprocess.run(
            cluster.exec_command(LAB, node, command), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.stdout.strip()

    def process(self, node: str, pattern: str) -> int:
        return int(self.on(node, "pgrep", "-o", "-f", pattern))

    def signal(self, node: str, pid: int, number: signal.Signals) -> None:
        self.on(node, "kill", f"-{number.value}", str(pid))

    def run(self, job: str, *options: str) -> None:
        self.terminal.mxctl("run", "--name", job, *options, "--", "python3", "-c", COUNT)
        self.terminal.mxctl("wait", f"job/{job}", "--for=condition=Running", "--timeout=30s")

    def lines(self, job: str) -> list[tuple[int, float]]:
        """Number and time of each line the job has written."""
        [log] = self.places.shared.glob(f".mx/jobs/default/{job}-*/output.log")
        text = log.read_text()
        words = (line.split() for line in text[: text.rfind("\n") + 1].splitlines())
        return [(int(number), float(moment)) for number, moment in words]

    def whole(self, job: str) -> int:
        """How many numbers there are; none is missing, none came twice."""
        numbers = [number for number, _ in self.lines(job)]
        assert numbers == list(range(len(numbers)))
        return len(numbers)

    def watch_heartbeat(self) -> "subprocess.Popen[str]":
        """Prints the time at which the node's heartbeat, which is there now, is gone."""
        found = json.loads(self.on("head", "etcdctl", "get", "-w", "json", ALIVE))
        assert found["count"] == 1, "the node has no heartbeat before it is to lose it"
        command = cluster.exec_command(LAB, "head", ["bash", "-c", GONE, "bash", str(found["header"]["revision"] + 1)])
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def goes_on(self, job: str) -> None:
        before = self.whole(job)
        deadline = time.monotonic() + PATIENCE
        while self.whole(job) < before + 5:
            assert time.monotonic() < deadline, f"{job} does not go on: {self.terminal.mxctl('get', 'jobs', '-o', 'wide')}"
            time.sleep(0.1)

    def stands_still(self, job: str) -> None:
        before = self.whole(job)
        time.sleep(0.3)  # fifteen lines of a job that runs
        assert self.whole(job) == before

    def missed(self, watching: "subprocess.Popen[str]") -> None:
        """The heartbeat runs out; when it is gone the witness has written its last line already, and it writes no other."""
        gone = float(watching.communicate(timeout=PATIENCE)[0])
        self.stands_still("w")
        assert self.lines("w")[-1][1] < gone

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Without a link to the others meanwhile."""
        self.on("n1", "ip", "link", "set", "eth0", "down")
        try:
            yield
        finally:
            self.on("n1", "ip", "link", "set", "eth0", "up")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.fail("system tests need root: run sudo scripts/test system")
    config = tmp_path_factory.mktemp("fencing") / "config"
    patch = pytest.MonkeyPatch()
    patch.setenv("MXCONFIG", str(config))
    try:
        lab = cluster.up(LAB, 1, "0.4", "256Mi", services=plan.Services((plan.ETCD, plan.RECONCILER), services))
        machine = Machine(lab, Terminal(config))
        machine.run("w")
        yield machine
    finally:
        cluster.down(LAB)
        patch.undo()


def test_a_short_stop_of_the_agent_harms_nobody(machine: Machine) -> None:
    agent = machine.process("n1", "mx-nodeagen[t]")
    machine.signal("n1", agent, signal.SIGSTOP)
    time.sleep(LEASE * 0.6)
    machine.signal("n1", agent, signal.SIGCONT)
    gaps = [after - before for (_, before), (_, after) in zip(machine.lines("w"), machine.lines("w")[1:], strict=False)]
    assert max(gaps) < 1.0
    machine.goes_on("w")


def test_an_agent_that_hangs(machine: Machine, tmp_path: Path) -> None:
    """And what becomes of jobs with wishes of their own."""
    for job, wish in (("k", "kill"), ("p", "keep")):
        file = tmp_path / f"{job}.yaml"
        command = f'["python3", "-c", "{COUNT}"]'.replace("\n", "\\n")
        file.write_text(f"apiVersion: mx/v1\nkind: Job\nmetadata: {{name: {job}}}\nspec: {{fencing: {wish}, command: {command}}}\n")
        machine.terminal.mxctl("apply", "-f", str(file))
        machine.terminal.mxctl("wait", f"job/{job}", "--for=condition=Running", "--timeout=30s")
    agent = machine.process("n1", "mx-nodeagen[t]")
    watching = machine.watch_heartbeat()
    machine.signal("n1", agent, signal.SIGSTOP)
    machine.missed(watching)
    machine.stands_still("k")
    machine.goes_on("p")
    machine.signal("n1", agent, signal.SIGCONT)
    machine.goes_on("w")
    machine.terminal.mxctl("wait", "job/k", "--for=jsonpath={.status.phase}=Failed", "--timeout=30s")
    said = machine.terminal.mxctl("get", "job", "k", "-o", "yaml")
    assert "lost touch with the cluster (fencing: kill)" in said
    assert "reason: Fenced" in said
    gaps = [after - before for (_, before), (_, after) in zip(machine.lines("p"), machine.lines("p")[1:], strict=False)]
    assert max(gaps) < 2.0
    machine.terminal.mxctl("delete", "job", "k", "p")


def test_an_agent_that_is_killed_and_not_started_again(machine: Machine) -> None:
    agent = machine.process("n1", "mx-nodeagen[t]")
    watching = machine.watch_heartbeat()
    os.kill(machine.init, signal.SIGSTOP)
    try:
        machine.signal("n1", agent, signal.SIGKILL)
        machine.missed(watching)
    finally:
        os.kill(machine.init, signal.SIGCONT)
    machine.goes_on("w")


def test_a_link_that_is_cut(machine: Machine) -> None:
    watching = machine.watch_heartbeat()
    with machine.cut_off():
        machine.missed(watching)
    machine.goes_on("w")


def test_without_its_guard_the_agent_does_it_alone(machine: Machine) -> None:
    guard = int(machine.on("n1", "cat", "/run/mx/guard").split()[0])
    machine.signal("n1", guard, signal.SIGSTOP)
    try:
        machine.terminal.mxctl("wait", "node/n1", "--for=condition=Guarded=False", "--timeout=30s")
        assert f"kill -CONT {guard}" in machine.terminal.mxctl("describe", "node", "n1")
        watching = machine.watch_heartbeat()
        with machine.cut_off():
            machine.missed(watching)
    finally:
        machine.signal("n1", guard, signal.SIGCONT)
    machine.goes_on("w")
    machine.terminal.mxctl("wait", "node/n1", "--for=condition=Guarded", "--timeout=30s")


def test_etcd_that_is_away_for_longer_than_the_lease(machine: Machine) -> None:
    etcd = machine.process("head", "etc[d] --name")
    machine.signal("head", etcd, signal.SIGSTOP)
    try:
        time.sleep(LEASE)
        machine.stands_still("w")
    finally:
        machine.signal("head", etcd, signal.SIGCONT)
    machine.goes_on("w")
