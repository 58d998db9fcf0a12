"""The control groups of jobs as something that can be made to stand still: v2's freezer where there is a v2 tree, otherwise v1's.

What stands still in a v2 group can still be killed; in a v1 group a signal waits until the group is thawed, and then comes before
any instruction of the program. Standard library only, and little of it: the guard is made of this.
"""

# ruff: noqa: PTH110, PTH112, PTH118, PTH123, PTH208
# importing pathlib takes more memory than all the rest
from __future__ import annotations

import errno
import os
import signal

JOBS = "jobs"
ROOT = "/sys/fs/cgroup"
GONE = (errno.ENODEV, errno.EOPNOTSUPP)
"""What the kernel says of a group that is being removed, or has no processes of its own."""


def read_file(path: str | os.PathLike[str]) -> str:
    """A file of the kernel's, stripped. An agent reads dozens a second: without the layers of a text file, which cost the most."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while more := os.read(descriptor, 1 << 16):  # some give a page at a time
            text += more
        return text.decode().strip()
    finally:
        os.close(descriptor)


class Freezer:
    """All groups below ``jobs``, by name. A group that is gone is no error: nothing is in it."""

    def __init__(self, root: str = ROOT) -> None:
        """Looks which trees there are, without needing any."""
        pure = os.path.exists(os.path.join(root, "cgroup.controllers"))
        unified = root if pure else os.path.join(root, "unified")
        self._v2 = os.path.join(unified, JOBS) if os.path.exists(os.path.join(unified, "cgroup.procs")) else ""
        v1 = os.path.join(root, "freezer")
        self._v1 = os.path.join(v1, JOBS) if not pure and os.path.exists(os.path.join(v1, "cgroup.procs")) else ""

    @property
    def works(self) -> bool:
        """Whether there is any tree at all."""
        return bool(self._v1 or self._v2)

    def names(self) -> list[str]:
        """Of all groups, sorted."""
        found: set[str] = set()
        for parent in (self._v1, self._v2):
            if parent and os.path.isdir(parent):
                found.update(name for name in os.listdir(parent) if os.path.isdir(os.path.join(parent, name)))
        return sorted(found)

    def frozen(self, name: str) -> bool:
        """Whether somebody made it stand still (or is about to)."""
        return self._read(self._v2, name, "cgroup.freeze") == "1" or self._read(self._v1, name, "freezer.state").startswith("F")

    def freeze(self, name: str) -> bool:
        """Makes it stand still, soon: what is in a system call stops when that is over. False when neither freezer has it."""
        return self._write(self._v2, name, "cgroup.freeze", "1") or self._write(self._v1, name, "freezer.state", "FROZEN")

    def thaw(self, name: str) -> None:
        """Lets it go on, whichever freezer held it."""
        self._write(self._v2, name, "cgroup.freeze", "0")
        self._write(self._v1, name, "freezer.state", "THAWED")

    def pids(self, name: str) -> list[int]:
        """Its processes, as whoever asks numbers them."""
        text = self._read(self._v2, name, "cgroup.procs") or self._read(self._v1, name, "cgroup.procs")
        return [int(pid) for pid in text.split()]

    def kill(self, name: str) -> None:
        """SIGKILL to all that is in it; nothing of it executes another instruction, and nothing new can be forked meanwhile."""
        if self._write(self._v2, name, "cgroup.kill", "1"):
            self._write(self._v1, name, "freezer.state", "THAWED")
            return
        self.freeze(name)
        for pid in self.pids(name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it has just ended
        self.thaw(name)

    def _read(self, parent: str, name: str, file: str) -> str:
        if not parent:
            return ""
        try:
            return read_file(os.path.join(parent, name, file))
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            if error.errno in GONE:
                return ""
            raise

    def _write(self, parent: str, name: str, file: str, text: str) -> bool:
        """False when there is no such file."""
        if not parent:
            return False
        try:
            with open(os.path.join(parent, name, file), "r+", encoding="utf-8") as stream:
                stream.write(text)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno in GONE:
                return False
            raise
        return True
