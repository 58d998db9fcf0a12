"""The control groups of a lab's nodes, for hybrid machines (v1 hierarchies and a bare v2 tree) and for pure v2.

    <hierarchy>/mx/<lab>/<node>          memory limit: all of the node
    <hierarchy>/mx/<lab>/<node>/system   the node's daemons and criu: no quota, that is what a node has for itself
    <hierarchy>/mx/<lab>/<node>/jobs     CPU quota: what the node has for jobs

The groups also are the node's identity: a process enters them before anything else, so whatever belongs to a lab can be
found and ended by them, without any record and without looking at names of programs.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError

CONTROLLERS = ("cpu", "cpuacct", "memory", "freezer", "pids")
PERIOD_MICROSECONDS = 100_000
WEIGHT = 4
"""Of all labs against everything else that competes for the processors: a lab is hardware to what runs in it, which must not stall
only because its machine compiles something."""
_V2_CONTROLLERS = ("cpu", "memory", "pids")
_POLL_SECONDS = 0.02
_MAKE_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One tree. ``name`` is its directory below a node's /sys/fs/cgroup: "cpu", "unified", or "" for pure v2."""

    name: str
    mount: Path
    v2: bool


def detect(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The hierarchies a lab uses, from the text of /proc/self/mountinfo; LabError when this machine has too few."""
    found: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        kind, _, options = tail.partition(" ")
        mount = Path(fields.split()[4])
        if kind == "cgroup2":
            found.setdefault("unified", Hierarchy("unified", mount, True))
        elif kind == "cgroup":
            controllers = options.split()[-1].split(",")
            found.update((name, Hierarchy(name, mount, False)) for name in CONTROLLERS if name in controllers)
    if set(found) == {"unified"}:
        return (Hierarchy("", found["unified"].mount, True),)
    if missing := [name for name in ("cpu", "memory", "freezer") if name not in found]:
        raise LabError(
            f"this machine has no cgroup controller {missing[0]}; mount cgroups (v2, or v1 with {missing[0]}), try again"
        )
    return tuple(found.values())


def of_this_machine() -> tuple[Hierarchy, ...]:
    """What is mounted here."""
    return detect(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))


class Groups:
    """The groups of one lab (or, with ``node``, of one of its nodes) in all hierarchies."""

    def __init__(self, lab: str, node: str = "", hierarchies: Iterable[Hierarchy] | None = None) -> None:
        self.hierarchies = tuple(of_this_machine() if hierarchies is None else hierarchies)
        self._path = f"mx/{lab}/{node}".rstrip("/")
        self._of_node = bool(node)

    def directory(self, hierarchy: Hierarchy) -> Path:
        """Where the groups are in that hierarchy."""
        return hierarchy.mount / self._path

    @property
    def directories(self) -> tuple[Path, ...]:
        """The topmost group in each hierarchy, once each (cpu and cpuacct are often one)."""
        return tuple(dict.fromkeys(self.directory(hierarchy) for hierarchy in self.hierarchies))

    @property
    def entrances(self) -> tuple[Path, ...]:
        """The files to write a process's number to, so that it becomes one of the node's daemons."""
        return tuple(directory / "system" / "cgroup.procs" for directory in self.directories)

    @property
    def views(self) -> tuple[tuple[Path, str], ...]:
        """What to bind into the node: the group, and its place below the node's /sys/fs/cgroup."""
        return tuple((self.directory(hierarchy), hierarchy.name) for hierarchy in self.hierarchies)

    def create(self, cpus: float | None, memory: int | None) -> None:
        """Makes a node's groups with limits in cores and bytes (None: no limit)."""
        for directory in self.directories:
            _make(directory / "system")
            _make(directory / "jobs")
        for hierarchy in self.hierarchies:
            directory = self.directory(hierarchy)
            if hierarchy.name == "":
                _hand_down(hierarchy.mount, directory)
            for path, value in weight(hierarchy):
                _write(path, value)
            for path, value in limits(hierarchy, directory, cpus, memory):
                _write(path, value)

    def processes(self) -> set[int]:
        """Everything that runs in the groups, as the host numbers it."""
        return {pid for directory in self.directories for group in _below(directory) for pid in _members(group)}

    def kill(self, timeout: float) -> None:
        """Ends everything in the groups at once; LabError when something is left after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while members := self.processes():
            self._thaw()
            for pid in members:
                self._kill_member(pid)
            if time.monotonic() > deadline:
                raise LabError(f"{self._path}: processes {sorted(members)} do not end; see ps, then take the lab down again")
            time.sleep(_POLL_SECONDS)

    def _thaw(self) -> None:
        """A frozen process of a v1 freezer cannot die."""
        for hierarchy in self.hierarchies:
            name, value = ("cgroup.freeze", "0") if hierarchy.v2 else ("freezer.state", "THAWED")
            for group in _below(self.directory(hierarchy)):
                if (group / name).exists():
                    _write(group / name, value)

    def _kill_member(self, pid: int) -> None:
        """Kills the process only if it still is in the groups: the descriptor holds on to it while that is looked up."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if pid in self.processes():
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself in between
        finally:
            os.close(descriptor)

    def remove(self, timeout: float = 5.0) -> None:
        """Removes the groups; of a whole lab also mx when it is empty then. They stay busy for a moment after the last exit.

        What joined after ``kill`` has looked, of an up that was killed in the middle, is ended too."""
        deadline = time.monotonic() + timeout
        for directory in self.directories:
            for group in reversed(list(_below(directory))):
                while not _remove_empty(group):
                    if time.monotonic() > deadline:
                        raise LabError(f"cgroup {group} stays busy; see its cgroup.procs, then take the lab down again")
                    for pid in self.processes():
                        self._kill_member(pid)
                    time.sleep(_POLL_SECONDS)
        if not self._of_node:
            for directory in self.directories:
                _remove_empty(directory.parent)


def limits(hierarchy: Hierarchy, directory: Path, cpus: float | None, memory: int | None) -> list[tuple[Path, str]]:
    """The files to write and what: the quota on jobs, the memory limit on the whole node."""
    writes: list[tuple[Path, str]] = []
    if cpus is not None:
        quota = round(cpus * PERIOD_MICROSECONDS)
        if hierarchy.name == "cpu":
            writes.append((directory / "jobs/cpu.cfs_period_us", str(PERIOD_MICROSECONDS)))
            writes.append((directory / "jobs/cpu.cfs_quota_us", str(quota)))
        elif hierarchy.name == "":
            writes.append((directory / "jobs/cpu.max", f"{quota} {PERIOD_MICROSECONDS}"))
    if memory is not None:
        if hierarchy.name == "memory":
            writes.append((directory / "memory.limit_in_bytes", str(memory)))
        elif hierarchy.name == "":
            writes.append((directory / "memory.max", str(memory)))
    return writes


def weight(hierarchy: Hierarchy) -> list[tuple[Path, str]]:
    """The file to write and what, for all labs together."""
    if hierarchy.name == "cpu":
        return [(hierarchy.mount / "mx/cpu.shares", str(1024 * WEIGHT))]
    return [(hierarchy.mount / "mx/cpu.weight", str(100 * WEIGHT))] if hierarchy.name == "" else []


def _hand_down(mount: Path, directory: Path) -> None:
    """v2: each group on the way gives its children the controllers, from the top down."""
    groups = [directory, *directory.parents]
    wanted = " ".join(f"+{name}" for name in _V2_CONTROLLERS)
    for group in reversed(groups[: groups.index(mount) + 1]):
        given = (group / "cgroup.subtree_control").read_text(encoding="utf-8").split()
        if not set(_V2_CONTROLLERS) <= set(given):
            _write(group / "cgroup.subtree_control", wanted)


def _below(directory: Path) -> Iterator[Path]:
    """The group and all groups in it, outer ones first; nothing when it is not there."""
    if directory.is_dir():
        for path, _, _ in os.walk(directory):
            yield Path(path)


def _members(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text(encoding="utf-8").split()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):  # removed meanwhile, or a threaded group
            return []
        raise


def _make(group: Path) -> None:
    """With all above it; again when another lab that goes down removes an empty mx at this moment."""
    for _ in range(_MAKE_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            group.mkdir(parents=True, exist_ok=True)
            return
    raise LabError(f"cgroup {group} cannot be made: somebody removes the groups above it all the time")


def _remove_empty(group: Path) -> bool:
    """False when it is still in use."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value, encoding="utf-8")
    except FileNotFoundError:
        if path.parent.is_dir():
            raise LabError(f"cgroup file {path} is not there: the kernel lacks that controller; boot one that has it") from None
    except OSError as error:
        raise LabError(
            f"cgroup file {path} does not take {value!r} ({error.strerror}); is this root on a machine of its own?"
        ) from error
