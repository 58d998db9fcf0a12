"""Obstacles among sockets: whoever is at the other end stays, or the address does."""

from collections.abc import Iterator

from crds.report import Obstacle
from nodeagent.preflight.scene import Descriptor, Process, Scene, Socket
from nodeagent.stdio import SOCKETS

UNIX = "ExternalUnixSocket"
TCP = "ExternalConnection"
ADDRESS = "NodeAddress"
UNKNOWN = "UnsupportedSocket"

CLOSED, HALF_CLOSED, LISTENING = "07", "08", "0A"
"""As the tables have it."""
INET = frozenset({"tcp", "udp", "udplite"})
OWN = "give the job a network of its own (network: {mode: own})"
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


def inet(scene: Scene) -> Iterator[Obstacle]:
    """Of the node's network: TCP to somebody who is not part of the job, of whom criu would restore one end only, or fail; and
    addresses that no other node has. A network of its own goes along with the job."""
    if scene.own_network:
        return
    for process, each, found in _held(scene):
        if found is None or found.family not in INET or process.namespaces.get("net") != scene.home.get("net"):
            continue
        if found.family == "tcp" and _is_outside(scene, found):
            yield Obstacle(
                reason=TCP,
                message=f"{process} is connected to {found.remote}, which is not part of the job, by its node's network: "
                f"let it close the connection, or {OWN}",
            )
        elif found.local and not found.local.startswith(ANYWHERE):
            yield Obstacle(
                reason=ADDRESS,
                message=f"{process} uses {found.local} (descriptor {each.number}), an address that other nodes do not have: "
                f"let it use 0.0.0.0 or 127.0.0.1, or {OWN}",
            )


def _is_outside(scene: Scene, found: Socket) -> bool:
    """Whether the other end of a connection is none of the job's. One that was closed there is no end any more."""
    local = found.local.startswith(ANYWHERE)
    if found.state in ("", CLOSED, LISTENING) or (found.state == HALF_CLOSED and local):
        return False
    others = [other for _, _, other in _held(scene) if other is not None and other.family == "tcp"]
    if any((each.local, each.remote) == (found.remote, found.local) for each in others):
        return False
    waits = _host(found.local) == _host(found.remote)  # perhaps for the job itself to accept it
    return not (waits and any(each.state == LISTENING and _port(each.local) == _port(found.remote) for each in others))


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _port(address: str) -> str:
    return address.rpartition(":")[2]


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
