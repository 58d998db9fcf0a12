"""Obstacles among file locks: they move along (see nodeagent.locks), but for leases, and for those that others wait for."""

from collections.abc import Iterator

from crds.report import Obstacle
from nodeagent.locks import LEASE_KIND, POSIX_KIND
from nodeagent.preflight.scene import Scene
from nodeagent.tracer import SUPPORTED

LEASE = "FileLease"
CONTENDED = "ContendedLock"
POSIX = "PosixLock"


def locked(scene: Scene) -> Iterator[Obstacle]:
    names = {process.pid: str(process) for process in scene.processes}
    for lock in scene.locks:
        who = f"{names.get(lock.pid, 'a process')} (descriptor {lock.descriptor})"
        if lock.kind == LEASE_KIND:
            yield Obstacle(
                reason=LEASE, message=f"{who} holds a lease on a file, which cannot be moved: let it give the lease back"
            )
        elif lock.excludes and lock.file in scene.contended:
            yield Obstacle(
                reason=CONTENDED,
                message=f"{who} holds a file lock that others wait for, who would get it during a move: wait until it lets go",
            )
        elif lock.excludes and lock.kind == POSIX_KIND and not SUPPORTED:
            yield Obstacle(reason=POSIX, message=f"{who} holds an fcntl lock, which moves on x86-64 only: let it use flock")
