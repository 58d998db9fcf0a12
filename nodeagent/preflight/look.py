"""One look at a copy of a job: reads the picture, asks every family of obstacles."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from crds.report import Obstacle
from nodeagent import locks
from nodeagent.facts import IMAGE_FILE
from nodeagent.preflight import devices, files, kernel, locked, mapped, programs, sockets, tables
from nodeagent.preflight.scene import GONE, Process, Scene, Socket, read_namespaces, read_process
from nodeagent.shim.identity import may_raise_limits

FAMILIES: tuple[Callable[[Scene], Iterator[Obstacle]], ...] = (
    kernel.io_uring,
    kernel.unknown,
    devices.devices,
    files.local,
    files.big,
    files.unmounted,
    sockets.unix,
    sockets.unknown,
    sockets.inet,
    locked.locked,
    programs.traced,
    programs.elsewhere,
    programs.users,
    programs.orphaned,
)
OWN = ("/tmp", "/dev/shm")
"""Directories on the shared file system that each job has for itself."""
MOST = 8
"""Obstacles of one job that are told; each must be mended anyway."""
LONGEST = 60.0
"""Seconds after which everything is looked at again though nothing seems to have changed."""


def judge(scene: Scene) -> list[Obstacle]:
    """All that keeps it from being moved; the same is said once."""
    found = {obstacle.message: obstacle for family in FAMILIES for obstacle in family(scene)}
    return list(found.values())[:MOST]


class Preflight:
    """Looks at the processes of one copy, again and again. ``proc`` is that of the node."""

    def __init__(self, proc: Path = Path("/proc"), shared: Path = Path("/shared"), image: Path = IMAGE_FILE) -> None:
        self._proc = proc
        self._shared = (str(shared).rstrip("/"), *OWN)
        self._image = image
        self._mark: object = None
        self._found: list[Obstacle] = []
        self._looked = -LONGEST
        self._one_user = not may_raise_limits()

    def look(self, pids: Iterable[int], shim: int, *, thorough: bool) -> list[Obstacle]:
        """What keeps these processes, below that shim, from being moved. OSError when we may not look.

        Unless ``thorough``, the last answer holds while it was good, is young and the job has the same processes and descriptors.
        """
        pids = sorted(pids)
        mark = self._marks(pids)
        old = time.monotonic() - self._looked > LONGEST
        if thorough or old or self._found or mark != self._mark:
            self._found = judge(self.read(pids, shim))
            self._mark, self._looked = mark, time.monotonic()
        return list(self._found)

    def mapped(self, pids: Iterable[int]) -> list[str]:
        """Files of this node that these processes have mapped, sorted. OSError when we may not look."""
        return mapped.of_node(pids, self._shared, self._proc)

    def read(self, pids: Iterable[int], shim: int) -> Scene:
        """The picture."""
        found = tuple(process for pid in pids if (process := read_process(pid, self._proc)) is not None)
        home = read_namespaces(shim, self._proc)
        return Scene(
            found,
            self._sockets(found),
            own_network=home.get("net") != read_namespaces("self", self._proc).get("net"),
            image_time=self._image.stat().st_ctime if self._image.exists() else None,
            home=home,
            one_user=self._one_user,
            shared=self._shared,
            locks=tuple(locks.held((process.pid for process in found), self._proc)) if locks.any_held(self._proc) else (),
            contended=locks.waited_for(self._proc),
        )

    def _sockets(self, processes: Iterable[Process]) -> dict[int, Socket]:
        """By network namespace: a program may have made one of its own."""
        own = read_namespaces("self", self._proc).get("net")
        found: dict[int, Socket] = {}
        for process in processes:
            wanted = {each.inode for each in process.descriptors if each.target.startswith("socket:[")} - found.keys()
            if wanted:
                found |= tables.read_sockets(process.pid, wanted, self._proc, process.namespaces.get("net") != own)
            for each in process.descriptors:
                if each.inode in wanted - found.keys():  # neither bound nor connected, or of a family without a table
                    found |= tables.ask_socket(process.pid, each.number, each.inode)
        return found

    def _marks(self, pids: Iterable[int]) -> list[tuple[int, tuple[str, ...]]]:
        """Cheap to read, and another as soon as a process or a descriptor comes or goes."""
        return [(pid, _names(f"{self._proc}/{pid}/fd")) for pid in pids]


def _names(directory: str) -> tuple[str, ...]:
    try:
        return tuple(os.listdir(directory))  # noqa: PTH208 - twice as fast as iterdir
    except GONE:
        return ()
