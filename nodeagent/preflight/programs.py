"""Obstacles in what processes are: traced by another, in namespaces of their own, or several users'."""

from collections.abc import Iterator

from crds.report import Obstacle
from nodeagent.preflight.scene import Process, Scene

TRACED = "Traced"
NAMESPACE = "OwnNamespace"
USERS = "SeveralUsers"
NAMES = {"mnt": "mount", "net": "network", "pid": "PID"}


def traced(scene: Scene) -> Iterator[Obstacle]:
    """criu itself has to trace each process, and a process has one tracer at most."""
    for process in scene.processes:
        if process.tracer:
            yield Obstacle(
                reason=TRACED, message=f"{process} is traced by process {process.tracer} of the node: end the debugger or strace"
            )


def elsewhere(scene: Scene) -> Iterator[Obstacle]:
    """A program that makes namespaces (bubblewrap, unshare, browsers): criu runs in those of the sandbox."""
    for process in scene.processes:
        kinds = own_kinds(process, scene.home)
        if kinds:
            words = " and ".join(NAMES.get(kind, kind) for kind in kinds)
            yield Obstacle(
                reason=NAMESPACE,
                message=f"{process} has made a {words} namespace of its own: run it without its sandbox (e.g. --no-sandbox)",
            )


def own_kinds(process: Process, home: dict[str, str]) -> list[str]:
    """Kinds of namespaces in which it is not where the sandbox is; time is left out, as criu makes one of its own."""
    return [kind for kind, link in process.namespaces.items() if kind in home and kind != "time" and link != home[kind]]


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
