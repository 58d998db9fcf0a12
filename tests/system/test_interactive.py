"""People at terminals and pipelines, in a lab with real criu: the session goes on over moves without a lost or doubled byte."""

import hashlib
import itertools
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.commands import PROJECT, Terminal
from tests.system.labs import lab_name
from tests.system.person import Person

pytestmark = pytest.mark.timeout(300)

LAB = lab_name("talks")
MXCTL = str(PROJECT / ".venv/bin/mxctl")
SHELL = ("-it", "--", "bash", "--norc")
BLOCKS = 200


class Desk:
    """Where people sit: everything they start ends with the test."""

    def __init__(self, config: Path) -> None:
        self.terminal = Terminal(config)
        self.env = {**os.environ, "MXCONFIG": str(config), "TERM": "dumb"}
        self.people: list[Person] = []

    def person(self, *words: str) -> Person:
        self.people.append(Person([MXCTL, *words], self.env))
        return self.people[-1]

    def shell(self, name: str) -> Person:
        person = self.person("run", "--name", name, *SHELL)
        person.types("PS1='@ '\n")
        person.sees("\n@ ")
        return person

    def start(self, *words: str, **streams: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([MXCTL, *words], env=self.env, **streams)

    def started(self, job: str) -> None:
        """Waits until it is there, and runs."""
        while not self.terminal.mxctl("get", "job", job, "-o", "jsonpath={.status.startedAt}", ok=False):
            pass

    def node(self, job: str) -> str:
        return self.terminal.mxctl("get", "job", job, "-o", "jsonpath={.status.node}")

    def move(self, job: str) -> None:
        """To the other node."""
        there = "n2" if self.node(job) == "n1" else "n1"
        self.terminal.mxctl("migrate", job, there, "--wait")
        assert self.node(job) == there


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("talks") / "config")
    desk.terminal.mxctl("lab", "up", "--name", LAB, "--nodes", "2", "--cpus", "0.4")
    try:
        yield desk
    finally:
        desk.terminal.mxctl("lab", "down", "--name", LAB, ok=False)


@pytest.fixture
def desk(lab: Desk) -> Iterator[Desk]:
    yield lab
    for person in lab.people:
        person.close()
    lab.people.clear()


def test_a_shell_goes_on_over_moves(desk: Desk) -> None:
    me = desk.shell("shell")
    me.types("stty size; X=$((6*7)); sleep 1001 &\n")
    at = me.sees("40 120")
    me.sees("\n@ ", after=at)
    me.types("for ((i=0;;i++)); do echo n$i; sleep 0.01; done\n")
    me.sees("\r\nn5\r\n")
    for _ in range(6):
        desk.move("shell")
        me.sees("\r\nn", after=len(me.seen))
    at = len(me.seen)
    while b"@ " not in me.seen[at:]:  # Ctrl-C is for the group in the foreground, and that may just have ended
        me.types("\x03")
        me.looks(0.5)
    while b"still here 42" not in me.seen[at:]:  # a late Ctrl-C takes away what was typed behind it
        me.types("echo still here $X\n")
        me.looks(0.5)
    numbers = [int(number) for number in re.findall(rb"\nn(\d+)\r\n", me.seen[: me.seen.index(b"^C")].replace(b"\n", b"\n\n"))]
    assert numbers == list(range(len(numbers))), "a number was lost or doubled"
    me.types("jobs; echo still $X\n")
    at = me.sees("Running", after=at)
    at = me.sees("still 42", after=at)
    me.types("fg\n")
    at = me.sees("sleep 1001\r\n", after=at)
    me.types("\x1a")
    at = me.sees("Stopped", after=at)
    me.resize(33, 99)
    me.types("stty size; kill %1; while jobs %1 &> /dev/null; do sleep 0.1; done\n")  # bash does not leave a stopped job at once
    at = me.sees("33 99", after=at)
    me.types("exit 7\n")
    assert me.ends() == 7
    assert desk.terminal.mxctl("get", "job", "shell", "-o", "jsonpath={.status.exitCode}") == "7"
    assert "still 42" in desk.terminal.mxctl("logs", "shell")


def test_leaving_and_coming_back(desk: Desk) -> None:
    me = desk.shell("left")
    me.types("Y=kept\n")
    me.types("\x10\x11")
    me.sees("mxctl attach left")
    assert me.ends() == 0
    desk.move("left")
    again, onlooker = desk.person("attach", "left"), desk.person("attach", "--no-stdin", "left")
    while b"@ " not in onlooker.seen:  # until it is attached, too
        again.types("\n")
        onlooker.looks(0.3)
    again.types("echo was $Y\n")
    again.sees("was kept")
    onlooker.sees("was kept")
    again.types("exit 3\n")
    assert again.ends() == 3
    assert onlooker.ends() == 3


def test_the_terminal_is_put_back_when_mxctl_is_told_to_end(desk: Desk) -> None:
    me = desk.shell("told")
    me.process.send_signal(signal.SIGTERM)
    assert me.ends() == 128 + signal.SIGTERM
    assert desk.terminal.mxctl("get", "job", "told", "-o", "jsonpath={.status.phase}") == "Running"
    desk.terminal.mxctl("delete", "job", "told")


def test_deleting_a_shell_ends_it_at_once(desk: Desk) -> None:
    me = desk.shell("deleted")
    began = time.monotonic()
    desk.terminal.mxctl("delete", "job", "deleted")
    assert time.monotonic() - began < 8, "a shell takes no notice of SIGTERM, but of its terminal's end"
    assert me.ends() != 0


def test_a_pipeline(desk: Desk) -> None:
    said = desk.terminal.run(f"printf 'b\\na\\n' | {MXCTL} run -i --rm --name sorted -- sort")
    assert (said.code, said.out) == (0, "a\nb\n")
    assert "not exist" in desk.terminal.run(f"{MXCTL} get job sorted").err
    said = desk.terminal.run(f"echo x | {MXCTL} run -i --name both -- sh -c 'cat; echo aside >&2; exit 3'")
    assert (said.code, said.out) == (3, "x\n")
    assert "aside\n" in said.err
    said = desk.terminal.run(f"{MXCTL} run -i --name endless -- yes | head -n 3")
    assert said.out == "y\n" * 3
    desk.terminal.mxctl("wait", "job/endless", "--for=jsonpath={.status.exitCode}=141")


def test_what_does_not_go_together(desk: Desk) -> None:
    for words, message in {
        "run -it -- true": "-t needs a terminal",
        "run --rm -- true": "--rm needs somebody",
        "run -i --timeout 3s -- true": "--timeout goes with --wait",
        "attach nobody": "does not exist",
        "run -i --detach-keys ctrl-oops -- true": "is no key",
    }.items():
        said = desk.terminal.run(f"{MXCTL} {words} </dev/null")
        assert said.code == 1
        assert message in said.err
    said = desk.terminal.run(f"{MXCTL} run -i -- /no/such/program </dev/null")
    assert said.code == 127
    assert "/no/such/program" in said.err


def test_much_goes_through_while_it_is_moved_to_and_fro(desk: Desk) -> None:
    cat = desk.start("run", "-i", "--name", "much", "--", "sha256sum", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert cat.stdin is not None
    moved, sent, block = threading.Event(), hashlib.sha256(), os.urandom(1 << 18)

    def feed() -> None:
        for number in itertools.count():
            data = number.to_bytes(8, "big") + block
            sent.update(data)
            cat.stdin.write(data)
            if moved.is_set() and number >= BLOCKS:
                break
            time.sleep(0.01)
        cat.stdin.close()

    feeding = threading.Thread(target=feed)
    feeding.start()
    try:
        desk.started("much")
        for _ in range(2):
            desk.move("much")
    finally:
        moved.set()
        feeding.join(120)
    assert cat.stdout is not None
    assert cat.stdout.read().split()[0].decode() == sent.hexdigest()
    assert cat.wait(60) == 0


@pytest.fixture(scope="module")
def host(lab: Desk) -> str:
    """A job to run something beside."""
    lab.terminal.mxctl("run", "--name", "host", "--", "sh", "-c", "echo secret > /tmp/file; while :; do sleep 1; done")
    lab.started("host")
    return "host"


def test_running_something_beside_a_job(desk: Desk, host: str) -> None:
    assert desk.terminal.mxctl("exec", host, "--", "cat", "/tmp/file") == "secret\n"
    said = desk.terminal.run(f"echo in | {MXCTL} exec -i {host} -- sh -c 'cat; echo $MX_JOB >&2; setsid sleep 1005 & exit 4'")
    assert (said.code, said.out, said.err) == (4, "in\n", "default/host\n")
    assert "sleep 1005" not in desk.terminal.mxctl("exec", host, "--", "ps", "ax"), "what a session leaves behind ends with it"
    assert desk.terminal.run(f"{MXCTL} exec {host} -- /no/such/program").code == 127
    codes = [desk.terminal.run(f"{MXCTL} exec {host} -- sh -c 'exit 3'").code for _ in range(6)]
    assert codes == [3] * 6, "a session that is over when we take our leave ended with its own code"


def test_a_session_beside_a_job_ends_when_the_job_is_moved(desk: Desk, host: str) -> None:
    me = desk.person("exec", "-it", host, "--", "bash", "--norc")
    me.types("PS1='@ '\n")
    at = me.sees("\n@ ")
    me.types("stty size; sleep 1003 & sleep 1004\n")
    at = me.sees("40 120", after=at)
    while b"\n@ " not in me.seen[at:]:  # bash may have been between two programs, and then it goes on with the next
        me.types("\x03")
        me.looks(0.5)
    reason = "jsonpath={.status.conditions[?(@.type=='Migratable')].reason}"
    desk.terminal.mxctl("wait", f"job/{host}", f"--for={reason}=ExecSession", "--timeout=60s")
    desk.move(host)
    assert me.ends() == 137
    assert b"moved" in me.seen
    assert "sleep 1003" not in desk.terminal.mxctl("exec", host, "--", "ps", "ax")
    desk.terminal.mxctl("wait", f"job/{host}", f"--for={reason}=NoObstacles", "--timeout=60s")
