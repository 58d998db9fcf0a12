"""What goes over the wire, byte by byte, and what is read out of /proc."""

import struct
from pathlib import Path

import pytest

from nodeagent.engine import Copy, Network
from nodeagent.links import arguments, port_of
from nodeagent.shim import wire
from nodeagent.shim.netlink import attribute, link

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1388 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F0C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0B004D0A:C3A2 01004D0A:1388 01 00000000:00000007 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
"""


def test_a_gratuitous_arp_asks_everybody_for_ones_own_address() -> None:
    frame = wire.gratuitous_arp("52:54:0a:4d:00:80", "10.77.0.128")
    mac, address = b"\x52\x54\x0a\x4d\x00\x80", bytes([10, 77, 0, 128])
    assert frame == b"\xff" * 6 + mac + b"\x08\x06" + b"\0\x01\x08\0\x06\x04\0\x01" + mac + address + b"\0" * 6 + address


def test_attributes_are_padded_and_nested() -> None:
    assert attribute(3, "abcd") == struct.pack("=HH", 9, 3) + b"abcd\0\0\0\0"
    inner = attribute(1, b"\x07")
    assert attribute(12, inner) == struct.pack("=HH", 12, 12) + inner and len(inner) == 8
    assert link(7, up=True) == struct.pack("=BBHiII", 0, 0, 0, 7, 1, 1)


def test_connections_that_wait_to_be_accepted_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tcp").write_text(TABLE)
    real = open

    def opened(path: str, **more: str) -> object:
        return real(path.replace("/proc/net", str(tmp_path)), **more)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", opened)
    assert list(wire.queues()) == [3, 0]


def test_a_ports_name_is_its_copys_own_and_fits() -> None:
    names = {port_of(Copy("default", "w", uid, epoch)) for uid in ("a", "b") for epoch in (1, 10, 123456)}
    assert len(names) == 6 and all(len(name) == 15 for name in names)


def test_what_the_shim_is_told() -> None:
    which = Copy("default", "w", "u", 1)
    told = arguments(which, Network("10.77.0.128/24", "52:54:0a:4d:00:80", "10.77.0.1"), "mx0")
    assert told == ("w", port_of(which), "mx0", "52:54:0a:4d:00:80", "10.77.0.128/24", "10.77.0.1")
    assert len(arguments(which, Network("10.77.0.128/24", "52:54:0a:4d:00:80"), "mx0")) == 5
