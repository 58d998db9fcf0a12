"""Locks of a stopped process: let go and taken again from outside, and the process never notices."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodeagent import locks
from nodeagent.locks import Lock

TAKE = {
    "FLOCK": "fcntl.flock(f, fcntl.LOCK_EX)",
    "POSIX": "fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)",
    "OFDLCK": "fcntl.fcntl(f, 37, struct.pack('hhqqi4x', 1, 0, 0, 0, 0))",
}
COUNT = "import itertools, time\nfor i in itertools.count(): print(i, flush=True); time.sleep(0.005)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lock"
    path.touch()
    return path


@pytest.fixture
def holder(file: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process with a lock of that kind, and stops it."""
    processes: list[subprocess.Popen[str]] = []

    def start(kind: str) -> subprocess.Popen[str]:
        code = f"import fcntl, struct\nf = open({str(file)!r}, 'r+'); {TAKE[kind]}\n{COUNT}"
        processes.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        processes[-1].stdout.readline()
        os.kill(processes[-1].pid, signal.SIGSTOP)
        os.waitid(os.P_PID, processes[-1].pid, os.WSTOPPED)
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def is_free(file: Path, kind: str) -> bool:
    with file.open("r+") as attempt:
        try:
            (fcntl.flock if kind == "FLOCK" else fcntl.lockf)(attempt, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def state(process: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_stopped(process: subprocess.Popen[str]) -> bool:
    end = time.monotonic() + 10
    while state(process) != "T":
        assert time.monotonic() < end, "it runs"
    return True


@pytest.mark.parametrize("kind", TAKE)
def test_let_go_and_taken_back(holder: Callable[[str], subprocess.Popen[str]], file: Path, tmp_path: Path, kind: str) -> None:
    process, record = holder(kind), tmp_path / "record"
    assert not is_free(file, kind)
    locks.let_go([process.pid], record)
    assert is_free(file, kind) and is_stopped(process)
    locks.take_back(record)
    assert not is_free(file, kind) and is_stopped(process) and not record.exists()
    locks.take_back(record)  # again: nothing is written down any more
    os.kill(process.pid, signal.SIGCONT)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(20)]
    assert said == list(range(1, 21))


def test_signals_that_come_meanwhile_are_not_lost(holder: Callable[[str], subprocess.Popen[str]], tmp_path: Path) -> None:
    """SIGSTOP twice, as criu may leave it, and one that ends the process as soon as it goes on."""
    process, record = holder("POSIX"), tmp_path / "record"
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(process.pid, signal.SIGUSR1)
    locks.let_go([process.pid], record)
    assert is_stopped(process)
    locks.take_back(record)
    assert is_stopped(process)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=10) == -signal.SIGUSR1


def test_a_region_stays_a_region(holder: Callable[[str], subprocess.Popen[str]]) -> None:
    [lock] = locks.excluding([holder("POSIX").pid])
    assert (lock.start, lock.length) == (5, 10)


def test_nothing_held_writes_nothing(tmp_path: Path) -> None:
    locks.let_go([os.getpid()], tmp_path / "record")
    assert not (tmp_path / "record").exists()


def test_a_lock_that_somebody_took_does_not_keep_the_process_from_going_on(
    holder: Callable[[str], subprocess.Popen[str]], file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = locks.excluding([holder("FLOCK").pid])
    locks.release(found)
    with file.open("r+") as thief:
        fcntl.flock(thief, fcntl.LOCK_EX)
        locks.retake(found, patience=0.1)
    assert "goes on without its lock" in caplog.text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lock:\t1: POSIX  ADVISORY  WRITE 29 fe:00:12 5 14", Lock(7, 3, "POSIX", "WRITE", "fe:00:12", 5, 10)),
        ("lock:\t2: FLOCK  ADVISORY  READ 29 fe:00:12 0 EOF", Lock(7, 3, "FLOCK", "READ", "fe:00:12")),
        ("lock:\t1: LEASE  ACTIVE    WRITE 29 fe:00:12 0 EOF", Lock(7, 3, "LEASE", "WRITE", "fe:00:12")),
    ],
)
def test_lines_of_the_kernel(line: str, expected: Lock) -> None:
    assert locks.parse(7, 3, line) == expected


def test_who_waits(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("1: FLOCK  ADVISORY  WRITE 5 fe:00:12 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 6 fe:00:12 0 EOF\n")
    assert locks.waited_for(tmp_path) == {"fe:00:12"}
