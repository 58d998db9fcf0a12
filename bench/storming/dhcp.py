"""DHCP as many machines at once speak it: frames to and from bytes (RFC 2131), and what a machine does next. Pure."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

BROADCAST_MAC = b"\xff" * 6
_IPV4, _UDP = 0x0800, 17
_COOKIE = b"\x63\x82\x53\x63"
_FIXED = ">BBBBIHHIIII16s192s4s"
_SUBNET, _ADDRESS, _TYPE, _SERVER, _CLASS, _ARCH, _ENCAPSULATED, _END = 1, 50, 53, 54, 60, 93, 175, 255
PXE = b"PXEClient:Arch:00000:UNDI:002001"


class Kind(IntEnum):
    """Type of a message."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    ACK = 5
    NAK = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says to a machine. ``file``: what it is to load."""

    kind: Kind
    xid: int
    mac: bytes
    address: str
    server: str
    file: str


def frame(kind: Kind, mac: bytes, xid: int, *, ipxe: bool, address: str = "", server: str = "") -> bytes:
    """A whole Ethernet frame, as the card's ROM (or iPXE) broadcasts it."""
    options = [(_TYPE, bytes([kind])), (_CLASS, PXE), (_ARCH, b"\0\0"), (55, bytes([1, 3, 43, 66, 67, 175]))]
    if ipxe:
        options.append((_ENCAPSULATED, b"\xb1\x01\x01"))
    if address:
        options += [(_ADDRESS, IPv4Address(address).packed), (_SERVER, IPv4Address(server).packed)]
    tail = b"".join(bytes([code, len(value)]) + value for code, value in options) + bytes([_END])
    head = struct.pack(_FIXED, 1, 1, 6, 0, xid, 0, 0x8000, 0, 0, 0, 0, mac, b"", _COOKIE)
    payload = (head + tail).ljust(300, b"\0")
    udp = struct.pack(">HHHH", 68, 67, 8 + len(payload), 0) + payload
    begin = struct.pack(">BBHHHBB", 0x45, 0, 20 + len(udp), xid & 0xFFFF, 0, 64, _UDP)
    addresses = bytes(4) + b"\xff" * 4
    ip = begin + struct.pack(">H", _checksum(begin + b"\0\0" + addresses)) + addresses
    return BROADCAST_MAC + mac + struct.pack(">H", _IPV4) + ip + udp


def read(raw: bytes) -> Answer | None:
    """The server's message in a frame; None for anything else."""
    if len(raw) < 14 + 20 + 8 + 240 or struct.unpack(">H", raw[12:14])[0] != _IPV4 or raw[14 + 9] != _UDP:
        return None
    udp = 14 + (raw[14] & 0xF) * 4
    if struct.unpack(">HH", raw[udp : udp + 4]) != (67, 68):
        return None
    fixed = struct.unpack(_FIXED, raw[udp + 8 : udp + 8 + 240])
    if fixed[0] != 2 or fixed[13] != _COOKIE:
        return None
    options = _options(raw[udp + 8 + 240 :])
    kind = options.get(_TYPE, b"\0")[0]
    if kind not in (Kind.OFFER, Kind.ACK, Kind.NAK):
        return None
    file = options.get(67, fixed[12][64:192]).rstrip(b"\0").decode(errors="replace")
    server = str(IPv4Address(options.get(_SERVER, bytes(4))))
    return Answer(Kind(kind), fixed[4], fixed[11][:6], str(IPv4Address(fixed[8])), server, file)


def _options(raw: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 1 < len(raw) and raw[at] != _END:
        if raw[at] == 0:
            at += 1
            continue
        length = raw[at + 1]
        found[raw[at]] = raw[at + 2 : at + 2 + length]
        at += 2 + length
    return found


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
