"""Obstacles in what processes are: traced by another, or in namespaces of their own."""

from collections.abc import Iterator

from crds.report import Obstacle
from nodeagent.preflight.scene import Process, Scene

TRACED = "Traced"
NAMESPACE = "OwnNamespace"
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
