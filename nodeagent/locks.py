"""Locks on files that a job holds, let go while it stands frozen, so that its copy on another node can take them.

Both copies see the same file on the shared file system, and criu, which takes the locks anew before the copy runs, waits for ever
as long as the frozen one holds them. So they are let go when the dump is done, and taken again before the job goes on here, if it
does. What is to be taken again is written down first, beside the sandbox's other records: an agent that dies in between finds it.

Nobody may slip in: a lock that others wait for keeps the job from being moved (preflight). Only locks for writing exclude anybody.
"""

import fcntl
import json
import logging
import os
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nodeagent.borrow import borrowed
from nodeagent.errors import EngineFailed
from nodeagent.shim.kernel import write_atomically
from nodeagent.tracer import call_in

log = logging.getLogger(__name__)

OFD_SETLK = 37
FLOCK = struct.Struct("hhqqi4x")
"""struct flock: type, whence, start, length (0: to the end), pid."""
FLOCK_KIND, POSIX_KIND, OFD_KIND, LEASE_KIND = "FLOCK", "POSIX", "OFDLCK", "LEASE"
WRITE = "WRITE"
PATIENCE = 10.0
"""Seconds for taking a lock again that somebody took meanwhile; then the job goes on without it, which is said as an error."""
PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock, held by a process's descriptor. ``file`` is "major:minor:inode", ``length`` 0 reaches to the end."""

    pid: int
    descriptor: int
    kind: str
    mode: str
    file: str
    start: int = 0
    length: int = 0

    @property
    def excludes(self) -> bool:
        """Whether a copy of it on another node would have to wait."""
        return self.mode == WRITE and self.kind in (FLOCK_KIND, POSIX_KIND, OFD_KIND)


def held(pids: Iterable[int], proc: Path = Path("/proc")) -> list[Lock]:
    """All locks of these processes."""
    return [lock for pid in pids for number in _names(f"{proc}/{pid}/fdinfo") for lock in read_locks(pid, int(number), proc)]


def read_locks(pid: int, descriptor: int, proc: Path = Path("/proc")) -> list[Lock]:
    """Those of one descriptor; none when it is closed meanwhile."""
    try:
        text = Path(f"{proc}/{pid}/fdinfo/{descriptor}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [parse(pid, descriptor, line) for line in text.splitlines() if line.startswith("lock:")]


def parse(pid: int, descriptor: int, line: str) -> Lock:
    """One line of /proc/PID/fdinfo/N: "lock: 1: POSIX  ADVISORY  WRITE 29 fe:00:1499 0 EOF"."""
    _, _, kind, _, mode, _, file, start, end = line.split()
    length = 0 if end == "EOF" else int(end) - int(start) + 1
    return Lock(pid, descriptor, kind, mode, file, int(start), length)


def waited_for(proc: Path = Path("/proc")) -> frozenset[str]:
    """Files with a lock that somebody on this node waits for."""
    lines = (line.split() for line in (proc / "locks").read_text().splitlines())
    return frozenset(words[6] for words in lines if len(words) > 6 and words[1] == "->")


def any_held(proc: Path = Path("/proc")) -> bool:
    """Whether anybody on this node holds a lock that excludes others, or a lease: mostly nobody does, and that is cheap to see."""
    return any(WRITE in line or LEASE_KIND in line for line in (proc / "locks").read_text().splitlines())


def excluding(pids: Iterable[int], proc: Path = Path("/proc")) -> list[Lock]:
    """The locks of these processes that their copy on another node would wait for."""
    return [lock for lock in held(pids, proc) if lock.excludes] if any_held(proc) else []


def let_go(pids: Iterable[int], record: Path) -> None:
    """Of stopped processes: all that their copy would wait for, once it is written down in ``record``. OSError, EngineFailed."""
    found = excluding(pids)
    if found:
        write_atomically(str(record), {"locks": [asdict(lock) for lock in found]})
        release(found)


def take_back(record: Path) -> None:
    """What ``record`` says, if it is there, before the processes run again. What fails is said and left: they have to run."""
    try:
        data = json.loads(record.read_text())
    except FileNotFoundError:
        return
    for lock in (Lock(**each) for each in data["locks"]):
        try:
            retake([lock])
        except (OSError, EngineFailed) as error:
            log.error("process %d goes on without its lock on %s: %s", lock.pid, lock.file, error)
    record.unlink()


def release(locks: Iterable[Lock]) -> None:
    """Lets them go. EngineFailed, OSError."""
    for lock in locks:
        _apply(lock, take=False)


def retake(locks: Iterable[Lock], patience: float = PATIENCE) -> None:
    """Takes them again; one that cannot be had in time is said and left, as the job must go on. EngineFailed, OSError."""
    end = time.monotonic() + patience
    for lock in locks:
        while True:
            try:
                _apply(lock, take=True)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    log.error("process %d goes on without its lock on %s: somebody else took it", lock.pid, lock.file)
                    break
            time.sleep(PAUSE)


def _apply(lock: Lock, *, take: bool) -> None:
    """BlockingIOError: somebody else has it. EngineFailed."""
    region = FLOCK.pack(fcntl.F_WRLCK if take else fcntl.F_UNLCK, os.SEEK_SET, lock.start, lock.length, 0)
    if lock.kind == POSIX_KIND:  # belongs to the process, so it has to ask itself
        call_in(lock.pid, "fcntl", lock.descriptor, fcntl.F_SETLK, region)
        return
    with borrowed(lock.pid, lock.descriptor) as file:  # belongs to the open file, whoever asks
        if lock.kind == OFD_KIND:
            fcntl.fcntl(file, OFD_SETLK, region)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN)


def _names(directory: str) -> Iterator[str]:
    try:
        yield from os.listdir(directory)  # noqa: PTH208 - twice as fast as iterdir
    except (FileNotFoundError, ProcessLookupError):
        return
