"""The connection over which a job's memory follows it (post-copy): made by the agents before the freeze, used by criu alone.

It is a connection of its own, because it has to outlive both agents: once it stands its descriptors go to the criu at either end,
and nothing of ours is between them. The destination opens a port for one move and names it in its ``ready``; the caller says a word
first that only the two ends of the move can know. Then criu's own TLS begins, in which each end has to show the certificate of the
node that the order names. A stranger who got in would break the move before its commit, no more.
"""

import asyncio
import hashlib
import hmac
import logging
import socket
from types import TracebackType

from crds.placement import MoveOrder
from nodeagent.config import Config
from nodeagent.credentials import Files
from nodeagent.engine import PageWire, Tls
from nodeagent.errors import MoveFailed, PeerLost
from nodeagent.tcp import tune

log = logging.getLogger(__name__)

WORD = 64  # bytes
GREETING = 5.0  # seconds for a caller to say it


def word(order: MoveOrder) -> bytes:
    """Proves that the caller knows the ticket, without telling it."""
    return hmac.new(order.ticket.encode(), f"pages of {order.migration}".encode(), hashlib.sha256).hexdigest().encode()


def tls_of(config: Config, peer: str) -> Tls | None:
    """What criu proves the node with, and whom it wants to see."""
    if config.tls is None:
        return None
    files = Files.of_node(config.tls)
    return Tls(files.ca, files.certificate, files.key, peer)


class Door:
    """The destination's end, for one move. Use it as a context; what came through is closed with it."""

    def __init__(self, config: Config, order: MoveOrder) -> None:
        """Opens a port. OSError when there is none."""
        self._config, self._order = config, order
        self._listener = socket.create_server(("0.0.0.0", 0), backlog=4)
        self._listener.setblocking(False)
        self._came: socket.socket | None = None
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()
        if self._came is not None:
            self._came.close()

    async def wire(self) -> PageWire:
        """Waits for the source. The source connects before it freezes the job, so this costs nothing when the images are here."""
        while self._came is None:
            sock, (address, _) = await asyncio.get_running_loop().sock_accept(self._listener)
            if await self._may_enter(sock):
                self._came = sock
            else:
                log.warning("pages of %s: %s turned away, it did not know the word", self._order.migration, address)
                sock.close()
        tune(self._came, self._config.timing.answer)
        self._came.setblocking(True)
        return PageWire(self._came, tls_of(self._config, self._order.source))

    async def _may_enter(self, sock: socket.socket) -> bool:
        said = bytearray()
        try:
            async with asyncio.timeout(GREETING):
                while len(said) < WORD and (data := await asyncio.get_running_loop().sock_recv(sock, WORD - len(said))):
                    said += data
        except (OSError, TimeoutError) as error:
            log.info("pages of %s: a caller said nothing: %s", self._order.migration, error)
        return hmac.compare_digest(bytes(said), word(self._order))


async def reach(config: Config, order: MoveOrder, port: int) -> PageWire:
    """The source's end. MoveFailed when the destination offers none, PeerLost when it cannot be reached."""
    if not port:
        raise MoveFailed(f"node/{order.destination} cannot take jobs by post-copy")
    host = order.peer.rpartition(":")[0]
    loop, sock = asyncio.get_running_loop(), socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(config.timing.connect):
            await loop.sock_connect(sock, (host, port))
            await loop.sock_sendall(sock, word(order))
        tune(sock, config.timing.answer)
        sock.setblocking(True)
    except (OSError, TimeoutError) as error:
        sock.close()
        raise PeerLost(f"{host}:{port} cannot be reached for pages: {str(error) or 'no answer in time'}") from error
    except BaseException:
        sock.close()
        raise
    return PageWire(sock, tls_of(config, order.destination))
