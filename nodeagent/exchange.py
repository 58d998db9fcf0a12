"""The data channel's door: listens for sources of moves, checks their tickets, hands each connection to the arrival it is for.

A connection is good for one move. A stranger gets little: few at once, a small hello, a few seconds.
"""

import asyncio
import hmac
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nodeagent.engine import Copy
from nodeagent.errors import AgentError, MoveFailed
from nodeagent.frames import MAX_HELLO, Hello, Refused, receive_message, send_message, tune

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds after a connection could not be accepted
MOST_STRANGERS = 32  # connections that have not shown a ticket yet


@dataclass(frozen=True, slots=True)
class Caller:
    """A source that showed the right ticket; the socket is the arrival's from now on."""

    sock: socket.socket
    hello: Hello


@dataclass(slots=True)
class Expected:
    """An arrival that waits for its source."""

    ticket: str
    came: "asyncio.Future[Caller]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Exchange:
    """One listening socket, bound when made (AgentError). ``serve`` runs until cancelled. Times are seconds."""

    def __init__(self, host: str, port: int, *, hello: float, silence: float) -> None:
        try:
            self._listener = socket.create_server((host, port), backlog=64)
        except OSError as error:
            raise AgentError(f"data channel: {host}:{port} cannot be opened: {error}: choose another --port") from error
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._hello = hello
        self._silence = silence
        self._expected: dict[Copy, Expected] = {}
        self._news = asyncio.Event()
        self._strangers = asyncio.Semaphore(MOST_STRANGERS)

    async def serve(self) -> None:
        """Accepts callers."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._strangers.acquire()
                    try:
                        sock, address = await loop.sock_accept(self._listener)
                    except OSError as error:  # out of file descriptors, most likely: the jobs must not suffer from that
                        log.error("data channel: no connection can be taken at the moment: %s", error)
                        self._strangers.release()
                        await asyncio.sleep(PAUSE)
                        continue
                    group.create_task(self._receive(sock, address[0]), name=f"caller {address[0]}")
        finally:
            self.close()

    def close(self) -> None:
        """Frees the port. May be repeated."""
        self._listener.close()

    @contextmanager
    def expect(self, copy: Copy, ticket: str) -> Iterator["asyncio.Future[Caller]"]:
        """Lets the source of that copy in, once; the future holds the connection. When the body fails nobody keeps it open."""
        expected = self._expected[copy] = Expected(ticket)
        news, self._news = self._news, asyncio.Event()
        news.set()
        try:
            yield expected.came
        except BaseException:
            if expected.came.done() and not expected.came.cancelled():
                expected.came.result().sock.close()
            raise
        finally:
            del self._expected[copy]
            expected.came.cancel()

    async def _receive(self, sock: socket.socket, address: str) -> None:
        """One stranger, until it is turned away or handed over."""
        handed_over = False
        try:
            tune(sock, self._silence)
            handed_over = await self._admit(sock)
        except (AgentError, OSError, TimeoutError) as error:
            log.warning("data channel: caller %s turned away: %s", address, str(error) or "no hello in time")
        finally:
            self._strangers.release()
            if not handed_over:
                sock.close()

    async def _admit(self, sock: socket.socket) -> bool:
        async with asyncio.timeout(self._hello):
            hello = await receive_message(sock, timeout=self._hello, most=MAX_HELLO)
            if not isinstance(hello, Hello):
                raise MoveFailed(f"{hello.kind} instead of hello")
            expected = await self._wait_expected(Copy(hello.namespace, hello.name, hello.uid, hello.epoch))
        if not hmac.compare_digest(expected.ticket.encode(), hello.ticket.encode()):
            raise MoveFailed(f"wrong ticket for job {hello.namespace}/{hello.name} epoch {hello.epoch}")
        if expected.came.done():
            await send_message(sock, Refused(reason="this move has its connection already"), timeout=self._hello)
            return False
        expected.came.set_result(Caller(sock, hello))
        return True

    async def _wait_expected(self, copy: Copy) -> Expected:
        """The source may be faster than our own placement."""
        while copy not in self._expected:
            await self._news.wait()
        return self._expected[copy]
