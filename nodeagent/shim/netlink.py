"""rtnetlink, as much of it as a veth on a bridge takes. A socket speaks for the network namespace in which it was made."""

# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import errno
import os
import socket
import struct
import sys

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 17, 18, 19, 20, 24
RTM_NEWRULE, RTM_DELRULE = 32, 33
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x200, 0x400
NLMSG_ERROR = 2
NLA_F_NESTED = 0x8000
IFF_UP = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_PROTINFO, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 12, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER, IFLA_BRPORT_STATE = 1, 2, 1, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
FRA_IIFNAME, FRA_PRIORITY, FR_ACT_TO_TABLE, FR_ACT_BLACKHOLE, RT_TABLE_LOCAL = 3, 6, 1, 6, 255
RTA_GATEWAY, RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 5, 254, 4, 1
AF_BRIDGE = 7

DISABLED, FORWARDING = 0, 3
"""States of a bridge's port. Of the others (blocking, …) a bridge without STP makes forwarding again at once."""
SECONDS = 5.0
"""For an answer of the kernel."""


def attribute(kind: int, *values: bytes | int | str) -> bytes:
    """One attribute. Text gets its NUL, numbers are of 32 bits; several values are attributes of their own (nested)."""
    data = b"".join(_bytes(value) for value in values)
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def link(index: int = 0, *, up: bool = False, family: int = socket.AF_UNSPEC) -> bytes:
    """The head of all messages about a link."""
    flags = IFF_UP if up else 0
    return struct.pack("=BBHiII", family, 0, 0, index, flags, flags)


def _bytes(value: bytes | int | str) -> bytes:
    if isinstance(value, str):
        return value.encode() + b"\0"
    return struct.pack("=I", value) if isinstance(value, int) else value


class Netlink:
    """One namespace's kernel. Each call waits for its answer; OSError says what was refused."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(SECONDS)
        self._socket.bind((0, 0))
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, what: str, kind: int, flags: int, body: bytes) -> bytes:
        """Sends one message, waits until it is done, and returns what else the kernel said. ``what`` is for the error."""
        self._number += 1
        head = struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, self._number, 0)
        self._socket.sendall(head + body)
        said = b""
        while True:
            answer = self._socket.recv(65536)
            _, answered, _, number, _ = struct.unpack_from("=IHHII", answer)
            if number != self._number:
                continue  # to a question that we gave up
            if answered != NLMSG_ERROR:
                said += answer[16:]
                continue
            error = -int.from_bytes(answer[16:20], sys.byteorder, signed=True)
            if error:
                raise OSError(error, f"{what}: {os.strerror(error)}")
            return said

    def index_of(self, name: str) -> int:
        """A link's number, in this namespace, which need not be the one we are in."""
        said = self.ask(f"find link {name}", RTM_GETLINK, 0, link() + attribute(IFLA_IFNAME, name))
        index: int = struct.unpack_from("=BBHi", said)[3]
        return index

    def make_veth(self, name: str, bridge: int, mtu: int, peer: tuple[str, str, int]) -> None:
        """``name``, up, on the bridge of that index; its peer has (name, MAC, descriptor of a network namespace) and is down."""
        inside, mac, namespace = peer
        inner = attribute(IFLA_IFNAME, inside) + attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        inner += attribute(IFLA_MTU, mtu) + attribute(IFLA_NET_NS_FD, namespace)
        data = attribute(IFLA_INFO_DATA | NLA_F_NESTED, attribute(VETH_INFO_PEER | NLA_F_NESTED, link(), inner))
        info = attribute(IFLA_LINKINFO | NLA_F_NESTED, attribute(IFLA_INFO_KIND, "veth"), data)
        outer = attribute(IFLA_IFNAME, name) + attribute(IFLA_MTU, mtu) + attribute(IFLA_MASTER, bridge)
        self.ask(f"make link {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, link(up=True) + outer + info)

    def delete(self, name: str) -> None:
        """Removes a link, and with it its peer."""
        self.ask(f"remove link {name}", RTM_DELLINK, 0, link() + attribute(IFLA_IFNAME, name))

    def set_up(self, index: int) -> None:
        """A link."""
        self.ask(f"set up link {index}", RTM_NEWLINK, 0, link(index, up=True))

    def set_port(self, index: int, state: int) -> None:
        """DISABLED or FORWARDING, for a link that is a bridge's port."""
        port = attribute(IFLA_PROTINFO | NLA_F_NESTED, attribute(IFLA_BRPORT_STATE, bytes([state])))
        self.ask(f"set port {index} to {state}", RTM_SETLINK, 0, link(index, family=AF_BRIDGE) + port)

    def add_address(self, index: int, address: str, length: int) -> None:
        """IPv4, with the length of its network's prefix."""
        raw = socket.inet_aton(address)
        hosts = (1 << 32 - length) - 1
        broadcast = (int.from_bytes(raw, "big") | hosts).to_bytes(4, "big")
        values = attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw) + attribute(IFA_BROADCAST, broadcast)
        head = struct.pack("=BBBBi", socket.AF_INET, length, 0, 0, index)
        self.ask(f"add address {address}/{length}", RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, head + values)

    def add_default_route(self, gateway: str) -> None:
        """IPv4."""
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0)
        body = head + attribute(RTA_GATEWAY, socket.inet_aton(gateway))
        self.ask(f"route by {gateway}", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body)

    def put_local_second(self) -> None:
        """Addresses of our own are looked up by a rule of priority 1 from now on, so that another rule can come before it."""
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, RT_TABLE_LOCAL, 0, 0, FR_ACT_TO_TABLE, 0)
        flags = NLM_F_CREATE | NLM_F_EXCL
        self.ask("add rule of priority 1", RTM_NEWRULE, flags, head + attribute(FRA_PRIORITY, 1))
        self.ask("remove rule of priority 0", RTM_DELRULE, 0, head + attribute(FRA_PRIORITY, 0))

    def drop_incoming(self, name: str, *, drop: bool) -> None:
        """Begins or ends to throw away, unseen, all IPv4 packets that come by the link. No error when it is so already."""
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, FR_ACT_BLACKHOLE, 0)
        rule = head + attribute(FRA_PRIORITY, 0) + attribute(FRA_IIFNAME, name)
        kind, flags = (RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL) if drop else (RTM_DELRULE, 0)
        try:
            self.ask(f"rule for {name}", kind, flags, rule)
        except OSError as error:
            if error.errno != (errno.EEXIST if drop else errno.ENOENT):
                raise
