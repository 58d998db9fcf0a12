"""What the two ends of a move say to each other, and how it is cut into frames.

A frame is a header (kind, file number, length) and its payload: a message in JSON, up to 1 MiB of one image file, or where in the
memory that went ahead (ahead.py) the next bytes of that file are. Lengths
are checked before anything is read, a stranger's more strictly than that of a caller who has shown the ticket.
"""

import struct
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from crds.meta import Model, Name, Time
from nodeagent.ahead import AHEAD
from nodeagent.errors import MoveFailed, Untrusted

HEADER = struct.Struct(">cHI")
MESSAGE = b"M"
DATA = b"D"
KNOWN = b"K"
PLACE = struct.Struct(">QI")
"""Payload of a frame of kind KNOWN: offset and length in bytes."""
_TLS = (b"\x15", b"\x16")  # first bytes of its records: an alert, a handshake
CHUNK = 1 << 20  # bytes of image data in one frame, at most
MAX_HELLO = 16 << 10  # bytes
MAX_MESSAGE = 8 << 20  # bytes: the end frame of a job with tens of thousands of images


class Hello(Model):
    """Source: which move this is, and the proof that it may be made."""

    kind: Literal["hello"] = "hello"
    namespace: Name
    name: Name
    uid: str
    epoch: int
    ticket: str
    memory: int
    """Bytes the images will take, roughly."""
    ahead: bool = False
    """Whether memory would go ahead of the freeze, for which as much room again is needed."""


class Open(Model):
    """Anybody: this connection is for something other than a move; what follows is between caller and handler."""

    kind: Literal["open"] = "open"
    purpose: str = Field(pattern=r"^[a-z][-a-z0-9]{0,40}$")
    body: dict[str, Any] = Field(default_factory=dict)
    """What the handler of that purpose wants to know first; it checks it."""


class Ready(Model):
    """Destination: freeze and send."""

    kind: Literal["ready"] = "ready"
    pages: int = 0
    """Port on which the job's memory is to follow it (post-copy); 0: it comes with the images."""
    ahead: bool = False
    """There is room for memory that goes ahead."""


class Round(Model):
    """Source: images of memory that goes ahead of the job (pre-copy); 0: the job is frozen now, and its own images follow."""

    kind: Literal["round"] = "round"
    number: int = Field(ge=0)


class File(Model):
    """Source: data frames with this number belong to this file."""

    kind: Literal["file"] = "file"
    number: int = Field(ge=0, lt=1 << 16)
    name: str = Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]{0,200}$")


class FileSum(Model):
    """What must have arrived of one file."""

    name: str
    length: int
    crc32: int


def images_size(files: Iterable[FileSum]) -> int:
    """Bytes of the job's images, without what only went ahead of them."""
    return sum(file.length for file in files if file.name != AHEAD)


class End(Model):
    """Source: that was all. From here on only the destination, or a new placement, decides."""

    kind: Literal["end"] = "end"
    files: list[FileSum]
    last_pid: int
    """Highest PID of the job's PID namespace."""
    frozen_for: float
    """Seconds from the freeze to the frame that named the first image of the frozen job."""
    cpu_seconds: float
    """Used by the job on all nodes."""
    started_at: Time | None = None
    """First start of the job."""


class Abort(Model):
    """Source: the move failed here, the job goes on here."""

    kind: Literal["abort"] = "abort"
    reason: str


class Running(Model):
    """Destination: committed, the job runs here."""

    kind: Literal["running"] = "running"
    freeze_ms: float


class Refused(Model):
    """Destination: it will never run here, by a claim that says so (or before anything was sent)."""

    kind: Literal["refused"] = "refused"
    reason: str
    exit_code: int | None = None
    """To a person who wants a program started: it never will run, and this is what a shell would say."""


Message = Hello | Open | Ready | Round | File | End | Abort | Running | Refused
_MESSAGES: TypeAdapter[Message] = TypeAdapter(
    Annotated[Message, Field(discriminator="kind")],
    config=ConfigDict(defer_build=True),  # when the first comes; a machine that boots waits for it otherwise
)


def encode(message: Message) -> bytes:
    """The whole frame."""
    text = message.to_json()
    return HEADER.pack(MESSAGE, 0, len(text)) + text


def decode(payload: bytes | bytearray | memoryview) -> Message:
    """Raises MoveFailed for what is no message."""
    try:
        return _MESSAGES.validate_json(bytes(payload))
    except ValidationError as error:
        raise MoveFailed(f"data channel: not a message of this version: {str(error).splitlines()[0]}") from error


def parse_header(header: bytes | bytearray | memoryview, most: int) -> tuple[bytes, int, int]:
    """Kind, file number, length of the payload. Raises MoveFailed for one that is too long or of no known kind."""
    kind, number, length = HEADER.unpack(header)
    allowed = {MESSAGE: most, DATA: CHUNK, KNOWN: PLACE.size}.get(kind)
    if kind in _TLS:
        raise Untrusted(
            "data channel: one end speaks TLS, the other does not: start both agents with --tls, or both with --insecure"
        )
    if allowed is None or length > allowed:
        raise MoveFailed(f"data channel: a frame of kind {kind!r} and {length} bytes is not allowed")
    return kind, number, length
