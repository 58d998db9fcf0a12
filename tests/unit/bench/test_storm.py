"""The parts of bench/storm.py: frames that a server reads, figures, and everything for 64 nodes of one template."""

import struct

import pytest

from bench.storm import bare, figures
from bench.storming.dhcp import Kind, frame, read
from bench.storming.machines import Outcome
from bench.storming.template import render_set, rendered

MAC = bytes.fromhex("525401000001")


def answer(kind: int, xid: int = 7) -> bytes:
    """A server's, made by hand."""
    fixed = struct.pack(
        ">BBBBIHHIIII16s192s4s",
        2,
        1,
        6,
        0,
        xid,
        0,
        0x8000,
        0,
        0x0A4D0101,
        0,
        0,
        MAC,
        b"\0" * 64 + b"undionly.kpxe",
        b"\x63\x82\x53\x63",
    )
    payload = fixed + bytes([53, 1, kind, 54, 4, 10, 77, 0, 1, 255])
    udp = struct.pack(">HHHH", 67, 68, 8 + len(payload), 0) + payload
    return b"\xff" * 6 + MAC + b"\x08\x00" + bytes([0x45]) + bytes(8) + bytes([17]) + bytes(10) + udp


def test_a_request_is_what_the_standard_says() -> None:
    raw = frame(Kind.REQUEST, MAC, 7, ipxe=True, address="10.77.1.1", server="10.77.0.1")
    header = raw[14:34]
    assert sum(struct.unpack(">10H", header)) % 0xFFFF == 0, "the checksum of the IP header"
    assert struct.unpack(">HH", raw[34:38]) == (68, 67) and raw[42 + 236 : 42 + 240] == b"\x63\x82\x53\x63"
    assert bytes([53, 1, 3]) in raw and bytes([50, 4, 10, 77, 1, 1]) in raw and b"\xaf\x03\xb1\x01\x01" in raw
    assert read(raw) is None, "it is no answer"


def test_an_answer_is_read_and_anything_else_passed_over() -> None:
    found = read(answer(5))
    assert found is not None
    assert (found.kind, found.xid, found.mac, found.address, found.server) == (Kind.ACK, 7, MAC, "10.77.1.1", "10.77.0.1")
    assert found.file == "undionly.kpxe"
    assert read(answer(9)) is None and read(b"short") is None and read(bytes(400)) is None


def test_figures() -> None:
    found = figures(Outcome(seconds=[0.1] * 99 + [1.0], again=1, wall=2.0))
    assert (found["p50_ms"], found["most_ms"], found["per_second"], found["asked_again"]) == (100.0, 1000.0, 50.0, 1)
    assert figures(Outcome(wrong=["s1: no answer"]))["wrong"] == ["s1: no answer"]
    assert len({bare(number).address for number in range(1000)}) == 1000 and bare(300).mac == "52:54:01:00:01:2c"


def test_64_nodes_of_one_template_are_rendered_in_under_a_second() -> None:
    assert min(render_set(64) for _ in range(3)) < 1.0


def test_rendering_depends_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock, no chance, no file: the same text again, also when all of these are taken away."""
    before = rendered(64)
    assert len(before) == 64 * 2 + 2 and "n0064" in before["n0064"]

    def gone(*_: object, **__: object) -> object:
        raise AssertionError("rendering is pure")

    for name in ("builtins.open", "os.open", "time.time", "os.urandom", "random.random", "socket.socket"):
        monkeypatch.setattr(name, gone)
    assert rendered(64) == before
