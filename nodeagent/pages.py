"""The connection over which a job's memory follows it (post-copy): made by the agents before the freeze, used by criu.

It is a connection of its own, because it has to outlive both agents: once it stands its descriptors go to the criu at either end,
and nothing of the agents is between them. The destination opens a port for one move and names it in its ``ready``; the caller says
a word first that only the two ends of the move can know. With TLS a relay at either end (relay.py) then proves the nodes to each
other and encrypts; it lives as long as the connection. A stranger who got in would break the move before its freeze, no more.
"""

import asyncio
import hashlib
import hmac
import logging
import socket
from types import TracebackType
from typing import Protocol, Self

from crds.organisations import NODES
from crds.placement import MoveOrder
from nodeagent import criu, shimlink
from nodeagent.config import Config
from nodeagent.credentials import Files
from nodeagent.errors import MoveFailed, PeerLost
from nodeagent.tcp import tune

log = logging.getLogger(__name__)

WORD = 64  # bytes
GREETING = 5.0  # seconds for a caller to say it
RELAY_SECONDS = 15.0  # for its start and its handshake


def word(order: MoveOrder) -> bytes:
    """Proves that the caller knows the ticket, without telling it."""
    return hmac.new(order.ticket.encode(), f"pages of {order.migration}".encode(), hashlib.sha256).hexdigest().encode()


class Entrance(Protocol):
    """The destination's end, for one move. Use it as a context; what came through is closed with it."""

    port: int

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    async def wire(self) -> socket.socket:
        """The source's connection, once it is there."""
        ...


class Pages(Protocol):
    """How these connections are made; tests have one between nodes that are none."""

    def door(self, order: MoveOrder) -> Entrance:
        """OSError when there is no port."""
        ...

    async def reach(self, order: MoveOrder, port: int) -> socket.socket:
        """The source's end. MoveFailed when the destination offers none, PeerLost when it cannot be reached or proved."""
        ...


class TcpPages:
    """As it is in production."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def door(self, order: MoveOrder) -> "Door":
        return Door(self._config, order)

    async def reach(self, order: MoveOrder, port: int) -> socket.socket:
        return await reach(self._config, order, port)


class Door:
    """The destination's end, for one move. Use it as a context; what came through is closed with it."""

    def __init__(self, config: Config, order: MoveOrder) -> None:
        """Opens a port. OSError when there is none."""
        self._config, self._order = config, order
        self._listener = socket.create_server(("0.0.0.0", 0), backlog=4)
        self._listener.setblocking(False)
        self._opened: asyncio.Task[socket.socket] | None = None
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._opened = asyncio.create_task(self._open(), name=f"pages of {self._order.migration}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()
        task = self._opened
        if task is not None and not task.cancel() and not task.cancelled() and task.exception() is None:
            task.result().close()

    async def wire(self) -> socket.socket:
        """The source's connection, for criu. The source makes it before it freezes the job, so this costs nothing in the freeze."""
        assert self._opened is not None, "a door has to be entered"
        return await self._opened

    async def _open(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        while True:
            sock, (address, _) = await loop.sock_accept(self._listener)
            try:
                if await self._may_enter(sock):
                    return await _secured(self._config, sock, "server", self._order.source)
            except BaseException:
                sock.close()
                raise
            log.warning("pages of %s: %s turned away, it did not know the word", self._order.migration, address)
            sock.close()

    async def _may_enter(self, sock: socket.socket) -> bool:
        said = bytearray()
        try:
            async with asyncio.timeout(GREETING):
                while len(said) < WORD and (data := await asyncio.get_running_loop().sock_recv(sock, WORD - len(said))):
                    said += data
        except (OSError, TimeoutError) as error:
            log.info("pages of %s: a caller said nothing: %s", self._order.migration, error)
        return hmac.compare_digest(bytes(said), word(self._order))


async def reach(config: Config, order: MoveOrder, port: int) -> socket.socket:
    """The source's end, for criu. MoveFailed when the destination offers none, PeerLost when it cannot be reached or proved."""
    if not port:
        raise MoveFailed(f"node/{order.destination} cannot take jobs by post-copy")
    host = order.peer.rpartition(":")[0]
    loop, sock = asyncio.get_running_loop(), socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(config.timing.connect):
            await loop.sock_connect(sock, (host, port))
            await loop.sock_sendall(sock, word(order))
        return await _secured(config, sock, "client", order.destination)
    except (OSError, TimeoutError) as error:
        sock.close()
        raise PeerLost(f"{host}:{port} cannot be reached for pages: {str(error) or 'no answer in time'}") from error
    except BaseException:
        sock.close()
        raise


async def _secured(config: Config, sock: socket.socket, role: str, peer: str) -> socket.socket:
    """What criu is to use: the socket itself, or an end of a pair at whose other end a relay encrypts. PeerLost."""
    tune(sock, config.timing.pages)
    sock.setblocking(True)
    if config.tls is None:
        return sock
    files = Files.of_node(config.tls)
    ours, theirs = socket.socketpair()
    with sock, theirs:
        try:
            await _start_relay(config, sock, theirs, role, files, peer)
        except BaseException:
            ours.close()
            raise
    return ours


async def _start_relay(config: Config, wire: socket.socket, inner: socket.socket, role: str, files: Files, peer: str) -> None:
    """Returns when it stands; it lives on by itself."""
    process = await asyncio.create_subprocess_exec(
        *shimlink.program(config.run, "mx-relay"),
        *(role, str(wire.fileno()), str(inner.fileno())),
        *(str(files.ca), str(files.certificate), str(files.key), NODES, peer),
        pass_fds=(wire.fileno(), inner.fileno()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={"PATH": criu.PATH},
    )
    try:
        async with asyncio.timeout(RELAY_SECONDS):
            _, said = await process.communicate()
    except TimeoutError:
        raise PeerLost(f"pages: TLS with node/{peer}: no answer within {RELAY_SECONDS} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise PeerLost(said.decode(errors="replace").strip().partition("\n")[0] or f"pages: the relay to node/{peer} did not start")
