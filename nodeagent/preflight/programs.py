"""Obstacles in what processes are: traced by another, in namespaces of their own, or several users'."""

from collections.abc import Iterator

from crds.report import Obstacle
from nodeagent.preflight.scene import Process, Scene

TRACED = "Traced"
NAMESPACE = "OwnNamespace"
USERS = "SeveralUsers"
SESSION = "OrphanedSession"
FIXED = ("mnt", "pid", "user")
COMMON = ("ipc", "uts")
NAMES = {"ipc": "IPC", "uts": "UTS", "mnt": "mount", "net": "network", "pid": "PID"}


def traced(scene: Scene) -> Iterator[Obstacle]:
    """criu itself has to trace each process, and a process has one tracer at most."""
    for process in scene.processes:
        if process.tracer:
            yield Obstacle(
                reason=TRACED, message=f"{process} is traced by process {process.tracer} of the node: end the debugger or strace"
            )


def orphaned(scene: Scene) -> Iterator[Obstacle]:
    """criu makes a leader for the time of the restore; when that ends, what it began is no part of the job's tree any more."""
    numbers = {process.number for process in scene.processes}
    for process in scene.processes:
        if process.session and process.session not in numbers:
            yield Obstacle(
                reason=SESSION,
                message=f"{process} is a daemon whose session's leader has ended: start it in the foreground, or with setsid",
            )


def elsewhere(scene: Scene) -> Iterator[Obstacle]:
    """A program that makes namespaces (bubblewrap, unshare, browsers)."""
    for process in scene.processes:
        kinds = own_kinds(process, scene)
        if kinds:
            words = " and ".join(NAMES.get(kind, kind) for kind in kinds)
            yield Obstacle(
                reason=NAMESPACE,
                message=f"{process} has made a {words} namespace of its own: run it without its sandbox (e.g. --no-sandbox)",
            )


def users(scene: Scene) -> Iterator[Obstacle]:
    """Without CAP_SYS_RESOURCE criu runs as the user of the processes it dumps (shim/identity.py): as one user."""
    first: dict[tuple[int, int], Process] = {}
    for process in scene.processes:
        for ids in sorted(process.ids):
            first.setdefault(ids, process)
    if scene.one_user and len(first) > 1:
        words = ", ".join(f"{process} is {uid}:{gid}" for (uid, gid), process in sorted(first.items()))
        yield Obstacle(
            reason=USERS,
            message=f"its processes belong to several users ({words}), and this node has no CAP_SYS_RESOURCE: "
            "start them as jobs of their own, or give the node's agent that capability",
        )


def own_kinds(process: Process, scene: Scene) -> list[str]:
    """Kinds of namespaces in which it is where criu does not follow.

    The job as a whole may be in some of its own, which criu makes again; of others it only knows those of the sandbox.
    """
    first = scene.first.namespaces if scene.first else {}
    fixed = [kind for kind in FIXED if kind in scene.home and process.namespaces.get(kind) not in (None, scene.home[kind])]
    return fixed + [kind for kind in COMMON if process.namespaces.get(kind) not in (None, first.get(kind))]
