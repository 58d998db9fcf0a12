"""Frames: what is said arrives; what is too long, unknown or torn is refused before it does harm."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from nodeagent.errors import MoveFailed, PeerLost
from nodeagent.frames import (
    CHUNK,
    DATA,
    HEADER,
    MAX_HELLO,
    MESSAGE,
    Abort,
    End,
    File,
    FileSum,
    Hello,
    Message,
    Ready,
    Refused,
    Running,
    decode,
    encode,
    parse_header,
    receive_message,
    send_message,
)

HELLO = Hello(namespace="default", name="w", uid="u", epoch=2, ticket="t", memory=1)
END = End(files=[FileSum(name="a.img", length=1, crc32=2)], last_pid=7, frozen_for=0.5, cpu_seconds=1.5, started_at=None)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.mark.parametrize(
    "message",
    [HELLO, Ready(), File(number=3, name="pages-1.img"), END, Abort(reason="x"), Running(freeze_ms=12.5), Refused(reason="ü")],
)
async def test_every_message_arrives(pair: tuple[socket.socket, socket.socket], message: Message) -> None:
    near, far = pair
    await send_message(near, message, timeout=5)
    assert await receive_message(far, timeout=5) == message


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"{}", b'{"kind":"other"}', b'{"kind":"ready","more":1}', b'{"kind":"running"}', b"\xff\xfe"],
)
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(MoveFailed, match="not a message"):
        decode(payload)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a" * 300, "a\x00b"])
def test_a_file_name_stays_in_its_directory(name: str) -> None:
    with pytest.raises(ValueError):
        File(number=0, name=name)


def test_lengths_are_checked_before_anything_is_read() -> None:
    parse_header(HEADER.pack(DATA, 1, CHUNK), 10)
    parse_header(HEADER.pack(MESSAGE, 0, 10), 10)
    for header in (HEADER.pack(DATA, 1, CHUNK + 1), HEADER.pack(MESSAGE, 0, 11), HEADER.pack(b"?", 0, 1)):
        with pytest.raises(MoveFailed, match="not allowed"):
            parse_header(header, 10)


async def test_a_stranger_may_not_say_much(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.sendall(HEADER.pack(MESSAGE, 0, MAX_HELLO + 1))
    with pytest.raises(MoveFailed, match="not allowed"):
        await receive_message(far, timeout=5, most=MAX_HELLO)


async def test_a_peer_that_hangs_up_is_lost(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.sendall(encode(HELLO)[:-1])
    near.close()
    with pytest.raises(PeerLost, match="closed"):
        await receive_message(far, timeout=5)


async def test_a_peer_that_says_nothing_is_lost_in_time(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(PeerLost, match="in time"):
        await receive_message(pair[1], timeout=0.01)


async def test_a_peer_that_reads_nothing_is_lost_in_time(pair: tuple[socket.socket, socket.socket]) -> None:
    long = End(
        files=[FileSum(name="x" * 200, length=1, crc32=2)] * 20_000, last_pid=7, frozen_for=0, cpu_seconds=0, started_at=None
    )
    with pytest.raises(PeerLost, match="was not sent"):
        await send_message(pair[0], long, timeout=0.05)
    await asyncio.sleep(0)
