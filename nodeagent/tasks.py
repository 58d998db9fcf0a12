"""What /proc tells of a job's processes: how many threads want a core at this moment, and whether it has TCP connections.

Threads in state R run or wait to run: that is demand. Under a quota a starved job uses little CPU time, but its threads stay in
state R (measured: in 200 of 200 samples).
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

PROC = Path("/proc")


def count_runnable(pids: Iterable[int], proc: Path = PROC) -> int:
    """Threads of these processes in state R; those that end while we look do not count."""
    return sum(_state(f"{proc}/{pid}/task/{thread}/stat") == "R" for pid in pids for thread in _names(f"{proc}/{pid}/task"))


def has_connections(pids: Iterable[int], proc: Path = PROC) -> bool:
    """Whether one of these processes, all of one network namespace, holds a TCP connection."""
    pids = list(pids)
    sockets = {link for pid in pids for link in _links(f"{proc}/{pid}/fd") if link.startswith("socket:")}
    return bool(sockets) and any(f"socket:[{inode}]" in sockets for inode in _connected(pids, proc))


def _connected(pids: Iterable[int], proc: Path) -> Iterator[str]:
    """Inodes of all TCP sockets of the namespace that are not just listening (0A)."""
    for name in ("tcp", "tcp6"):
        for pid in pids:
            try:
                lines = (proc / str(pid) / "net" / name).read_text().splitlines()[1:]
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile: ask the next one
            fields = (line.split() for line in lines)
            yield from (words[9] for words in fields if words[3] != "0A")
            break


def _links(directory: str) -> Iterator[str]:
    for name in _names(directory):
        try:
            yield os.readlink(f"{directory}/{name}")  # noqa: PTH115 - as below
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed meanwhile


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 - ten times a second for every process: twice as fast as iterdir
    except (FileNotFoundError, ProcessLookupError):
        return []


def _state(path: str) -> str:
    """The letter after the program's name, which is in parentheses and may itself contain any."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError):
        return ""
    try:
        return os.read(descriptor, 4096).rpartition(b")")[2][1:2].decode()
    except ProcessLookupError:
        return ""
    finally:
        os.close(descriptor)
