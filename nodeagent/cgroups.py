"""Control groups as a node sees them: v1 with a named v2 tree beside it (hybrid), or v2 alone.

Every copy has a group ``jobs/<namespace>_<name>_<epoch>`` in each hierarchy that counts or limits something. The quota of the node
stands on ``jobs``; the agent and criu are outside of it. A restore is started inside the groups that account for memory and
processes (what criu allocates *is* the job's), but outside the CPU group, so that it is not throttled; v2 has one tree for all.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent.engine import Copy
from nodeagent.errors import EngineFailed
from nodeagent.freezer import Freezer, read_file

JOBS = "jobs"
V1 = ("cpu", "cpuacct", "memory", "freezer", "pids")
V2_CONTROLLERS = ("cpu", "memory", "pids")
REAL_ROOT_INODE = 1
"""The root directory of a cgroup file system itself; a node in a container sees a directory below it as its root."""
UNLIMITED = 1 << 60
"""v1 writes "no memory limit" as a number about this large."""
PLAIN_WEIGHT, V1_SHARES = 100, 1024
"""What a group has of which nobody said anything: v2's weight, and v1's shares."""
REMOVAL = 5.0
"""Seconds for the last dead process to leave a group."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the node has for jobs."""

    cpu: float
    """Cores, quota included."""
    memory: int
    """Bytes, limit included."""


def read_int(path: Path) -> int:
    """The number in a file of one line."""
    return int(read_file(path))


def read_table(path: Path) -> dict[str, int]:
    """Lines of "name number"."""
    pairs = (line.split() for line in read_file(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


class Cgroups:
    """The hierarchies of this node."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> None:
        """Looks which there are. EngineFailed when there is none."""
        self.proc = proc
        self.hierarchies: dict[str, Path] = {}
        if (root / "cgroup.controllers").exists():
            self.hierarchies["unified"] = root
        else:
            for name in (*V1, "unified"):
                if (root / name / "cgroup.procs").exists():
                    self.hierarchies[name] = root / name
        self.freezer = Freezer(str(root))
        if not self.hierarchies:
            raise EngineFailed(f"{root}: no cgroup hierarchy is mounted there; mount cgroup2 and start the agent again")

    def group(self, copy: Copy) -> "JobGroup":
        """The group of that copy, made or not."""
        return JobGroup(self, f"{copy.namespace}_{copy.name}_{copy.epoch}")

    def names(self) -> set[str]:
        """Names of all groups below ``jobs``."""
        parents = [path / JOBS for path in self.hierarchies.values()]
        return {entry.name for parent in parents if parent.is_dir() for entry in parent.iterdir() if entry.is_dir()}

    def prepare(self) -> None:
        """Makes ``jobs`` everywhere; on v2 switches on the controllers as far as the kernel lets us."""
        for path in self.hierarchies.values():
            (path / JOBS).mkdir(exist_ok=True)
        if "unified" in self.hierarchies:
            for parent in (self.hierarchies["unified"], self.hierarchies["unified"] / JOBS):
                _enable_controllers(parent)

    def capacity(self) -> Capacity:
        """Cores and bytes for jobs, looked up anew: limits may be changed while the node runs."""
        cores = float(len(os.sched_getaffinity(0)))
        for directory in self._with_parent("cpu"):
            cores = min(cores, _quota(directory))
        memory = self._meminfo()["MemTotal"]
        for directory in self._with_parent("memory"):
            memory = min(memory, _memory_limit(directory))
        return Capacity(cores, memory)

    def cpu_seconds(self) -> float:
        """CPU time used by all jobs that have a group; while it stays, none of them has run."""
        return _cpu_seconds({kind: path / JOBS for kind, path in self.hierarchies.items()})

    def memory_used(self) -> int:
        """Bytes in use on the node that cannot be reclaimed."""
        root = self._hierarchy("memory")
        if root is not None and root.stat().st_ino != REAL_ROOT_INODE and (root / "memory.stat").exists():
            return _unreclaimable(root)
        meminfo = self._meminfo()
        return meminfo["MemTotal"] - meminfo["MemAvailable"]

    def memory_pressure(self) -> float:
        """PSI: per cent of the last 10 s in which something waited for memory; 0 where the kernel does not count it."""
        own = self.hierarchies.get("unified", Path("/nonexistent")) / "memory.pressure"
        for path in (own, self.proc / "pressure/memory"):
            try:
                some = read_file(path).splitlines()[0].split()
            except (OSError, IndexError):
                continue  # not compiled in, or switched off at boot
            return float(some[1].removeprefix("avg10="))
        return 0.0

    def _hierarchy(self, controller: str) -> Path | None:
        return self.hierarchies.get(controller, self.hierarchies.get("unified"))

    def _with_parent(self, controller: str) -> Iterator[Path]:
        root = self._hierarchy(controller)
        if root is not None:
            yield from (root, root / JOBS)

    def _meminfo(self) -> dict[str, int]:
        lines = (line.split() for line in read_file(self.proc / "meminfo").splitlines())
        return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}


class JobGroup:
    """One copy's group in all hierarchies."""

    def __init__(self, cgroups: Cgroups, name: str) -> None:
        self.name = name
        self._cgroups = cgroups
        self.paths = {kind: path / JOBS / name for kind, path in cgroups.hierarchies.items()}

    @property
    def everywhere(self) -> list[Path]:
        """All its directories: a job is started in them."""
        return list(self.paths.values())

    @property
    def restoring(self) -> list[Path]:
        """Those a restore is started in."""
        return [path for kind, path in self.paths.items() if kind != "cpu"]

    @property
    def throttled(self) -> list[Path]:
        """Those that restored processes enter afterwards."""
        return [path for kind, path in self.paths.items() if kind == "cpu"]

    def create(self) -> None:
        """Makes it; OSError when the kernel refuses."""
        self._cgroups.prepare()
        for path in self.everywhere:
            path.mkdir(exist_ok=True)

    def pids(self) -> list[int]:
        """Its processes, in the PID namespace of whoever asks; FileNotFoundError when it is gone."""
        kinds = ("freezer", "unified", "pids", "memory")
        path = next((self.paths[kind] for kind in kinds if kind in self.paths), self.everywhere[0])
        return [int(pid) for pid in read_file(path / "cgroup.procs").split()]

    def cpu_seconds(self) -> float:
        """CPU time used in it."""
        return _cpu_seconds(self.paths)

    def weigh(self, weight: int) -> None:
        """Its share of the CPU against other jobs: 1 to 10000, as v2 counts. OSError when the kernel shares by no weight."""
        if "cpu" in self.paths:
            (self.paths["cpu"] / "cpu.shares").write_text(str(max(2, weight * V1_SHARES // PLAIN_WEIGHT)))
        else:
            (self.paths["unified"] / "cpu.weight").write_text(str(weight))

    def memory(self) -> int:
        """Bytes that cannot be reclaimed: anonymous and shared memory."""
        directory = self.paths.get("memory", self.paths.get("unified"))
        if directory is not None and (directory / "memory.stat").exists():
            return _unreclaimable(directory)
        return sum(_status_memory(self._cgroups.proc / str(pid)) for pid in self.pids())

    @property
    def frozen(self) -> bool:
        """Whether somebody made it stand still."""
        return self._cgroups.freezer.frozen(self.name)

    def thaw(self) -> None:
        """Lets it go on."""
        self._cgroups.freezer.thaw(self.name)

    def kill(self) -> None:
        """SIGKILL to all that is in it; nothing of it executes another instruction, though it may have stood still."""
        self._cgroups.freezer.kill(self.name)

    async def remove(self) -> None:
        """Kills whatever is in it and removes it everywhere. EngineFailed when processes hang in the kernel."""
        self.kill()
        end = time.monotonic() + REMOVAL
        while not all(_removed(path) for path in self.everywhere):
            if time.monotonic() > end:
                raise EngineFailed(f"cgroup {JOBS}/{self.name}: still in use {REMOVAL} s after its processes were killed")
            await asyncio.sleep(0.002)


def _enable_controllers(parent: Path) -> None:
    available = (parent / "cgroup.controllers").read_text().split()
    for controller in V2_CONTROLLERS:
        if controller in available:
            try:
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError:
                continue  # processes in the parent itself: then memory is counted from /proc, and quotas are the lab's affair


def _cpu_seconds(paths: dict[str, Path]) -> float:
    if "cpuacct" in paths:
        return read_int(paths["cpuacct"] / "cpuacct.usage") / 1e9
    return read_table(paths["unified"] / "cpu.stat")["usage_usec"] / 1e6


def _quota(directory: Path) -> float:
    """Cores that the group's quota allows; infinity without one."""
    old = directory / "cpu.cfs_quota_us"
    if old.exists():
        quota = read_int(old)
        return quota / read_int(directory / "cpu.cfs_period_us") if quota > 0 else float("inf")
    new = directory / "cpu.max"
    if new.exists():
        words = read_file(new).split()
        return int(words[0]) / int(words[1]) if words[0] != "max" else float("inf")
    return float("inf")


def _memory_limit(directory: Path) -> int:
    for name in ("memory.limit_in_bytes", "memory.max"):
        if (directory / name).exists():
            text = read_file(directory / name)
            return UNLIMITED if text == "max" else min(UNLIMITED, int(text))
    return UNLIMITED


def _unreclaimable(directory: Path) -> int:
    """v2 says anon and shmem; v1 says rss and shmem, with total_ when groups below are to be counted."""
    table = read_table(directory / "memory.stat")
    if "total_rss" in table:
        return table["total_rss"] + table.get("total_shmem", 0)
    return table.get("anon", table.get("rss", 0)) + table.get("shmem", 0)


def _status_memory(process: Path) -> int:
    try:
        lines = (line.split() for line in (process / "status").read_text().splitlines())
        return sum(int(words[1]) * 1024 for words in lines if words and words[0] in ("RssAnon:", "RssShmem:"))
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended meanwhile


def _removed(path: Path) -> bool:
    """False: something is in it; it got SIGKILL, but the kernel has not let go of it yet."""
    try:
        pids = (path / "cgroup.procs").read_text().split()
    except FileNotFoundError:
        pids = []
    for pid in pids:
        _kill(int(pid))
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
