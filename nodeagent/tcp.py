"""The real data channel: TCP, with mutual TLS 1.3 unless the agent was told to do without.

The event loop drives a connection until images pass: then it is a blocking one for a thread (stream.py), never for two at once. So
one object of OpenSSL is never used from two sides, which it does not bear. A thread that is blocked is woken by shutting the socket
down below TLS.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from crds.organisations import NODES
from nodeagent.channel import Channel, Peer
from nodeagent.credentials import Credentials, explain, peer_of
from nodeagent.errors import AgentError, MoveFailed, PeerLost, Untrusted
from nodeagent.exchange import Exchange, revoked
from nodeagent.frames import HEADER, MAX_MESSAGE, MESSAGE, Message, decode, encode, parse_header
from nodeagent.stream import Receiver, Sender
from nodeagent.tlserrors import forget_errors

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds after a connection could not be accepted
PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST")
"""OpenSSL's reasons when a caller does not speak TLS; it sends no alert then."""
ALERT = b"\x15\x03\x03\x00\x02\x02\x46"
"""Fatal: protocol version."""
LAST_WORDS = 1.0  # seconds in which a caller that was turned away may read why
MOST_STREAMS = 64  # ends of moves at once

T = TypeVar("T")


class TcpChannel:
    """A connected socket, after its TLS handshake if there is TLS (see ``channel.Channel``). ``silence`` in seconds."""

    def __init__(self, sock: socket.socket, peer: Peer, streams: Executor, silence: float) -> None:
        self.peer = peer
        self._sock = sock
        self._driven = Driven(sock)
        self._streams = streams
        self._silence = silence

    async def send(self, message: Message, *, timeout: float) -> None:
        try:
            await self.write(encode(message), timeout=timeout)
        except PeerLost as error:
            raise PeerLost(f"data channel: {message.kind} was not sent: {error}") from error

    async def receive(self, *, timeout: float | None, most: int = MAX_MESSAGE) -> Message:
        try:
            async with asyncio.timeout(timeout):
                kind, _, length = parse_header(await self._exactly(HEADER.size), most)
                payload = await self._exactly(length)
        except ssl.SSLError as error:
            raise Untrusted(f"data channel: {explain(error)}") from error
        except (OSError, TimeoutError) as error:
            raise PeerLost(f"data channel: no message came: {str(error) or 'no answer in time'}") from error
        if kind != MESSAGE:
            raise MoveFailed("data channel: image data where a message was expected")
        return decode(payload)

    async def write(self, data: bytes | bytearray | memoryview, *, timeout: float) -> None:
        view = memoryview(data)
        try:
            async with asyncio.timeout(timeout):
                while view:
                    view = view[await self._driven.do(lambda rest=view: self._sock.send(rest), writes=True) :]  # type: ignore[misc]
        except (OSError, TimeoutError) as error:
            raise PeerLost(_words(error)) from error

    async def read(self, most: int, *, timeout: float | None) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await self._driven.do(lambda: self._sock.recv(most))
        except (OSError, TimeoutError) as error:
            raise PeerLost(f"data channel: nothing came: {_words(error)}") from error

    def send_images(self, images: Path) -> Sender:
        return Sender(self._sock, images, self._streams, self._driven.cut, silence=self._silence)

    def receive_images(self, images: Path, *, most: int) -> Receiver:
        return Receiver(self._sock, images, self._streams, self._driven.cut, most=most)

    def close(self) -> None:
        self._driven.close()

    async def _exactly(self, length: int) -> bytearray:
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            count = await self._driven.do(lambda rest=view: self._sock.recv_into(rest))  # type: ignore[misc]
            if count == 0:
                raise ConnectionError("the peer closed the connection")
            view = view[count:]
        return buffer


class Driven:
    """A socket that the event loop uses; ``sock`` may be one of TLS."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._waiting: set[asyncio.Future[None]] = set()

    async def do(self, work: Callable[[], T], *, writes: bool = False) -> T:
        """``work`` on the socket, as soon as it can be done. Raises what it raises, ConnectionError when the socket is closed."""
        self.sock.setblocking(False)
        while True:
            forget_errors()
            try:
                return work()
            except ssl.SSLWantReadError:
                await self._ready(writing=False)
            except ssl.SSLWantWriteError:
                await self._ready(writing=True)
            except BlockingIOError:
                await self._ready(writing=writes)

    def cut(self) -> None:
        """Ends both directions, also for a thread. Not by TLS's own shutdown: that would let the thread go on in plain text."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            return  # the peer was faster

    def close(self) -> None:
        """Wakes whoever waits for it. May be repeated."""
        self.cut()
        for ready in self._waiting:
            if not ready.done():
                ready.set_exception(ConnectionError(_CLOSED))
        loop, number = asyncio.get_running_loop(), self.sock.fileno()
        if number != -1:
            loop.remove_reader(number)
            loop.remove_writer(number)
        self.sock.close()

    async def _ready(self, *, writing: bool) -> None:
        loop, number = asyncio.get_running_loop(), self.sock.fileno()
        if number == -1:
            raise ConnectionError(_CLOSED)
        ready = loop.create_future()
        self._waiting.add(ready)
        (loop.add_writer if writing else loop.add_reader)(number, _wake, ready)
        try:
            await ready
        finally:
            self._waiting.discard(ready)
            if self.sock.fileno() == number:
                (loop.remove_writer if writing else loop.remove_reader)(number)


_CLOSED = "the connection was closed here"


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


class Dialer:
    """Makes channels. Without credentials plain TCP, and nobody proves anything. Times in seconds.

    ``is_revoked`` is asked for the number of the certificate of whom is called.
    """

    def __init__(
        self,
        credentials: Credentials | None,
        streams: Executor,
        *,
        silence: float,
        is_revoked: Callable[[str], bool] = lambda serial: False,
    ) -> None:
        self._credentials = credentials
        self._is_revoked = is_revoked
        self._streams = streams
        self._silence = silence

    async def dial(self, peer: str, *, organisation: str, node: str, timeout: float) -> TcpChannel:
        """To whom is at ``peer`` (host:port), if that is ``node`` of the organisation. PeerLost, Untrusted."""
        host, _, port = peer.rpartition(":")
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
                tune(sock, self._silence)
                channel = await self.secure(sock, server=False)
        except ssl.SSLError as error:
            sock.close()
            raise Untrusted(f"node {node} at {peer}: {explain(error)}") from error
        except (OSError, TimeoutError, ValueError, OverflowError) as error:
            sock.close()
            raise PeerLost(f"{peer} cannot be reached: {str(error) or 'no answer in time'}") from error
        except BaseException:
            sock.close()
            raise
        if not channel.peer.may_be(organisation, node):
            channel.close()
            raise Untrusted(f"node {node} was expected at {peer}, its certificate says {channel.peer}: check the nodes' addresses")
        if self._is_revoked(channel.peer.serial):
            channel.close()
            raise Untrusted(f"node {node} at {peer}: {revoked(channel.peer)}")
        return channel

    async def secure(self, sock: socket.socket, *, server: bool) -> TcpChannel:
        """The handshake, if there is to be one. Raises OSError, PeerLost; closes nothing."""
        if self._credentials is None:
            return TcpChannel(sock, Peer(), self._streams, self._silence)
        context = self._credentials.server() if server else self._credentials.client()
        wrapped = context.wrap_socket(sock, server_side=server, do_handshake_on_connect=False)
        try:
            await Driven(wrapped).do(wrapped.do_handshake)
        except ssl.SSLError as error:
            if server:
                await _let_read(wrapped, speaks_tls=error.reason not in PLAIN)
            wrapped.close()
            raise
        except BaseException:
            wrapped.close()
            raise
        return TcpChannel(wrapped, peer_of(wrapped.getpeercert() or {}), self._streams, self._silence)


async def _let_read(sock: ssl.SSLSocket, *, speaks_tls: bool) -> None:
    """Closing with something unread would take the alert from a caller that has not read it; so its words are heard to the end."""
    try:
        async with asyncio.timeout(LAST_WORDS):
            if not speaks_tls:
                await Driven(sock).do(lambda: socket.socket.send(sock, ALERT), writes=True)
            socket.socket.shutdown(sock, socket.SHUT_WR)
            while await Driven(sock).do(lambda: socket.socket.recv(sock, 4096)):
                pass
    except (OSError, TimeoutError):
        return  # it has hung up, or goes on talking


class TcpExchange(Exchange):
    """One listening socket, bound when made (AgentError). Times are seconds."""

    def __init__(self, host: str, port: int, *, hello: float, silence: float, credentials: Credentials | None = None) -> None:
        super().__init__(hello=hello)
        try:
            self._listener = socket.create_server((host, port), backlog=64)
        except OSError as error:
            raise AgentError(f"data channel: {host}:{port} cannot be opened: {error}: choose another --port") from error
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._silence = silence
        self._streams = ThreadPoolExecutor(MOST_STREAMS, thread_name_prefix="stream")
        self._dialer = Dialer(credentials, self._streams, silence=silence, is_revoked=lambda serial: self.is_revoked(serial))

    async def serve(self) -> None:
        """Accepts callers."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._strangers.acquire()
                    try:
                        sock, (address, _) = await loop.sock_accept(self._listener)
                    except OSError as error:  # out of file descriptors, most likely: the jobs must not suffer from that
                        log.error("data channel: no connection can be taken at the moment: %s", error)
                        self._strangers.release()
                        await asyncio.sleep(PAUSE)
                        continue
                    group.create_task(self._receive(sock, address), name=f"caller {address}")
        finally:
            self.close()

    async def dial(self, peer: str, *, node: str, timeout: float) -> Channel:
        return await self._dialer.dial(peer, organisation=NODES, node=node, timeout=timeout)

    def close(self) -> None:
        self._listener.close()
        self._streams.shutdown(wait=False, cancel_futures=True)

    async def _receive(self, sock: socket.socket, address: str) -> None:
        async def connect() -> Channel:
            tune(sock, self._silence)
            try:
                return await self._dialer.secure(sock, server=True)
            except ssl.SSLError as error:
                raise Untrusted(explain(error)) from error

        try:
            await self.welcome(connect, address)
        except BaseException:
            sock.close()
            raise


def tune(sock: socket.socket, silence: float) -> None:
    """No waiting for full packets; a peer that acknowledges nothing for ``silence`` seconds is given up."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(silence / 3)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(silence / 6)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence * 1000))


def _words(error: BaseException) -> str:
    return explain(error) if isinstance(error, ssl.SSLError) else str(error) or "no answer in time"
