"""Checkpoints in a whole cluster: a node loses its power, its jobs go on elsewhere, and their files show no gap and no repetition.

The witness is a user's job: it appends 0, 1, 2, … to a file of its own and to its output, and keeps state in /tmp and /dev/shm too.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.model import Places
from tests.system.commands import Terminal
from tests.system.labs import lab_name

pytestmark = pytest.mark.timeout(400)

LAB = lab_name("userlab")
UID, GID = 1234, 5678
LOST_SECONDS = 120  # lease, promise and grace, and then some on a busy machine

WITNESS = """
import itertools, mmap, os, sys, time
name = sys.argv[1]
out = open(f"/shared/{name}.out", "a", buffering=1)
open("/tmp/note", "w").write("kept")
shm = open("/dev/shm/state", "w+b"); shm.truncate(4096); state = mmap.mmap(shm.fileno(), 4096)
for i in itertools.count():
    assert open("/tmp/note").read() == "kept"
    assert int.from_bytes(state[:8], "big") == i
    print(i, file=out)
    print(i, flush=True)
    state[:8] = (i + 1).to_bytes(8, "big")
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path_factory.mktemp("checkpoints") / "config")
    terminal.mxctl("lab", "up", "--name", LAB, "--nodes", "3", "--cpus", "0.5")
    try:
        (shared() / "witness.py").write_text(WITNESS)
        yield terminal
    finally:
        terminal.mxctl("lab", "down", "--name", LAB, ok=False)


def shared() -> Path:
    return Places(LAB).shared


def job(terminal: Terminal, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(terminal.mxctl("get", "job", name, "-o", "json"))
    return found


def status(terminal: Terminal, name: str, field: str) -> str:
    return terminal.mxctl("get", "job", name, "-o", f"jsonpath={{.status.{field}}}")


def numbers(path: Path) -> list[int]:
    """All whole lines; the test fails when they are not 0, 1, 2, …"""
    text = path.read_text() if path.exists() else ""
    found = [int(line) for line in text[: text.rfind("\n") + 1].split()]
    assert found == list(range(len(found))), f"{path.name}: a number is missing or came twice"
    return found


def directory(terminal: Terminal, name: str) -> Path:
    uid = terminal.mxctl("get", "job", name, "-o", "jsonpath={.metadata.uid}")
    return shared() / ".mx/jobs/default" / f"{name}-{uid[:8]}"


def until(truth: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def witness(terminal: Terminal, name: str, *options: str) -> Path:
    """Runs it on n1; its file."""
    out = shared() / f"{name}.out"
    out.touch()
    os.chown(out, UID, GID)
    program = ["python3", "/shared/witness.py", name]
    terminal.mxctl("run", "--name", name, "--user", f"{UID}:{GID}", "--on", "n1", *options, "--", *program)
    terminal.mxctl("wait", f"job/{name}", "--for=condition=Running", "--timeout=30s")
    goes_on(out)
    return out


def goes_on(out: Path) -> None:
    before = len(numbers(out))
    until(lambda: len(numbers(out)) > before + 5, 30, f"{out.name} grows")


def test_a_checkpoint_is_its_owners_and_goes_with_it(terminal: Terminal) -> None:
    out = witness(terminal, "owned", "--keep", "1")
    said = terminal.mxctl("checkpoint", "owned", "--name", "first", "--wait")
    assert "stood still for" in said
    goes_on(out)
    kept = directory(terminal, "owned") / "checkpoints"
    (found,) = kept.iterdir()
    assert (found.stat().st_uid, found.stat().st_mode & 0o777) == (UID, 0o700)
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in found.iterdir()} == {(UID, 0o600)}
    terminal.mxctl("checkpoint", "owned", "--name", "second", "--wait")
    until(lambda: [path.name[:6] for path in kept.iterdir()] == ["second"], 20, "only the newest is kept")
    assert "first" not in terminal.mxctl("get", "checkpoints")
    terminal.mxctl("delete", "checkpoint", "second")
    assert list(kept.iterdir()) == []
    terminal.mxctl("delete", "job", "owned")


def test_a_node_loses_its_power_and_the_job_goes_on_elsewhere(terminal: Terminal) -> None:
    out = witness(terminal, "lost", "--restart", "FromCheckpoint")
    log = directory(terminal, "lost") / "output.log"
    terminal.mxctl("checkpoint", "lost", "--wait")
    at = len(numbers(out))
    goes_on(out)
    terminal.mxctl("lab", "stop-node", "--name", LAB, "n1", "--hard")
    cut_at = len(numbers(out))
    assert cut_at > at
    until(lambda: status(terminal, "lost", "restarts") == "1", LOST_SECONDS, "the job is given back")
    terminal.mxctl("wait", "job/lost", "--for=condition=Running", "--timeout=60s")
    assert status(terminal, "lost", "node") in ("n2", "n3")
    until(lambda: len(numbers(out)) > cut_at + 20, 60, "it goes on beyond where it was cut off")
    numbers(log)
    assert "Restored" in terminal.mxctl("events")
    (life,) = (directory(terminal, "lost") / "cut").iterdir()
    kept = sorted(path.name.split("-", 1)[1] for path in life.iterdir())
    assert kept == ["lost.out", "output.log"], "what was cut off is kept"
    terminal.mxctl("lab", "start-node", "--name", LAB, "n1")
    until(lambda: not stale(terminal), 60, "the node that is back has cleared up")
    goes_on(out)
    assert int(status(terminal, "lost", "restarts")) == 1
    terminal.mxctl("migrate", "lost", "n1", "--wait")
    goes_on(out)
    numbers(log)
    terminal.mxctl("delete", "job", "lost")


def stale(terminal: Terminal) -> bool:
    """Whether anything of the job is on n1, on the machine or in etcd."""
    keys = terminal.mxctl("lab", "exec", "--name", LAB, "head", "--", "etcdctl", "get", "--prefix", "--keys-only", "/mx/")
    words = [key for key in keys.split() if "/n1/" in key and key.endswith("/lost")]
    copies = terminal.mxctl("lab", "exec", "--name", LAB, "n1", "--", "ls", "/run/mx/copies", ok=False)
    return bool(words) or "lost" in copies


def test_a_job_that_fails_goes_on_from_its_checkpoint(terminal: Terminal) -> None:
    """It is killed, and goes on from one that was taken by itself; what it did since it does again, and its file shows it once."""
    out = witness(terminal, "failing", "--restart", "FromCheckpoint", "--checkpoint-interval", "3s", "--keep", "2")
    until(lambda: status(terminal, "failing", "checkpoint") != "", 30, "a checkpoint is taken by itself")
    goes_on(out)
    node = status(terminal, "failing", "node")
    kill = "pkill -9 -f 'witness.py failin[g]'"
    terminal.mxctl("lab", "exec", "--name", LAB, node, "--", "bash", "-c", kill)
    until(lambda: status(terminal, "failing", "restarts") == "1", 30, "it is restarted")
    terminal.mxctl("wait", "job/failing", "--for=condition=Running", "--timeout=60s")
    goes_on(out)
    terminal.mxctl("delete", "job", "failing")


def test_a_job_that_fails_starts_anew(terminal: Terminal) -> None:
    script = "echo once >> /shared/anew; [ $(wc -l < /shared/anew) -ge 3 ]"
    (shared() / "anew").touch()
    terminal.mxctl("run", "--name", "anew", "--restart", "OnFailure", "--wait", "--timeout", "60s", "--", "bash", "-c", script)
    assert (shared() / "anew").read_text() == "once\n" * 3
    assert status(terminal, "anew", "restarts") == "2"


def test_a_damaged_checkpoint_is_passed_over(terminal: Terminal) -> None:
    out = witness(terminal, "spoilt", "--restart", "FromCheckpoint")
    for name in ("good", "bad"):
        terminal.mxctl("checkpoint", "spoilt", "--name", name, "--wait")
        goes_on(out)
    (bad,) = (directory(terminal, "spoilt") / "checkpoints").glob("bad-*")
    with next(bad.glob("pages-*")).open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    node = status(terminal, "spoilt", "node")
    terminal.mxctl("lab", "exec", "--name", LAB, node, "--", "bash", "-c", "pkill -9 -f 'witness.py spoil[t]'")
    until(lambda: status(terminal, "spoilt", "reason") == "went on from checkpoint/good", 60, "it goes on from the one before")
    goes_on(out)
    assert "Damaged" in terminal.mxctl("get", "checkpoint", "bad", "-o", "wide")
    terminal.mxctl("delete", "job", "spoilt")
