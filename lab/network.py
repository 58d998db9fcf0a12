"""The lab's network: a namespace with a bridge, and one namespace a node with one end of a veth pair.

Nothing of it shows in the host's own namespace: no link, no address, no route. Several labs use the same addresses, as
their namespaces know nothing of each other.
"""

import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from clip.lock import locked
from lab.errors import LabError
from lab.model import BRIDGE, HEAD, HEAD_ADDRESS, PREFIX_LENGTH, LabNode, Places

NAMED = Path("/run/netns")
NODE_BRIDGE = "mx0"  # as the agents expect it
# Its own: otherwise it takes its ports' lowest, and a node switched off or on would change the head's address under all others.
BRIDGE_MAC = "52:54:00:77:ff:01"
_SECONDS = 30


def create_bridge(places: Places) -> None:
    """The lab's own namespace with its bridge, which has the head's address."""
    with _naming(places):
        if not NAMED.exists():
            (places.state / "labs" / ".made-netns").touch()
        _add_namespace(places.netns)
    _batch(
        places.netns,
        "link set lo up",
        f"link add {BRIDGE} address {BRIDGE_MAC} type bridge stp_state 0 forward_delay 0",
        f"address add {HEAD_ADDRESS}/{PREFIX_LENGTH} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    )


def plug_in(places: Places, node: LabNode) -> None:
    """A fresh namespace for the node, as after a reboot, with eth0 on the bridge. Nothing for the head.

    The node's address is that of a bridge of its own, which jobs with a network of their own are plugged in.
    """
    if node.name == HEAD:
        return
    netns = places.node_netns(node.name)
    unplug(places, node.name)
    _add_namespace(netns)
    _batch(
        places.netns,
        f"link add v-{node.name} type veth peer name eth0 address {node.mac} netns {netns}",
        f"link set v-{node.name} master {BRIDGE} up",
    )
    _batch(
        netns,
        "link set lo up",
        f"link add {NODE_BRIDGE} address {node.mac} type bridge stp_state 0 forward_delay 0",
        f"link set eth0 master {NODE_BRIDGE} up",
        f"address add {node.address}/{PREFIX_LENGTH} dev {NODE_BRIDGE}",
        f"link set {NODE_BRIDGE} up",
        f"route add default via {HEAD_ADDRESS}",
    )


def plug_in_machine(places: Places, node: LabNode) -> str:
    """A fresh tap on the bridge for a virtual machine; returns its name."""
    tap = f"v-{node.name}"
    unplug(places, node.name)
    _ip("-n", places.netns, "tuntap", "add", "dev", tap, "mode", "tap")
    _batch(places.netns, f"link set {tap} master {BRIDGE} up")
    return tap


def cut(places: Places, node: str) -> None:
    """Pulls the plug: from now on nothing of the node is heard, not even the end of its connections."""
    if node != HEAD:
        _ip("-n", places.netns, "link", "set", f"v-{node}", "down", check=False)


def unplug(places: Places, node: str) -> None:
    """Removes the node's link and namespace; no error when they are not there."""
    netns = places.node_netns(node)
    if (NAMED / places.netns).exists():
        _ip("-n", places.netns, "link", "delete", f"v-{node}", check=False)
    if (NAMED / netns).exists():
        _ip("netns", "delete", netns)


def remove(places: Places) -> None:
    """Removes all namespaces of the lab, recorded or not."""
    for path in NAMED.glob(f"{places.netns}-*"):
        unplug(places, path.name.removeprefix(f"{places.netns}-"))
    if (NAMED / places.netns).exists():
        # explicitly: a namespace lives on without its name while somebody (mxctl get -w) still is in it
        _ip("-n", places.netns, "link", "delete", BRIDGE, check=False)
        _ip("netns", "delete", places.netns)
    with _naming(places):
        _remove_mount_of_names(places)


def _remove_mount_of_names(places: Places) -> None:
    """``ip netns add`` mounts something over /run/netns when it is first used; the last lab leaves, so does that."""
    marker = places.state / "labs" / ".made-netns"
    if not marker.exists() or (NAMED.exists() and any(NAMED.iterdir())):
        return
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    for _ in range(mounts.count(str(NAMED))):
        subprocess.run(["umount", str(NAMED)], check=True, capture_output=True, timeout=_SECONDS)
    if NAMED.exists():
        NAMED.rmdir()
    marker.unlink()


def _naming(places: Places) -> AbstractContextManager[int]:
    """Guards the mount over /run/netns; with the lab's own namespace in it, nobody takes it away."""
    return locked(places.state / "labs" / ".netns.lock", timeout=_SECONDS, what="/run/netns", remove=True)


def _add_namespace(name: str) -> None:
    _ip("netns", "add", name)


def _batch(netns: str, *commands: str) -> None:
    _ip("-n", netns, "-batch", "-", text="\n".join(commands) + "\n")


def _ip(*arguments: str, text: str = "", check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], input=text, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if check and done.returncode:
        doing = text.replace("\n", "; ") or " ".join(arguments)
        raise LabError(f"ip {doing.strip()} failed: {done.stderr.strip()}; take the lab down and start it again")
