"""The client's end of a conversation with mx-stdio, without any I/O. It outlives connections: nothing is lost or doubled by them.

client = Client(live=False, rows=24, columns=80)
connection made   -> begin(), write outgoing()
bytes came        -> for event in receive(data): show it, then shown(stream, count), write outgoing()
keys were pressed -> feed(data) up to room bytes, write outgoing()
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from nodeagent.stdio import frames
from nodeagent.stdio.frames import BadFrame, Parser, frame


@dataclass(frozen=True, slots=True)
class Printed:
    """The program wrote this to stream 1 or 2; call ``shown`` when it is where it belongs."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Missed:
    """So many bytes of the stream were dropped while we were away: the log has them."""

    stream: int
    count: int


@dataclass(frozen=True, slots=True)
class Renewed:
    """It is not the program we talked to, or it was taken back to a checkpoint: what was typed before is gone."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The program ended; all its output came before this."""

    code: int


Event = Printed | Missed | Renewed | Exited


class Client:
    """``live``: only what is printed from now on. ``rows`` 0: there is no window. ``number`` names this client (16 bytes)."""

    def __init__(self, *, live: bool = False, rows: int = 0, columns: int = 0, number: bytes = b"") -> None:
        self._number = number or os.urandom(16)
        self._live = live
        self._size = (rows, columns)
        self._program: bytes | None = None
        self._have = dict.fromkeys(frames.OUTPUTS, 0)
        self._unshown = dict(self._have)
        self._input = bytearray()
        self._input_at = 0
        self._sent = self._taken = 0
        self._ended = self._told_end = False
        self._parser = Parser()
        self._outgoing = bytearray()
        self.welcome = False
        """Whether mx-stdio has answered on this connection."""

    # --- connections ---

    def begin(self) -> None:
        """A new connection stands."""
        self._parser, self._outgoing, self.welcome, self._told_end = Parser(), bytearray(), False, False
        have = [self._have[stream] for stream in frames.OUTPUTS]
        body = frames.HELLO_BODY.pack(frames.VERSION, self._number, self._live, *have, *self._size)
        self._outgoing += frame(frames.HELLO, payload=body)

    def outgoing(self) -> bytes:
        """What is to be written to the connection now."""
        if self.welcome:
            self._send_input()
        data, self._outgoing = bytes(self._outgoing), bytearray()
        return data

    def receive(self, data: bytes) -> list[Event]:
        """What came. Raises BadFrame: the connection is to be closed."""
        events: list[Event] = []
        for kind, stream, offset, payload in self._parser.feed(data):
            if kind == frames.WELCOME:
                events += self._welcomed(payload)
            elif not self.welcome:
                raise BadFrame(f"{kind!r} before a welcome")
            elif kind == frames.DATA and stream in frames.OUTPUTS:
                events += self._printed(stream, offset, payload)
            elif kind == frames.ACK:
                self._taken = offset
                self._drop_taken()
            elif kind == frames.EXIT:
                events.append(Exited(offset))
            else:
                raise BadFrame(f"{kind!r} from a program")
        return events

    def _welcomed(self, payload: bytes) -> list[Event]:
        try:
            version, program, known, received, taken, *begin = frames.WELCOME_BODY.unpack(payload)
        except struct.error as error:
            raise BadFrame(f"welcome: {error}") from error
        if version != frames.VERSION:
            raise BadFrame(f"version {version} instead of {frames.VERSION}")
        self.welcome = True
        starts = dict(zip(frames.OUTPUTS, begin, strict=True))
        first = self._program is None
        again = not first and (program != self._program or not known or any(starts[s] < self._have[s] for s in starts))
        lost_input = received < self._input_at or received > self._input_at + len(self._input)
        self._program = program
        events: list[Event] = []
        if again or lost_input:
            events.append(Renewed())
            self._input_at = received
        elif not (first and self._live):
            events += [Missed(s, starts[s] - self._have[s]) for s in starts if starts[s] > self._have[s]]
        del self._input[: received - self._input_at]
        self._input_at = self._sent = received
        self._taken = taken
        self._have, self._live = starts, False
        return events

    def _printed(self, stream: int, offset: int, payload: bytes) -> list[Event]:
        have = self._have[stream]
        if offset < have:
            raise BadFrame(f"stream {stream} came from {offset} on, {have} were there")
        events: list[Event] = []
        if offset > have:
            events.append(Missed(stream, offset - have))
        self._have[stream] = offset + len(payload)
        self._unshown[stream] += len(payload)
        events.append(Printed(stream, payload))
        return events

    # --- what we do ---

    def shown(self, stream: int, count: int) -> None:
        """So many more bytes are where they belong: they need never be sent again."""
        self._unshown[stream] -= count
        self._say(frame(frames.ACK, stream, max(0, self._have[stream] - self._unshown[stream])))

    @property
    def window(self) -> bool:
        """Whether we have a window whose size counts."""
        return self._size[0] > 0

    @property
    def room(self) -> int:
        """How many bytes of input may be fed now."""
        return max(0, frames.WINDOW - len(self._input))

    def feed(self, data: bytes) -> None:
        """More input."""
        self._input += data

    def end_input(self) -> None:
        """There will be no more input."""
        self._ended = True

    def resize(self, rows: int, columns: int) -> None:
        """The window's size, said again on every new connection."""
        self._size = (rows, columns)
        self._say(frame(frames.SIZE, payload=frames.SIZE_BODY.pack(rows, columns)))

    def signal(self, number: int) -> None:
        """For the program; lost when there is no connection."""
        self._say(frame(frames.SIGNAL, offset=number))

    def bye(self) -> None:
        """We will not come back: nothing is to be kept for us."""
        self._say(frame(frames.BYE))

    def _say(self, data: bytes) -> None:
        if self.welcome:
            self._outgoing += data

    def _send_input(self) -> None:
        end = min(self._input_at + len(self._input), self._taken + frames.WINDOW)
        while self._sent < end:
            at = self._sent - self._input_at
            data = self._input[at : at + min(frames.CHUNK, end - self._sent)]
            self._outgoing += frame(frames.DATA, frames.STDIN, self._sent, data)
            self._sent += len(data)
        if self._ended and not self._told_end and self._sent == self._input_at + len(self._input):
            self._outgoing += frame(frames.EOF, frames.STDIN, self._sent)
            self._told_end = True

    def _drop_taken(self) -> None:
        count = min(self._taken, self._sent) - self._input_at
        if count > 0:
            del self._input[:count]
            self._input_at += count
