"""The seam between what an agent decides to do and how the kernel does it.

``Engine`` makes sandboxes; a ``Sandbox`` is one shim (pid 1 of fresh namespaces) with at most one copy of one job in it. The real
ones use namespaces, cgroups and criu (sandbox.py, criu.py); tests use a fake with knobs that passes the same contract tests.
A sandbox outlives the agent: after a restart ``Engine.adopt`` finds it again.
"""

import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from crds.job import Fencing, JobSpec
from crds.report import Obstacle
from nodeagent.attachment import Attachment
from nodeagent.stdio import JOB


@dataclass(frozen=True, slots=True)
class Copy:
    """Names one copy of a job on this node; every attempt to receive a job is a copy of its own (another epoch)."""

    namespace: str
    name: str
    uid: str
    epoch: int

    @property
    def key(self) -> str:
        """ "<namespace>/<name>", as in load vectors."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Network:
    """What makes a job's own network; all of it moves with the job."""

    address: str
    """IPv4, with the length of its prefix."""
    mac: str
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """How the job's first process ended; ``code`` is 128 + signal when a signal ended it."""

    code: int
    time: datetime
    fenced: bool = False
    """It was killed because the node had lost touch with the cluster."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the copy uses on this node since it is here."""

    cpu_seconds: float
    memory: int
    """Resident bytes."""
    runnable: int
    """Tasks (threads) in state R at this moment."""
    processes: int


@dataclass(frozen=True, slots=True)
class PageWire:
    """A connected stream socket to the other node, for memory. Whoever made it closes it; the engine keeps a copy of its own."""

    sock: socket.socket


class Sandbox(Protocol):
    """One shim with at most one copy of one job. Errors: SandboxGone, EngineFailed, StartFailed."""

    copy: Copy

    async def start(self, spec: JobSpec, env: dict[str, str]) -> None:
        """Starts the job's first process; returns when its exec succeeded, raises StartFailed otherwise."""
        ...

    async def pre_dump(self, images: Path, parent: str | None, *, deadline: float) -> None:
        """criu pre-dump into the empty directory ``images``: memory only, and the job runs on.

        ``parent`` is the directory of the pre-dump before, seen from ``images``: only what was written since then is dumped.
        """
        ...

    async def copy_ahead(self, file: Path, most: int) -> None:
        """Writes the job's memory, ``most`` bytes of it, into the new ``file`` while the job runs on, as well as that goes."""
        ...

    async def dump(self, images: Path, *, deadline: float, parent: str | None = None) -> None:
        """criu dump into the empty directory ``images``; leaves the job stopped when it succeeds.

        With ``parent`` it has what was written since that pre-dump only; both are needed to restore it.

        When it fails, is cancelled or takes longer than ``deadline`` seconds, the job runs on as before and EngineFailed is raised.
        """
        ...

    async def serve(self, images: Path, wire: PageWire, *, deadline: float) -> None:
        """Like ``dump``, but most of the memory stays here and is handed out on ``wire``, for a restore with the other end of it.

        Returns when the images are complete but for that. It is handed out until all of it is fetched, the wire breaks, or
        ``resume`` takes the job back; the death of the agent changes nothing. The job stands still whatever happens to criu.
        """
        ...

    async def sever(self) -> None:
        """After ``serve``: the job runs elsewhere, so it is killed here, while its memory is still handed out. May be repeated."""
        ...

    async def streamed(self) -> None:
        """Returns when no memory goes out or comes in any more; at once when none did. SandboxGone when the shim has ended."""
        ...

    async def expect(self) -> None:
        """Before a restore: does what takes time and needs no images, so that the job need not stand frozen meanwhile."""
        ...

    async def restore(self, images: Path, *, last_pid: int, deadline: float, wire: PageWire | None = None) -> None:
        """criu restore, once, after ``expect``; the job is there but stopped. When it fails nothing of it is left but the shim.

        With a ``wire`` the memory that ``serve`` kept back comes by it, first what is needed. Should it not come, the job is
        killed before it can miss it, and ``wait_exit`` says so.
        """
        ...

    async def resume(self) -> None:
        """Lets the stopped job run (SIGCONT to those that ran before the freeze); its memory is not handed out any more."""
        ...

    async def frozen(self) -> bool:
        """Whether the job stands stopped by a dump or restore and was not resumed."""
        ...

    async def last_pid(self) -> int:
        """A PID of its namespace after which many are free. For a move: ask after the dump, a running job still forks."""
        ...

    async def usage(self) -> Usage:
        """What it uses. When the job has ended its CPU time is still told until ``kill``; nothing else of it is left then."""
        ...

    async def weigh(self, weight: int) -> None:
        """Its share of the node's CPU against other jobs, from now on: 1 to 10000, 100 if this was never called. EngineFailed."""
        ...

    async def obstacles(self, *, thorough: bool) -> list[Obstacle]:
        """What would keep it from being moved now; empty when nothing is known of. Cheap unless ``thorough``.

        Then what was found a little earlier may be told again. EngineFailed: it could not be looked at.
        """
        ...

    async def files(self) -> list[str]:
        """Files of the node that the job has mapped, sorted; none of a file system that all nodes share. EngineFailed."""
        ...

    async def wait_exit(self) -> Exit:
        """Returns when the job's first process has ended (at once, if it has ended before). SandboxGone: it died with its shim."""
        ...

    async def attach(self, session: str = JOB) -> Attachment:
        """A connection to the mx-stdio of a job that has one; a dump ends it. EngineFailed while it is frozen, or has none.

        Or to that of a session beside the job.
        """
        ...

    async def start_beside(self, session: str, spec: JobSpec, env: dict[str, str]) -> None:
        """Starts spec.command in the job's namespaces, as its user, with spec.stdio; it is no part of the job and never moves."""
        ...

    def has_session(self, session: str) -> bool:
        """Whether such a session goes on."""
        ...

    async def signal(self, number: int) -> None:
        """Sends a signal to the job's first process."""
        ...

    async def obey(self, policy: Fencing) -> None:
        """What becomes of it when the node loses touch, from now on; freeze, before this is called. SandboxGone."""
        ...

    async def fenced(self) -> bool:
        """Whether ``Engine.fence`` (or the guard) made it stand still. No other method but ``thaw`` changes that."""
        ...

    async def thaw(self) -> None:
        """Lets it go on after that; a job that is stopped by a dump or a restore stays so."""
        ...

    async def kill(self) -> None:
        """SIGKILL to all, shim included; returns when no process, cgroup, socket or mount is left. May be repeated."""
        ...


class Engine(Protocol):
    """Makes and finds sandboxes on this node."""

    @property
    def fences(self) -> bool:
        """Whether this node can make jobs stand still."""
        ...

    async def fence(self) -> list[str]:
        """The node has lost touch: freezes or kills every copy, as it was told to ``obey``. What was done, a line each.

        What stands still does so until ``thaw``: whatever else is done, no instruction of the job is executed. May be repeated."""
        ...

    async def version(self) -> str:
        """criu's version; EngineFailed with the reason when it does not work here."""
        ...

    async def features(self) -> list[str]:
        """What it can do beside stopping moves, for ``Alive.features``: "post-copy", "pre-copy", "network"."""
        ...

    async def create(self, copy: Copy, network: Network | None = None) -> Sandbox:
        """A fresh, empty sandbox. A left-over one of the same copy is killed first.

        With ``network`` it has one of its own, which stays silent until the job is started or resumed, and from a dump until it is
        resumed: of all copies of a job only the one that runs may be heard.
        """
        ...

    async def adopt(self, copy: Copy) -> Sandbox | None:
        """The living sandbox of that copy, or None; an ended job whose exit code was recorded is adopted too."""
        ...

    async def leftovers(self) -> list[Copy]:
        """All copies of which something is on this node: living shims, cgroups, recorded exits."""
        ...

    async def forget(self, copy: Copy) -> None:
        """Kills it if it lives and removes all that was recorded of it on this node."""
        ...
