"""What the doctor knows, and what it says."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from crds.cluster import NetworkSpec
from crds.image import Image
from crds.join import JoinRecord
from crds.load import Alive, LoadVector
from crds.machine import Machine
from crds.node import Node


class Level(StrEnum):
    """How bad it is."""

    OK = "OK"
    WARN = "WARN"
    """It works, and something about it should be mended."""
    FAIL = "FAIL"
    """Something that should work does not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was found there, and what to do about it."""

    check: str
    subject: str
    level: Level
    text: str
    remedy: str = ""


def fine(check: str, subject: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(check, subject, Level.OK, text)


def warn(check: str, subject: str, text: str, remedy: str) -> Finding:
    """Something to mend."""
    return Finding(check, subject, Level.WARN, text, remedy)


def fail(check: str, subject: str, text: str, remedy: str) -> Finding:
    """Something does not work."""
    return Finding(check, subject, Level.FAIL, text, remedy)


@dataclass(frozen=True, slots=True)
class EtcdFacts:
    """``error`` is set when it did not answer; then nothing else of the cluster is known. ``secured`` None: it did not say."""

    error: str = ""
    version: str = ""
    size: int = 0
    errors: tuple[str, ...] = ()
    secured: bool | None = None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A declared node. ``clock``: seconds by which its clock is ahead of ours; None when it was not heard meanwhile."""

    node: Node
    alive: Alive | None = None
    load: LoadVector | None = None
    clock: float | None = None

    @property
    def name(self) -> str:
        return self.node.name


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate in a file of ours; ``error`` when it cannot be read."""

    file: str
    holder: str = ""
    until: datetime | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """A directory, and the bytes of the file system it is on. ``error`` when it is not there."""

    what: str
    path: str
    free: int = 0
    total: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """The machine that serves the cluster, as seen on it.

    ``services`` are those it should run; ``answers`` says of some of them "" or why they do not answer; ``versions`` what the
    programs say of themselves; ``nfs`` the NFS server's configuration; ``layers`` what lies on the shelf, complete.
    """

    where: str
    server: str
    services: frozenset[str]
    backend: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    nfs: str = ""
    disks: tuple[Disk, ...] = ()
    layers: frozenset[str] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was collected. ``head`` None: the head was not looked at, as it is another machine."""

    now: datetime
    etcd: EtcdFacts = EtcdFacts()
    leader: str | None = None
    network: NetworkSpec | None = None
    nodes: tuple[NodeFacts, ...] = ()
    images: tuple[Image, ...] = ()
    machines: tuple[Machine, ...] = ()
    joins: tuple[JoinRecord, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    head: HeadFacts | None = None

    @property
    def heard(self) -> list[tuple[NodeFacts, Alive]]:
        """The nodes whose agents are there."""
        return [(node, node.alive) for node in self.nodes if node.alive is not None]


Check = Callable[[Facts], Iterable[Finding]]
