"""Talks to a job's mx-stdio from the host, as an agent does for mxctl."""

import os
import select
import socket
import time
from pathlib import Path

from nodeagent.stdio.client import Client, Exited, Missed, Printed, Renewed

PATIENCE = 30.0


class Talker:
    """One client over any number of connections."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.output = {1: bytearray(), 2: bytearray()}
        self.code: int | None = None
        self.troubles: list[Missed | Renewed] = []
        self._sock: socket.socket | None = None

    def connect(self, path: Path) -> None:
        """To the socket, by way of its directory, as a path may be too long."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            sock.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
        self._sock = sock
        self.client.begin()

    def disconnect(self) -> None:
        """Hangs up; mx-stdio has, too, when this returns. What comes meanwhile is thrown away."""
        assert self._sock is not None
        self._sock.shutdown(socket.SHUT_WR)
        self._sock.settimeout(PATIENCE)
        while self._sock.recv(1 << 16):
            pass
        self._sock.close()
        self._sock = None

    def pump(self, seconds: float) -> None:
        """Says what is to be said, hears what comes, for at most that long or until something came."""
        assert self._sock is not None
        self._sock.settimeout(PATIENCE)
        self._sock.sendall(self.client.outgoing())
        if select.select([self._sock], [], [], seconds)[0]:
            data = self._sock.recv(1 << 16)
            assert data, "mx-stdio hung up"
            for event in self.client.receive(data):
                self._note(event)
        self._sock.sendall(self.client.outgoing())

    def leave(self) -> None:
        """For good: mx-stdio may end by that."""
        assert self._sock is not None
        self.client.bye()
        self._sock.sendall(self.client.outgoing())
        self._sock.close()

    def _note(self, event: object) -> None:
        if isinstance(event, Printed):
            self.output[event.stream] += event.data
            self.client.shown(event.stream, len(event.data))
        elif isinstance(event, Exited):
            self.code = event.code
        elif isinstance(event, Missed | Renewed):
            self.troubles.append(event)

    def until(self, words: bytes, stream: int = 1, after: int = 0) -> int:
        """Pumps until they are there; where they end."""
        end = time.monotonic() + PATIENCE
        while (at := self.output[stream].find(words, after)) < 0:
            assert time.monotonic() < end, f"{words!r} never came: {bytes(self.output[stream][-400:])!r}"
            self.pump(0.1)
        return at + len(words)

    def say(self, text: bytes) -> None:
        self.client.feed(text)
        self.pump(0)
