"""What the shim asks of the kernel: mounts, processes, numbers, files that survive a crash."""

# ruff: noqa: PTH105, PTH120, PTH123, PTH208
# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import ctypes
import itertools
import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CLEAR_PIDS = 1000
"""More than a criu and its children take."""
FIRST_AGAIN = 300
"""Where the kernel goes on after the highest PID there is."""


def libc_call(name: str, *arguments: Any) -> None:
    """Calls libc; OSError with the call's name when it fails."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def write(path: str, text: str) -> None:
    """For files of /proc and of cgroups: one write."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read_int(path: str) -> int:
    """The number in a file of one line."""
    with open(path, encoding="utf-8") as file:
        return int(file.read())


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    libc_call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None)


def write_atomically(path: str, data: dict[str, Any]) -> None:
    """A JSON file that is there whole, or not at all, also after a crash of the machine."""
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def start_time(pid: int) -> int:
    """Start of a process in clock ticks since boot: together with its PID it names the process for good."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def processes() -> Iterator[tuple[int, str, set[int]]]:
    """(pid, state, numbers that it, its threads, group and session use) of everything here but ourselves."""
    for name in os.listdir("/proc"):
        if not name.isdecimal() or name == "1":
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            threads = {int(thread) for thread in os.listdir(f"/proc/{name}/task")}
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        yield int(name), fields[0].decode(), {int(name), int(fields[2]), int(fields[3]), *threads}


def children_first() -> list[tuple[int, str]]:
    """(pid, state) of everything here but ourselves, every process before its parent."""
    parents: dict[int, int] = {}
    states: dict[int, str] = {}
    for pid, state, _ in processes():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                parents[pid], states[pid] = int(file.read().rpartition(b")")[2].split()[1]), state
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile

    def depth(pid: int) -> int:
        above = 0
        while pid in parents:
            pid, above = parents[pid], above + 1
        return above

    return [(pid, states[pid]) for pid in sorted(parents, key=depth, reverse=True)]


def clear_of(used: set[int], limit: int) -> int:
    """A PID after which many are free, so that a criu that starts there takes none of those in use.

    The highest in use; when that is close to ``limit``, where numbers start again from 300, the one before the widest gap."""
    highest = max(used, default=1)
    if limit - highest >= CLEAR_PIDS:
        return highest
    numbers = sorted({FIRST_AGAIN - 1, *(number for number in used if number >= FIRST_AGAIN), limit})
    return max(itertools.pairwise(numbers), key=lambda gap: gap[1] - gap[0])[0]


def enter_groups(groups: list[str]) -> None:
    """Moves the calling process into these cgroup directories."""
    for group in groups:
        write(group + "/cgroup.procs", "0")
