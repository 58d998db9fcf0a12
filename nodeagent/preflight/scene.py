"""What the kernel says of the processes of one copy of a job, read from /proc into plain data.

Processes come and go while we read: one that is gone is left out. Everything that looks for obstacles works on this picture alone.
"""

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from nodeagent.locks import Lock

T = TypeVar("T")
P = ParamSpec("P")

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
DELETED = " (deleted)"
GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One open file of a process. ``target`` is what its link says, e.g. "/shared/data", "socket:[12]", "anon_inode:[eventfd]"."""

    number: int
    target: str
    mode: int = stat.S_IFREG
    """Kind and permissions of what is open, as in st_mode."""
    writable: bool = False
    """Opened for writing."""
    device: int = 0
    """st_rdev of a device file."""
    size: int = 0
    """Bytes on disk."""
    links: int = 1
    changed: float = 0.0
    """st_ctime: seconds since 1970."""
    mount: int = 0
    """Number of the mount it is in; only read of regular files outside of what is shared, 0 otherwise."""

    @property
    def path(self) -> str:
        """Where the file is or was."""
        return self.target.removesuffix(DELETED)

    @property
    def deleted(self) -> bool:
        """Whether its name is gone."""
        return self.target.endswith(DELETED)

    @property
    def inode(self) -> int:
        """Of a socket or pipe; 0 otherwise."""
        kind, bracket, rest = self.target.partition(":[")
        return int(rest[:-1]) if bracket and kind in ("socket", "pipe") else 0


@dataclass(frozen=True, slots=True)
class Mapping:
    """A file mapped into a process; ``changed`` as in Descriptor, 0 when nobody asked."""

    target: str
    device: str
    shared: bool = False
    changed: float = 0.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process. ``number`` is its PID as the job itself sees it."""

    pid: int
    number: int
    name: str
    tracer: int = 0
    descriptors: tuple[Descriptor, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    places: tuple[Descriptor, ...] = ()
    """Its program, working directory and root directory, in this order."""
    namespaces: dict[str, str] = field(default_factory=dict)
    ids: frozenset[tuple[int, int]] = frozenset()
    """Its (uid, gid): real, effective and saved."""
    session: int = 0
    """PID of its session's leader, as the job itself sees it; 0 when it is outside."""
    mounts: frozenset[int] = frozenset()
    """Numbers of all mounts it sees."""

    def __str__(self) -> str:
        return f"{self.name} (pid {self.number})"


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket as the tables of its network namespace show it."""

    family: str
    """unix, tcp, udp, raw, netlink or packet."""
    state: str = ""
    """The table's own word for its state."""
    local: str = ""
    """Path or address."""
    remote: str = ""
    peer: int = 0
    """unix: inode of the connected socket; 0 when there is none."""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is looked at."""

    processes: tuple[Process, ...]
    sockets: dict[int, Socket] = field(default_factory=dict)
    """Of the job's network namespace, by inode; only read when the job has sockets."""
    own_network: bool = False
    """The job's network is not its node's, and goes with it."""
    image_time: float | None = None
    """Files outside of what is shared that did not change since then are the image's, the same on all nodes. None: unknown."""
    home: dict[str, str] = field(default_factory=dict)
    """The namespaces of the sandbox."""
    one_user: bool = False
    """Processes of one user only can be dumped together, for the node has no CAP_SYS_RESOURCE."""
    shared: tuple[str, ...] = ("/shared", "/tmp", "/dev/shm")
    """What is the same for the job on all nodes."""

    locks: tuple[Lock, ...] = ()
    """File locks the job holds."""
    contended: frozenset[str] = frozenset()
    """Files with locks that others wait for, as Lock names them."""

    def is_shared(self, path: str) -> bool:
        """Whether the file lies on the shared file system."""
        return any(path == top or path.startswith(f"{top}/") for top in self.shared)

    @property
    def first(self) -> Process | None:
        """The job's first process."""
        return min(self.processes, key=lambda process: process.number, default=None)

    @property
    def held(self) -> set[int]:
        """Inodes of all sockets and pipes of the job."""
        return {each.inode for process in self.processes for each in process.descriptors if each.inode}


def read_process(pid: int, proc: Path) -> Process | None:
    """The process, or None when it has ended. PermissionError when we may not look."""
    base = f"{proc}/{pid}"
    status = _given(_table, f"{base}/status")
    if status is None or status.get("State", "Z").startswith("Z"):
        return None  # a zombie has nothing that could not be moved
    numbers = _given(os.listdir, f"{base}/fd")
    maps = _given(_text, f"{base}/maps")
    if numbers is None or maps is None:
        return None
    found = [_given(_descriptor, f"{base}/fd/{number}", int(number)) for number in sorted(numbers, key=int)]
    places = [_given(_descriptor, f"{base}/{name}", -1) for name in ("exe", "cwd", "root")]
    return Process(
        pid=pid,
        number=int(status.get("NSpid", str(pid)).split()[-1]),
        name=status.get("Name", "?"),
        session=int(status.get("NSsid", "0").split()[-1]),
        tracer=int(status.get("TracerPid", "0")),
        descriptors=tuple(each for each in found if each is not None),
        mappings=tuple(_dated(mapping, f"{base}/root") for mapping in parse_maps(maps)),
        places=tuple(each for each in places if each is not None),
        namespaces=read_namespaces(pid, proc),
        ids=frozenset(zip(_ids(status, "Uid"), _ids(status, "Gid"), strict=True)),
        mounts=frozenset(int(line.split(" ", 1)[0]) for line in (_given(_text, f"{base}/mountinfo") or "").splitlines()),
    )


def _ids(status: dict[str, str], name: str) -> list[int]:
    """Real, effective and saved."""
    return [int(word) for word in status.get(name, "").split()[:3]]


def read_namespaces(pid: int | str, proc: Path) -> dict[str, str]:
    """Kind to identity; those that do not exist (any more) are left out."""
    links = {name: _given(os.readlink, f"{proc}/{pid}/ns/{name}") for name in NAMESPACES}
    return {name: link for name, link in links.items() if link is not None}


def parse_maps(text: str) -> Iterable[Mapping]:
    """The files in a /proc/PID/maps, each once."""
    seen = set()
    for line in text.splitlines():
        words = line.split(None, 5)
        if len(words) == 6 and not words[5].startswith("["):
            mapping = Mapping(words[5], words[3], words[1].endswith("s"))
            if mapping not in seen:
                seen.add(mapping)
                yield mapping


def _dated(mapping: Mapping, root: str) -> Mapping:
    """With the time of its file's last change, when it has a name."""
    if not mapping.target.startswith("/") or mapping.target.endswith(DELETED):
        return mapping
    found = _given(os.stat, root + mapping.target)
    return mapping if found is None else replace(mapping, changed=found.st_ctime)


def _mount(link: str) -> int:
    """Of an open file, from /proc/PID/fdinfo."""
    return int(_table(link.replace("/fd/", "/fdinfo/")).get("mnt_id", "0"))


def _descriptor(link: str, number: int) -> Descriptor:
    """OSError when it is closed meanwhile."""
    target = os.readlink(link)  # noqa: PTH115 - pathlib takes twice as long, and this is done for many files
    found = os.stat(link)  # noqa: PTH116
    writable = number >= 0 and bool(os.lstat(link).st_mode & stat.S_IWUSR)
    ordinary = number >= 0 and stat.S_ISREG(found.st_mode) and not target.startswith(("/memfd:", "/shared/", "/tmp/"))
    return Descriptor(
        number,
        target,
        found.st_mode,
        writable,
        found.st_rdev,
        found.st_blocks * 512,
        found.st_nlink,
        found.st_ctime,
        _mount(link) if ordinary else 0,
    )


def _table(path: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(path).splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _text(path: str) -> str:
    return Path(path).read_text(errors="replace")


def _given(read: Callable[P, T], *what: P.args, **how: P.kwargs) -> T | None:
    """What ``read`` returns; None when what it asks for is gone."""
    try:
        return read(*what, **how)
    except GONE:
        return None
