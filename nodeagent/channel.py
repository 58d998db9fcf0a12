"""The seam between what agents say to each other and how it gets there.

A ``Channel`` is one connection that is established and proved: who is at its other end is known (``peer``). Messages, raw bytes and
whole directories of images go over it. The real one is TCP with mutual TLS (tcp.py); tests have one in memory, without sockets and
without threads, that passes the same contract tests (tests/channel_contract.py).

What every implementation promises:

- Order and wholeness: what was sent arrives in order, or the connection is lost (PeerLost); never a part in silence.
- One use at a time in each direction: a send and a receive may overlap, two sends may not. During ``Outgoing.run`` nothing else is
  sent, during ``Incoming.run`` nothing else is received.
- A cancelled call leaves the connection unusable for that direction, save ``Outgoing.end_early``, which ends at a frame's end.
- A peer that takes in nothing for the agent's ``answer`` seconds is lost; one that says nothing is waited for as long as the caller
  wants.
- ``close`` may be repeated, and wakes whoever waits; the other end then reads an end of the connection.

Errors: PeerLost (broken, silent; trying anew may help), Untrusted (it is not who it should be; trying anew does not help),
MoveFailed (what it says is no message of ours).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nodeagent.frames import MAX_MESSAGE, End, FileSum, Message


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, by its certificate. On a channel without TLS nobody proves anything: ``proved`` is False then."""

    name: str = ""
    organisation: str = ""
    proved: bool = False
    serial: str = ""
    """Number of its certificate, by which it is revoked."""

    def may_be(self, organisation: str, name: str | None = None) -> bool:
        """Whether it is that node or person (``name`` None: any of the organisation), or nothing is proved here at all."""
        return not self.proved or (self.organisation == organisation and name in (None, self.name))

    def __str__(self) -> str:
        return f"{self.organisation}/{self.name}" if self.proved else "an unproved caller"


class Outgoing(Protocol):
    """A directory of growing images on its way out. Use it once."""

    @property
    def bytes(self) -> int:
        """Image bytes sent up to now."""
        ...

    def on_dump(self, call: Callable[[], None]) -> None:
        """``call`` is called, in any thread, when the first image of the frozen job is on its way: what only went ahead is none."""
        ...

    async def compare(self) -> None:
        """From now on what is in the file AHEAD, all of which was sent, is only named. Call it before the freeze. MoveFailed."""
        ...

    def dumped(self) -> None:
        """The dump succeeded: what is there now is all there will be."""
        ...

    def end_early(self) -> None:
        """Makes ``run`` end with PeerLost after the frame it is sending; the channel stays usable, for an abort."""
        ...

    async def run(self) -> list[FileSum]:
        """Sends until all is sent; returns the sums of all files. Cancelled it stops at once, and the connection is lost."""
        ...


class Incoming(Protocol):
    """A directory of images on its way in. Use it once."""

    @property
    def bytes(self) -> int:
        """Image bytes received up to now."""
        ...

    def on_dump(self, call: Callable[[], None]) -> None:
        """``call`` is called, in any thread, when the first image of the frozen job comes."""
        ...

    async def run(self) -> End:
        """The verified end frame. PeerLost; MoveFailed for damaged data, an abort, no room. Cancelled: the connection is lost."""
        ...


class Channel(Protocol):
    """One established connection; see the module's text for what it promises. Times are seconds."""

    peer: Peer

    async def send(self, message: Message, *, timeout: float) -> None: ...

    async def receive(self, *, timeout: float | None, most: int = MAX_MESSAGE) -> Message:
        """The next message, of ``most`` bytes at most; ``timeout`` None waits as long as the peer lives."""
        ...

    async def write(self, data: bytes | bytearray | memoryview, *, timeout: float) -> None:
        """Raw bytes, for kinds of connection that have frames of their own."""
        ...

    async def read(self, most: int, *, timeout: float | None) -> bytes:
        """Some raw bytes, up to ``most``; b"" when the other end has closed."""
        ...

    def send_images(self, images: Path) -> Outgoing:
        """To be made before the freeze: what takes time happens here."""
        ...

    def receive_images(self, images: Path, *, most: int) -> Incoming:
        """Into the empty directory ``images``; more than ``most`` bytes are refused."""
        ...

    def close(self) -> None: ...
