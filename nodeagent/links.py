"""The node's side of jobs' own networks: its bridge, and the ports on it. The ports are made and switched by the shims (wire.py).

A port is named after its copy, so it is known again after a restart of the agent. It goes with its peer, when the job's network
namespace does; as the kernel takes its time for that, it is also removed by name.
"""

import asyncio
import contextlib
import errno
import hashlib
from pathlib import Path

from nodeagent.engine import Copy, Network
from nodeagent.errors import EngineFailed
from nodeagent.shim.netlink import Netlink

BRIDGE = "mx0"
LINKS = Path("/sys/class/net")
PREFIX = "mx-"


def is_bridge(name: str) -> bool:
    """Whether the node has a bridge of that name."""
    return (LINKS / name / "bridge").is_dir()


def port_of(copy: Copy) -> str:
    """15 characters, as many as a link's name may have."""
    return PREFIX + hashlib.blake2s(f"{copy.uid} {copy.epoch}".encode(), digest_size=6).hexdigest()


def ports(bridge: str) -> set[str]:
    """Names of all ports of jobs."""
    members = LINKS / bridge / "brif"
    return {path.name for path in members.iterdir() if path.name.startswith(PREFIX)} if members.is_dir() else set()


def arguments(copy: Copy, network: Network, bridge: str) -> tuple[str, ...]:
    """What the shim is told, beginning with the name by which the job knows itself: one that stays when it moves."""
    gateway = (network.gateway,) if network.gateway else ()
    return copy.name, port_of(copy), bridge, network.mac, network.address, *gateway


async def remove(port: str) -> None:
    """No error when it is not there. EngineFailed."""
    if (LINKS / port).exists():
        await asyncio.to_thread(_remove, port)


def _remove(port: str) -> None:
    with contextlib.closing(Netlink()) as netlink:
        try:
            netlink.delete(port)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise EngineFailed(str(error)) from error
