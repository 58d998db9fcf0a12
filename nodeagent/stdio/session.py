"""mx-stdio's end of all conversations, without any I/O: what clients have, what they sent, when output has to wait."""

from __future__ import annotations

import struct
from collections import deque

from nodeagent.stdio import frames
from nodeagent.stdio.frames import BadFrame, Parser, frame
from nodeagent.stdio.ring import Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Program(Protocol):
        """What clients may do to the program, beside giving it input."""

        def resize(self, rows: int, columns: int) -> None: ...

        def redraw(self) -> None: ...

        def signal(self, number: int) -> None: ...


MOST_CLIENTS = 64
"""So many are remembered; beyond that the one that has been away longest is forgotten."""
BACKLOG = 1 << 17
"""Bytes that wait to be written to one connection, about; the rest stays in the ring."""


class Client:
    """Somebody who is attached, or was. ``away`` is since when it has no connection, None while it has one."""

    def __init__(self, away: float | None = None) -> None:
        self.away = away
        self.connection: Connection | None = None
        self.received = 0
        self.taken = 0
        self.shown = dict.fromkeys(frames.OUTPUTS, 0)
        self.sent = dict(self.shown)
        self.told_exit = False


class Connection:
    """One connection; ``outgoing`` is to be written to it. When ``closed`` is set it is to be closed after that."""

    def __init__(self) -> None:
        self.parser = Parser()
        self.outgoing = bytearray()
        self.client: Client | None = None
        self.closed = False


class Session:
    """``number`` is 16 random bytes that name this run of the program. ``hold``: output waits for the first client, for GRACE.

    Times are seconds of a monotonic clock.
    """

    def __init__(self, program: Program, number: bytes, now: float, *, hold: bool = False, ring: int = frames.RING) -> None:
        self._program = program
        self._number = number
        self._ring = ring
        self.outputs = {stream: Ring(ring + frames.SLACK) for stream in frames.OUTPUTS}
        self.pause_wanted = False
        self.clients: dict[bytes, Client] = {}
        self.awaited = Client(away=now) if hold else None
        self.code: int | None = None
        self.input_ended = False
        self._input: deque[tuple[Client, bytes]] = deque()

    # --- the program's side ---

    def room(self, stream: int, now: float) -> int:
        """How many bytes may be read from the program; more than is ever read at once when nobody is to be waited for."""
        behind = [self.outputs[stream].end - client.shown[stream] for client in self._holding(now)]
        return max(0, self._ring - max(behind, default=0))

    def printed(self, stream: int, data: bytes) -> None:
        """The program has written this."""
        self.outputs[stream].append(data)

    def ended(self, code: int) -> None:
        """The program has ended, and all its output was told."""
        self.code = code
        self._input.clear()

    def input(self) -> bytes:
        """What the program is to get next; empty when there is nothing."""
        return self._input[0][1] if self._input else b""

    def took(self, count: int) -> None:
        """It took so many bytes of that."""
        client, data = self._input.popleft()
        if count < len(data):
            self._input.appendleft((client, data[count:]))
        client.taken += count
        if client.connection is not None:
            client.connection.outgoing += frame(frames.ACK, frames.STDIN, client.taken)

    def finished(self, now: float) -> bool:
        """Whether there is nothing left to do: the program has ended, and everybody who counts has all of it."""
        return self.code is not None and not self._holding(now)

    def waited_for(self, now: float) -> bool:
        """Whether somebody is attached, or is expected (back)."""
        return bool(self._holding(now))

    def deadline(self, now: float) -> float | None:
        """When the next client need not be waited for any more."""
        times = [client.away + frames.GRACE for client in self._holding(now) if client.away is not None]
        return min(times, default=None)

    def _holding(self, now: float) -> list[Client]:
        everyone = [*self.clients.values(), *([self.awaited] if self.awaited else [])]
        return [client for client in everyone if client.away is None or now - client.away < frames.GRACE]

    # --- the clients' side ---

    def receive(self, connection: Connection, data: bytes) -> None:
        """Something came. Raises BadFrame: the connection is to be closed."""
        for kind, stream, offset, payload in connection.parser.feed(data):
            if connection.client is None:
                if kind == frames.PAUSE:
                    self.pause_wanted = connection.closed = True
                    return
                if kind != frames.HELLO:
                    raise BadFrame(f"{kind!r} before a hello")
                self._greet(connection, payload)
            else:
                self._hear(connection, connection.client, kind, stream, offset, payload)

    def lost(self, connection: Connection, now: float) -> None:
        """The connection is gone."""
        client, connection.client = connection.client, None
        connection.closed = True
        if client is not None and client.connection is connection:
            client.connection, client.away = None, now

    def fill(self, connection: Connection) -> None:
        """Puts what its client still lacks into ``outgoing``."""
        client = connection.client
        if client is None:
            return
        for stream, ring in self.outputs.items():
            while len(connection.outgoing) < BACKLOG and client.sent[stream] < ring.end:
                at = max(client.sent[stream], ring.start)
                data = ring.read(at, frames.CHUNK)
                connection.outgoing += frame(frames.DATA, stream, at, data)
                client.sent[stream] = at + len(data)
        has_all = all(client.sent[stream] == ring.end for stream, ring in self.outputs.items())
        if self.code is not None and has_all and not client.told_exit:
            connection.outgoing += frame(frames.EXIT, offset=self.code)
            client.told_exit = True

    def _greet(self, connection: Connection, payload: bytes) -> None:
        try:
            version, number, live, *have, rows, columns = frames.HELLO_BODY.unpack(payload)
        except struct.error as error:
            raise BadFrame(f"hello: {error}") from error
        if version != frames.VERSION:
            raise BadFrame(f"version {version} instead of {frames.VERSION}")
        client = self.clients.pop(number, None)
        known = client is not None
        if client is None:
            client = Client()
        elif client.connection is not None:
            client.connection.client, client.connection.closed = None, True  # its half-dead former one
        self._forget_some()
        self.clients[number] = client
        if not live:
            self.awaited = None
        for stream, had in zip(frames.OUTPUTS, have, strict=True):
            ring = self.outputs[stream]
            if live:  # it has seen nothing yet, not even our answer if it is known
                had = client.sent[stream] if known else ring.end
            begin = min(max(had, ring.start), ring.end)
            client.shown[stream] = client.sent[stream] = begin
        client.connection, client.away, client.told_exit = connection, None, False
        connection.client = client
        body = frames.WELCOME_BODY.pack(
            frames.VERSION, self._number, known, client.received, client.taken, *(client.sent[stream] for stream in frames.OUTPUTS)
        )
        connection.outgoing += frame(frames.WELCOME, payload=body)
        if rows and columns:
            self._program.resize(rows, columns)
            if live:
                self._program.redraw()

    def _forget_some(self) -> None:
        while len(self.clients) >= MOST_CLIENTS:
            away = [(client.away, number) for number, client in self.clients.items() if client.away is not None]
            if not away:
                raise BadFrame("too many clients")
            del self.clients[min(away)[1]]

    def _hear(self, connection: Connection, client: Client, kind: bytes, stream: int, offset: int, payload: bytes) -> None:
        if kind == frames.DATA:
            self._take_in(client, offset, payload)
        elif kind == frames.EOF:
            self.input_ended = self.input_ended or offset == client.received
        elif kind == frames.ACK and stream in frames.OUTPUTS:
            if offset > client.sent[stream]:
                raise BadFrame(f"{offset} of stream {stream} acknowledged, {client.sent[stream]} were sent")
            client.shown[stream] = max(offset, client.shown[stream])
        elif kind == frames.SIZE and len(payload) == frames.SIZE_BODY.size:
            self._program.resize(*frames.SIZE_BODY.unpack(payload))
        elif kind == frames.SIGNAL:
            self._program.signal(offset)
        elif kind == frames.BYE:
            self.clients = {number: other for number, other in self.clients.items() if other is not client}
            connection.client, connection.closed = None, True
        else:
            raise BadFrame(f"{kind!r} from a client")

    def _take_in(self, client: Client, offset: int, payload: bytes) -> None:
        new = payload[max(0, client.received - offset) :]
        if offset > client.received or client.received + len(new) - client.taken > frames.WINDOW:
            raise BadFrame(f"input at {offset}, {client.received} were received and {client.taken} taken")
        client.received += len(new)
        if self.code is not None or self.input_ended or not new:
            client.taken += len(new)  # nobody will ever read it
        else:
            self._input.append((client, new))
