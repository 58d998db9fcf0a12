"""Obstacles among sockets: whoever is at the other end stays, or the address does."""

from collections.abc import Iterator

from crds.report import Obstacle
from nodeagent.preflight.scene import Descriptor, Process, Scene, Socket
from nodeagent.stdio import SOCKETS

UNIX = "ExternalUnixSocket"
TCP = "ExternalConnection"
ADDRESS = "NodeAddress"
UNKNOWN = "UnsupportedSocket"

ESTABLISHED, LISTENING = "01", "0A"
ANYWHERE = ("0.0.0.0:", "[::]:", "127.", "[::1]:")
KNOWN = frozenset({"unix", "tcp", "udp", "udplite", "raw", "netlink", "packet"})


def unix(scene: Scene) -> Iterator[Obstacle]:
    """Connected to a process that is not part of the job."""
    for process, each, found in _held(scene):
        ours = found is not None and found.local.startswith(f"{SOCKETS}/")  # of mx-stdio: a dump ends those connections itself
        if found is not None and found.family == "unix" and found.peer and found.peer not in scene.held and not ours:
            where = found.local or f"descriptor {each.number}"
            yield Obstacle(
                reason=UNIX,
                message=f"{process} is connected by a unix socket ({where}) to a process that is not part of the job: "
                "let it close the connection, or run both in one job",
            )


def unknown(scene: Scene) -> Iterator[Obstacle]:
    """Families that criu does not dump. A socket that nothing is known of was closed while we looked."""
    for process, each, found in _held(scene):
        if found is not None and found.family not in KNOWN:
            yield Obstacle(
                reason=UNKNOWN,
                message=f"{process} holds a socket of {found.family} (descriptor {each.number}), "
                "which cannot be moved: let it close it",
            )


def _held(scene: Scene) -> Iterator[tuple[Process, Descriptor, Socket | None]]:
    """Each socket once, with the first process that holds it."""
    seen = set()
    for process in scene.processes:
        for each in process.descriptors:
            if each.target.startswith("socket:[") and each.inode not in seen:
                seen.add(each.inode)
                yield process, each, scene.sockets.get(each.inode)
