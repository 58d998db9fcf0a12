"""The data channel's door: lets callers in, hears what they come for, and hands each connection to whom it is for.

The first message says the kind of the connection: ``Hello`` is a move, for the arrival that waits for it with the same ticket;
``Open`` is anything else, for the handler that was registered for its purpose. A connection is good for one of them. A stranger
gets little: few at once, a small first message, a few seconds. How connections are made is the matter of a subclass: tcp.py, and
one in memory for tests.
"""

import asyncio
import hmac
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import ValidationError

from crds.organisations import NODES
from nodeagent.channel import Channel, Peer
from nodeagent.engine import Copy
from nodeagent.errors import AgentError, MoveFailed, PeerLost, Untrusted
from nodeagent.frames import MAX_HELLO, Hello, Message, Open, Refused

log = logging.getLogger(__name__)

MOST_STRANGERS = 32  # connections that have not said what they want yet

Handler = Callable[[Channel, Open], Awaitable[None]]
"""Has the channel until it returns; then it is closed. AgentError and OSError are logged as the end of the connection."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A source that showed the right ticket; the channel is the arrival's from now on."""

    channel: Channel
    hello: Hello


@dataclass(slots=True)
class Expected:
    """An arrival that waits for its source."""

    ticket: str
    source: str
    came: "asyncio.Future[Caller]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class _Kind:
    organisation: str
    handler: Handler


class Exchange(ABC):
    """What all data channels have in common. ``hello``: seconds in which a caller must have said what it wants."""

    port: int

    def __init__(self, *, hello: float) -> None:
        self._hello = hello
        self.is_revoked: Callable[[str], bool] = lambda serial: False
        """Whether the certificate of this number is believed no more."""
        self._kinds: dict[str, _Kind] = {}
        self._expected: dict[Copy, Expected] = {}
        self._news = asyncio.Event()
        self._strangers = asyncio.Semaphore(MOST_STRANGERS)

    @abstractmethod
    async def serve(self) -> None:
        """Lets callers in until cancelled."""

    @abstractmethod
    async def dial(self, peer: str, *, node: str, timeout: float) -> Channel:
        """A channel to the agent at ``peer`` (host:port), which must be that of ``node``. PeerLost, Untrusted."""

    @abstractmethod
    def close(self) -> None:
        """Frees the port. May be repeated."""

    def register(self, purpose: str, organisation: str, handler: Handler) -> None:
        """Connections opened for ``purpose`` by one of ``organisation`` go to ``handler``."""
        assert purpose not in self._kinds, f"purpose {purpose} is registered twice"
        self._kinds[purpose] = _Kind(organisation, handler)

    @contextmanager
    def expect(self, copy: Copy, ticket: str, source: str) -> Iterator["asyncio.Future[Caller]"]:
        """Lets the node ``source`` in with that copy, once; the future holds the connection. If the body fails it is closed."""
        expected = self._expected[copy] = Expected(ticket, source)
        news, self._news = self._news, asyncio.Event()
        news.set()
        try:
            yield expected.came
        except BaseException:
            if expected.came.done() and not expected.came.cancelled():
                expected.came.result().channel.close()
            raise
        finally:
            del self._expected[copy]
            expected.came.cancel()

    async def welcome(self, connect: Callable[[], Awaitable[Channel]], address: str) -> None:
        """One caller, from its connection to its end or its handing over. The caller of this holds one of ``_strangers``."""
        channel: Channel | None = None
        stranger, handed_over = True, False
        try:
            async with asyncio.timeout(self._hello):
                channel = await connect()
                first = await self._hear(channel)
            if isinstance(first, Open):
                handler = await self._find(channel, first)
                self._strangers.release()
                stranger = False
                await handler(channel, first)
            else:
                handed_over = await self._admit(channel, first)
        except (AgentError, OSError, TimeoutError, ValidationError) as error:
            who = channel.peer if channel else "caller"
            log.warning("data channel: %s at %s turned away: %s", who, address, str(error) or "no hello in time")
        finally:
            if stranger:
                self._strangers.release()
            if channel is not None and not handed_over:
                channel.close()

    async def _hear(self, channel: Channel) -> Message:
        if self.is_revoked(channel.peer.serial):
            raise await self._refuse(channel, revoked(channel.peer))
        try:
            return await channel.receive(timeout=self._hello, most=MAX_HELLO)
        except Untrusted as error:  # one of us speaks TLS and the other does not: any answer tells it
            raise await self._refuse(channel, str(error)) from error

    async def _find(self, channel: Channel, first: Open) -> Handler:
        kind = self._kinds.get(first.purpose)
        if kind is None:
            raise await self._refuse(channel, f"connections for {first.purpose!r} are not known to this agent")
        if not channel.peer.may_be(kind.organisation):
            raise await self._refuse(channel, f"{first.purpose} is for {kind.organisation}, the certificate says {channel.peer}")
        return kind.handler

    async def _admit(self, channel: Channel, hello: object) -> bool:
        if not isinstance(hello, Hello):
            raise MoveFailed(f"{getattr(hello, 'kind', hello)} instead of hello")
        if not channel.peer.may_be(NODES):
            raise await self._refuse(channel, f"only nodes send jobs, the certificate says {channel.peer}")
        async with asyncio.timeout(self._hello):
            expected = await self._wait_expected(Copy(hello.namespace, hello.name, hello.uid, hello.epoch))
        if not channel.peer.may_be(NODES, expected.source):
            raise await self._refuse(
                channel, f"the job is to come from node {expected.source}, the certificate says {channel.peer}"
            )
        if not hmac.compare_digest(expected.ticket.encode(), hello.ticket.encode()):
            raise await self._refuse(channel, f"wrong ticket for job {hello.namespace}/{hello.name} epoch {hello.epoch}")
        if expected.came.done():
            raise await self._refuse(channel, "this move has its connection already")
        expected.came.set_result(Caller(channel, hello))
        return True

    async def _refuse(self, channel: Channel, reason: str) -> AgentError:
        """Tells the caller, as well as that goes; returns what is to be raised here."""
        try:
            await channel.send(Refused(reason=reason), timeout=self._hello)
        except PeerLost as lost:
            log.info("data channel: the caller was not told: %s", lost)
        return Untrusted(reason)

    async def _wait_expected(self, copy: Copy) -> Expected:
        """The source may be faster than our own placement."""
        while copy not in self._expected:
            await self._news.wait()
        return self._expected[copy]


def revoked(peer: Peer) -> str:
    """To whom it concerns."""
    return f"certificate {peer.serial} of {peer} was revoked: the node has to join again"
