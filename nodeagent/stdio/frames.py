"""What a client and mx-stdio say to each other.

A frame is a header (kind, stream, offset, length of the payload) and its payload. Streams: 0 is the input, 1 the output (of a
terminal: all of it), 2 the error output. Offsets count bytes of the stream since the program's start; those of the input are each
client's own. The protocol's version is in the first frame, because a job may be older than the client.

    from the client                                          from mx-stdio
    HELLO   who I am, what output I have, my window          WELCOME  what I have of your input, where output begins
    DATA    input from this offset on                        DATA     output from this offset on
    EOF     the input ends at this offset                    ACK      so much of your input was taken by the program
    ACK     so much of this stream was shown                 EXIT     the program ended with this code (the offset); all was sent
    SIZE    rows and columns of the window
    SIGNAL  this signal (the offset) for the program
    BYE     I will not come back

Instead of a HELLO the agent may say PAUSE before a freeze: when the connection is closed then, nothing the program printed lies
between it and mx-stdio, and nothing will until the next connection, or for PAUSE_SECONDS.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Frame = tuple[bytes, int, int, bytes]


HEADER = struct.Struct(">cBQI")
HELLO, WELCOME, DATA, EOF, ACK, SIZE, SIGNAL, EXIT, BYE, PAUSE = (bytes([letter]) for letter in b"hwdeaskxbp")
KINDS = frozenset({HELLO, WELCOME, DATA, EOF, ACK, SIZE, SIGNAL, EXIT, BYE, PAUSE})
STDIN, STDOUT, STDERR = 0, 1, 2
OUTPUTS = (STDOUT, STDERR)

PURPOSE = "stdio"
"""Of connections to agents that are handed on to a mx-stdio."""
BESIDE = "exec"
"""Likewise, to that of a session beside the job, which is started first."""
VERSION = 1
CHUNK = 1 << 16
"""Bytes of one frame's payload, at most."""
RING = 1 << 18
"""Bytes of each output that are kept for clients."""
WINDOW = 1 << 18
"""Bytes of input under way from one client, at most."""
GRACE = 30.0
"""Seconds for which the program's output waits for a client whose connection broke."""

SLACK = 1 << 17
"""Bytes beyond RING that are kept: before a freeze what lies in the terminal is read in any case."""
PAUSE_SECONDS = 5.0
"""For a freeze to come; a program that is not frozen by then goes on."""

HELLO_BODY = struct.Struct(">B16s?QQHH")
"""Version, the client's own random number, whether it wants output from now on only, what it has of both outputs, rows, columns."""
WELCOME_BODY = struct.Struct(">B16s?QQQQ")
"""Version, this program's random number, whether the client is known, its input received and taken, where both outputs begin."""
SIZE_BODY = struct.Struct(">HH")


class BadFrame(Exception):  # noqa: N818 - named after what was heard
    """What came is no frame of this protocol."""


def frame(kind: bytes, stream: int = 0, offset: int = 0, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """The bytes of one frame."""
    return b"".join((HEADER.pack(kind, stream, offset, len(payload)), payload))


class Parser:
    """Cuts what comes into frames, wherever it was cut on its way."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """All frames that are whole now, as (kind, stream, offset, payload). Raises BadFrame."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, stream, offset, length = HEADER.unpack_from(self._buffer)
            if kind not in KINDS or stream > STDERR or length > CHUNK:
                raise BadFrame(f"a frame of kind {kind!r}, stream {stream} and {length} bytes is not allowed")
            if len(self._buffer) < HEADER.size + length:
                return
            payload = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            yield (kind, stream, offset, payload)
