"""Jobs with a network of their own move in a real lab: no connection is reset, no message is lost or comes twice.

They talk to a third host, in the namespace of the lab's switch, which is no node at all; to a node, by their names; to each other.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import cluster
from lab.model import HEAD_ADDRESS, Places
from tests.system.commands import Terminal
from tests.system.labs import lab_name
from tests.system.machine import run

pytestmark = pytest.mark.timeout(300)

LAB = lab_name("nets")
SECONDS = 60.0
PORT = 6100
CLIENT = """
import itertools, socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    lines = connection.makefile("rw")
    for i in itertools.count():
        print(i, file=lines, flush=True)
        answer = lines.readline()
        assert answer == f"{i}\\n", f"{answer!r} instead of {i}"
        print(i, flush=True)
        time.sleep(0.01)
"""
SERVER = """
import itertools, socket, sys, threading
def serve(connection):
    lines = connection.makefile("rw")
    for i in itertools.count():
        asked = lines.readline()
        assert asked == f"{i}\\n", f"{asked!r} instead of {i}"
        print(i, file=lines, flush=True)
        print(i, flush=True)
listener = socket.create_server(("", int(sys.argv[1])), backlog=16)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
# Sends more than it is answered, so that much is on its way at any time.
UPLOAD = """
import itertools, socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    for i in itertools.count():
        connection.sendall(b"%07d\\n" % i * 100)
        print(i, flush=True)
        time.sleep(0.01)
"""
SINK = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as listener:
    lines = listener.accept()[0].makefile("rb")
    for i, line in enumerate(lines):
        assert int(line) == i // 100, f"{line!r} instead of {i // 100}"
        if i % 100 == 99: print(i // 100, flush=True)
    raise SystemExit("it was closed")
"""
# Instead of criu on a node: a restore says that it has come so far, waits until it is let go, and fails.
NO_RESTORE = """#!/bin/sh
[ "$1" = restore ] || exec /usr/sbin/criu.real "$@"
touch /shared/restoring
while [ -e /shared/restoring ]; do sleep 0.02; done
exit 1
"""


class Talker:
    """Somebody who writes 0, 1, 2, … one a line, for each message that went as it should."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def numbers(self) -> int:
        """How many lines there are; the test fails when anything but numbers is there."""
        text = self.log.read_text() if self.log.exists() else ""
        lines = text[: text.rfind("\n") + 1].split("\n")[:-1]
        assert all(line.isdecimal() for line in lines), text[-800:]
        return len(lines)

    def goes_on(self, messages: int = 30) -> None:
        """Waits for so many more."""
        wanted = self.numbers() + messages
        until(lambda: self.numbers() >= wanted, f"{self.log}: {messages} more messages")


class Lab:
    """A lab of three nodes, and what talks outside of jobs."""

    def __init__(self, terminal: Terminal, directory: Path) -> None:
        self.terminal, self.directory = terminal, directory
        self.shared = Places(LAB).shared
        self._number = 0

    def run(self, job: str, node: str, script: str, *arguments: str, mode: str = "stop") -> Talker:
        """A job with a network of its own."""
        (self.shared / f"{job}.py").write_text(script)
        yaml = self.directory / f"{job}.yaml"
        yaml.write_text(
            f"apiVersion: mx/v1\nkind: Job\nmetadata: {{name: {job}}}\nspec:\n"
            f"  command: [python3, /shared/{job}.py, {', '.join(map(repr, arguments))}]\n"
            f"  network: {{mode: own}}\n  resources: {{cpu: 50m, memory: 16Mi}}\n  placement: {{node: {node}}}\n"
            f"  terminationGrace: 1s\n  migration: {{mode: {mode}}}\n"
        )
        self.terminal.mxctl("apply", "-f", str(yaml))
        self.terminal.mxctl("wait", f"job/{job}", "--for=condition=Running", "--timeout=60s")
        return Talker(next((self.shared / ".mx/jobs/default").glob(f"{job}-*")) / "output.log")

    def move(self, job: str, node: str) -> None:
        """There, and it arrives."""
        self.terminal.mxctl("migrate", job, node, "--wait")
        assert self.terminal.mxctl("get", f"job/{job}", "-o", "jsonpath={.status.node}").strip() == node

    def on(self, node: str, *command: str, ok: bool = True) -> str:
        """Past mxctl, whose start takes longer than the command."""
        done = run(cluster.exec_command(LAB, node, command))
        assert done.returncode == 0 or not ok, done.stderr
        return done.stdout

    def listening(self, node: str, port: int) -> bool:
        """Whether somebody in that network listens there."""
        return f":{port:04X} 00000000:0000 0A" in self.on(node, "cat", "/proc/net/tcp")

    @contextmanager
    def outside(self, node: str, script: str, *arguments: str) -> Iterator[Talker]:
        """A process on a node (the head is none: nothing of MX is in its network) that talks until the end of the block."""
        self._number += 1
        log = self.directory / f"outside-{self._number}.log"
        python = ["python3", "-c", script, *arguments]
        with log.open("wb") as out, subprocess.Popen(cluster.exec_command(LAB, node, python), stdout=out, stderr=out) as process:
            try:
                yield Talker(log)
                assert process.poll() is None, log.read_text()[-800:]
            finally:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                for pid in children:  # nsenter's own child is the one in the namespace
                    subprocess.run(["kill", "-9", pid], check=False, timeout=10)
                process.kill()


def until(truth: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("nets")
    terminal = Terminal(directory / "config")
    terminal.mxctl("lab", "up", "--name", LAB, "--nodes", "3", "--cpus", "0.5")
    try:
        yield Lab(terminal, directory)
    finally:
        terminal.mxctl("lab", "down", "--name", LAB, ok=False)


@pytest.fixture(autouse=True)
def no_jobs(lab: Lab) -> Iterator[None]:
    """Each test's jobs go, and with them all their links and names."""
    yield
    lab.terminal.mxctl("delete", "jobs", "--all")
    for node in ("n1", "n2", "n3"):
        assert "mx-" not in lab.on(node, "ls", "/sys/class/net"), f"a link is left on {node}"
        until(lambda node=node: "mx.local" not in lab.on(node, "cat", "/etc/hosts"), f"no names of jobs on {node}")  # type: ignore[misc]


def test_connections_of_all_kinds_survive_moves_there_and_back(lab: Lab) -> None:
    with lab.outside("head", SERVER, str(PORT)) as third:
        until(lambda: lab.listening("head", PORT), "the third host listens")
        callee = lab.run("callee", "n2", SERVER, "6000")
        until(lambda: "callee" in lab.on("n3", "cat", "/etc/hosts"), "the name is known")
        caller = lab.run("caller", "n1", CLIENT, HEAD_ADDRESS, str(PORT))
        friend = lab.run("friend", "n1", CLIENT, "callee.default.mx.local", "6000")
        with lab.outside("n3", CLIENT, "callee", "6000") as stranger:
            everybody = (third, caller, callee, friend, stranger)
            for job, node in (("caller", "n2"), ("callee", "n1"), ("caller", "n1"), ("callee", "n2"), ("friend", "n2")):
                for talker in everybody:
                    talker.goes_on()
                lab.move(job, node)
            for talker in everybody:
                talker.goes_on(50)


@pytest.mark.parametrize("mode", ["stop", "post-copy"])
def test_what_is_on_its_way_arrives_once(lab: Lab, mode: str) -> None:
    port = PORT + 10 + len(mode)
    with lab.outside("head", SINK, str(port)) as sink:
        until(lambda: lab.listening("head", port), "the third host listens")
        upload = lab.run("upload", "n1", UPLOAD, HEAD_ADDRESS, str(port), mode=mode)
        for node in ("n2", "n1"):
            upload.goes_on()
            sink.goes_on()
            lab.move("upload", node)
            assert f" {mode} " in lab.terminal.mxctl("describe", "job", "upload")
        upload.goes_on()
        sink.goes_on()


def test_a_checkpoint_leaves_connections_as_they_are(lab: Lab) -> None:
    with lab.outside("head", SERVER, str(PORT + 5)) as third:
        until(lambda: lab.listening("head", PORT + 5), "the third host listens")
        caller = lab.run("caller", "n1", CLIENT, HEAD_ADDRESS, str(PORT + 5))
        third.goes_on()
        lab.terminal.mxctl("checkpoint", "caller", "--wait")
        third.goes_on()
        caller.goes_on()


def test_it_answers_by_its_name_before_and_after_a_move(lab: Lab) -> None:
    lab.run("pinged", "n1", SERVER, "6000")
    address = lab.terminal.mxctl("get", "job/pinged", "-o", "jsonpath={.status.address}").strip()
    for node in ("n1", "n2"):
        if node == "n2":
            lab.move("pinged", node)
        for asking, name in (("n1", "pinged"), ("n2", "pinged.default"), ("n3", "pinged.default.mx.local")):
            until(lambda asking=asking: "pinged" in lab.on(asking, "cat", "/etc/hosts"), "the name is known")  # type: ignore[misc]
            assert f"({address})" in lab.on(asking, "ping", "-c1", "-W2", name)
    assert address in lab.terminal.mxctl("get", "jobs", "-o", "wide")
    assert "pinged.default.mx.local" in lab.terminal.mxctl("describe", "job", "pinged")
    assert "1 received" in lab.on("head", "ping", "-c1", "-W2", address)


@contextmanager
def no_restore(lab: Lab, node: str) -> Iterator[Path]:
    """Restores on that node stand still, then fail; the file is there while one stands."""
    script = lab.shared / "no-restore"
    script.write_text(NO_RESTORE)
    lab.on(
        node,
        "sh",
        "-c",
        "mv /usr/sbin/criu /usr/sbin/criu.real && cp /shared/no-restore /usr/sbin/criu && chmod 755 /usr/sbin/criu",
    )
    try:
        yield lab.shared / "restoring"
    finally:
        (lab.shared / "restoring").unlink(missing_ok=True)
        lab.on(node, "mv", "/usr/sbin/criu.real", "/usr/sbin/criu")


@pytest.mark.parametrize("kill_agent", [False, True])
def test_connections_survive_a_move_that_fails(lab: Lab, kill_agent: bool) -> None:
    port = PORT + 2 + kill_agent
    with lab.outside("head", SERVER, str(port)) as third, no_restore(lab, "n2") as restoring:
        until(lambda: lab.listening("head", port), "the third host listens")
        caller = lab.run("caller", "n1", CLIENT, HEAD_ADDRESS, str(port))
        until(lambda: "caller" in lab.on("n3", "cat", "/etc/hosts"), "the name is known")
        third.goes_on()
        lab.terminal.mxctl("migrate", "caller", "n2")
        until(restoring.exists, "the restore begins")
        standing = third.numbers()
        if kill_agent:
            lab.on("n2", "kill", "-9", lab.on("n2", "pgrep", "-o", "-f", "mx-nodeagent").strip())
        else:
            pinged = lab.on("n3", "ping", "-c2", "-W1", "caller", ok=False)
            assert " 0 received" in pinged, "neither copy answers while nothing is decided"
            assert third.numbers() == standing
            restoring.unlink()
        third.goes_on()
        caller.goes_on()
        assert lab.terminal.mxctl("get", "job/caller", "-o", "jsonpath={.status.node}").strip() == "n1"


def test_a_restarted_agent_keeps_the_connection(lab: Lab) -> None:
    with lab.outside("head", SERVER, str(PORT + 4)) as third:
        until(lambda: lab.listening("head", PORT + 4), "the third host listens")
        lab.run("caller", "n1", CLIENT, HEAD_ADDRESS, str(PORT + 4))
        third.goes_on()
        before = lab.on("n1", "pgrep", "-o", "-f", "mx-nodeagent").strip()
        lab.on("n1", "kill", "-9", before)
        third.goes_on(100)
        until(
            lambda: lab.on("n1", "sh", "-c", "pgrep -o -f mx-nodeagent || true").strip() not in ("", before), "another agent runs"
        )
        lab.move("caller", "n2")
        third.goes_on()
