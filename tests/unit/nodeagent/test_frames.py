"""Frames: what is said arrives; what is too long, unknown or torn is refused before it does harm."""

import pytest

from nodeagent.errors import MoveFailed, Untrusted
from nodeagent.frames import (
    CHUNK,
    DATA,
    HEADER,
    MAX_MESSAGE,
    MESSAGE,
    Abort,
    End,
    File,
    FileSum,
    Hello,
    Message,
    Open,
    Ready,
    Refused,
    Running,
    decode,
    encode,
    parse_header,
)

HELLO = Hello(namespace="default", name="w", uid="u", epoch=2, ticket="t", memory=1)
END = End(files=[FileSum(name="a.img", length=1, crc32=2)], last_pid=7, frozen_for=0.5, cpu_seconds=1.5, started_at=None)


@pytest.mark.parametrize(
    "message",
    [
        HELLO,
        Open(purpose="session", body={"a": 1}),
        Ready(),
        File(number=3, name="pages-1.img"),
        END,
        Abort(reason="x"),
        Running(freeze_ms=12.5),
        Refused(reason="ü"),
    ],
)
def test_every_message_arrives(message: Message) -> None:
    frame = encode(message)
    kind, _, length = parse_header(frame[: HEADER.size], MAX_MESSAGE)
    assert (kind, length) == (MESSAGE, len(frame) - HEADER.size)
    assert decode(frame[HEADER.size :]) == message


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


@pytest.mark.parametrize("record", [b"\x16\x03\x01\x02\x00\x01\x00", b"\x15\x03\x03\x00\x02\x02\x46"])
def test_tls_where_none_is_spoken_is_named(record: bytes) -> None:
    with pytest.raises(Untrusted, match="one end speaks TLS"):
        parse_header(record, MAX_MESSAGE)
