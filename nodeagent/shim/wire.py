"""The job's wire: a pair of links, one in the job's network namespace, the other a port of the node's bridge.

Two copies of a job have one address, so at most one of them may be heard. The port says which: it is *blocked* from the first
moment on, is opened when the job is started or goes on, and is blocked again when it stands frozen. Both links are up all the
time, for one that is taken up gets its carrier only when the kernel comes to it. What comes for a blocked port is lost, and its
sender repeats it; above all the kernel cannot answer in the place of a copy that is frozen or dead, which would end the job's
connections.

Before criu looks at the sockets nothing may come in any more, or the kernel acknowledges what the images do not have. But criu
takes a while until then, in which the job still runs; so at first it is *deafened* only. What it sends goes out: lost, it would
be repeated no sooner than after 3 s, because a restored connection knows nothing of its round trips.
"""

# ruff: noqa: PTH123
# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import os
import socket
import struct
import time

from nodeagent.shim.kernel import read_int, write
from nodeagent.shim.netlink import DISABLED, FORWARDING, Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NODE_LINKS = "/sys/class/net"
"""Of the node, for /sys is not mounted anew."""
INSIDE = "eth0"
"""The job's end."""
CARRIER_SECONDS = 5.0
"""For the kernel to notice that both ends are up; a few milliseconds unless the machine is drowning."""
DRAIN_SECONDS = 0.1
"""For the job to accept connections that are there already."""
TICK = 0.001
NEIGHBOURS = f"/proc/sys/net/ipv4/neigh/{INSIDE}"
NEIGHBOUR_OFTEN, NEIGHBOUR_REQUESTS = 10, 10_000
"""Milliseconds, and how many: more than any freeze takes."""
LISTENING = "0A"
ETH_P_ARP = 0x0806


class Wire:
    """Made in the node's namespace, before ``unshare``; ``plug`` is called in the job's."""

    def __init__(self, port: str, bridge: str, mac: str, address: str, gateway: str = "") -> None:
        """``address`` with its prefix's length."""
        self.port, self.mac, self.gateway = port, mac, gateway
        self.address, _, length = address.partition("/")
        self.length = int(length)
        self._node = Netlink()
        self._bridge_index = socket.if_nametoindex(bridge)
        self._mtu = read_int(f"{NODE_LINKS}/{bridge}/mtu")
        self._index = 0

    def plug(self) -> None:
        """Makes both links, the port blocked before the job's end has an address, so that it cannot answer for it."""
        own = self._own = Netlink()
        namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._node.make_veth(self.port, self._bridge_index, self._mtu, (INSIDE, self.mac, namespace))
            self._index = self._node.index_of(self.port)
            inside = socket.if_nametoindex(INSIDE)
            if os.path.exists(f"/proc/sys/net/ipv6/conf/{INSIDE}"):  # noqa: PTH110
                write(f"/proc/sys/net/ipv6/conf/{INSIDE}/disable_ipv6", "1")
            ask_for_neighbours(often=True)
            own.set_up(socket.if_nametoindex("lo"))
            own.set_up(inside)
            self._wait_for_carrier()
            self.block()
            own.add_address(inside, self.address, self.length)
            own.put_local_second()
            if self.gateway:
                own.add_default_route(self.gateway)
        finally:
            os.close(namespace)

    def _wait_for_carrier(self) -> None:
        """The bridge enables a port when it gets its carrier; once that has happened, it stays as we set it."""
        deadline = time.monotonic() + CARRIER_SECONDS
        while True:
            with open(f"{NODE_LINKS}/{self.port}/operstate", encoding="ascii") as file:
                if file.read().strip() == "up":
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"link {self.port} has no carrier after {CARRIER_SECONDS} s: see dmesg on its node")
            time.sleep(TICK)

    def deafen(self) -> None:
        """While the job still runs: nothing that comes is seen, what it sends goes out. Waits until it has accepted what came."""
        self._own.drop_incoming(INSIDE, drop=True)
        self._drain()

    def block(self) -> None:
        """From now on nothing of this copy is heard, and it hears nothing."""
        self._node.set_port(self._index, DISABLED)

    def open(self) -> None:
        """This copy is the one that counts. Tells all switches at once where it is now."""
        self._own.drop_incoming(INSIDE, drop=False)
        self._node.set_port(self._index, FORWARDING)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as packets:
            packets.bind((INSIDE, ETH_P_ARP))
            packets.send(gratuitous_arp(self.mac, self.address))
        ask_for_neighbours(often=False)

    def _drain(self) -> None:
        """criu cannot take along connections that wait to be accepted."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while any(queues()) and time.monotonic() < deadline:
            time.sleep(TICK)


def ask_for_neighbours(*, often: bool) -> None:
    """How ARP requests are repeated: as long as the port is blocked, often.

    Restored connections have something to send at once, and the request for whom to send it to is lost; the usual second until the
    next one would be a second in which they stand still.
    """
    pause, count = (NEIGHBOUR_OFTEN, NEIGHBOUR_REQUESTS) if often else (1000, 3)
    write(f"{NEIGHBOURS}/retrans_time_ms", str(pause))
    write(f"{NEIGHBOURS}/mcast_solicit", str(count))


def gratuitous_arp(mac: str, address: str) -> bytes:
    """The frame by which somebody asks for its own address."""
    own, ip = bytes.fromhex(mac.replace(":", "")), socket.inet_aton(address)
    return b"\xff" * 6 + own + struct.pack("!HHHBBH", ETH_P_ARP, 1, 0x0800, 6, 4, 1) + own + ip + b"\0" * 6 + ip


def queues() -> Iterator[int]:
    """For each listening TCP socket of our namespace: how many connections it has not accepted."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except FileNotFoundError:
            continue  # no IPv6 here
        for row in rows:
            if row[3] == LISTENING:
                yield int(row[4].partition(":")[2], 16)
