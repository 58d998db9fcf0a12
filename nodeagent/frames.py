"""What the two ends of a move say to each other, and how it is cut into frames.

A frame is a header (kind, file number, length) and its payload: either a message in JSON or up to 1 MiB of one image file. Lengths
are checked before anything is read, a stranger's more strictly than that of a caller who has shown the ticket.
"""

import asyncio
import socket
import struct
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from crds.meta import Model, Name, Time
from nodeagent.errors import MoveFailed, PeerLost

HEADER = struct.Struct(">cHI")
MESSAGE = b"M"
DATA = b"D"
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


class Ready(Model):
    """Destination: freeze and send."""

    kind: Literal["ready"] = "ready"


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


class End(Model):
    """Source: that was all. From here on only the destination, or a new placement, decides."""

    kind: Literal["end"] = "end"
    files: list[FileSum]
    last_pid: int
    """Highest PID of the job's PID namespace."""
    frozen_for: float
    """Seconds from the freeze to this frame."""
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


Message = Hello | Ready | File | End | Abort | Running | Refused
_MESSAGES: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


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
    allowed = {MESSAGE: most, DATA: CHUNK}.get(kind)
    if allowed is None or length > allowed:
        raise MoveFailed(f"data channel: a frame of kind {kind!r} and {length} bytes is not allowed")
    return kind, number, length


async def send_message(sock: socket.socket, message: Message, *, timeout: float) -> None:
    """From the event loop; ``timeout`` in seconds. Raises PeerLost."""
    try:
        sock.setblocking(False)
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_sendall(sock, encode(message))
    except (OSError, TimeoutError) as error:
        raise PeerLost(f"data channel: {message.kind} was not sent: {str(error) or 'no answer in time'}") from error


async def receive_message(sock: socket.socket, *, timeout: float | None, most: int = MAX_MESSAGE) -> Message:
    """From the event loop; ``timeout`` in seconds, None waits as long as the peer lives. Raises PeerLost, MoveFailed."""
    try:
        sock.setblocking(False)
        async with asyncio.timeout(timeout):
            kind, _, length = parse_header(await _exactly(sock, HEADER.size), most)
            payload = await _exactly(sock, length)
    except (OSError, TimeoutError) as error:
        raise PeerLost(f"data channel: no message came: {str(error) or 'no answer in time'}") from error
    if kind != MESSAGE:
        raise MoveFailed("data channel: image data where a message was expected")
    return decode(payload)


async def _exactly(sock: socket.socket, length: int) -> bytearray:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        count = await asyncio.get_running_loop().sock_recv_into(sock, view)
        if count == 0:
            raise ConnectionError("the peer closed the connection")
        view = view[count:]
    return buffer


def tune(sock: socket.socket, silence: float) -> None:
    """No waiting for full packets; a peer that acknowledges nothing for ``silence`` seconds is given up."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(silence / 3)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(silence / 6)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence * 1000))
