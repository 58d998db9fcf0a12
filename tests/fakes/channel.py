"""Data channels in memory: no sockets, no threads, no clock but the event loop's. Passes tests/channel_contract.py.

One ``MemoryNetwork`` holds all nodes of a test:

    network = MemoryNetwork()
    Agent(config, …, network=network.exchange)      # config.node says who it is; config.port 0 takes the next free one
    network.exchange_for("n1", 7950)                # the same by hand
    network.admin("alice")                          # a person's dialer
    network.links                                   # every connection that was ever made, oldest first: cut(), hold(), release()
    network.forbid("n1", "n2"), network.allow(…)    # new connections between two nodes, in both directions, fail

A ``Link`` that is held passes nothing on in either direction until it is released; one that is cut is lost for both ends at once.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crds.organisations import ADMINS, NODES
from nodeagent.channel import Channel, Peer
from nodeagent.config import Config
from nodeagent.errors import AgentError, MoveFailed, PeerLost, Untrusted
from nodeagent.exchange import Exchange
from nodeagent.frames import DATA, HEADER, KNOWN, MAX_MESSAGE, MESSAGE, End, FileSum, Message, decode, encode, parse_header
from nodeagent.stream import POLL, Inbox, Outbox

if TYPE_CHECKING:
    from tests.fakes.pages import MemoryDoor, MemoryWire

ROOM = 1 << 18  # bytes under way in one direction before the sender has to wait


class Pipe:
    """One direction of a link."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._changed = asyncio.Condition()
        self.held = False
        self.ended = False
        """Nothing more comes; what is there can still be read."""
        self.lost = ""
        """Why nothing at all passes any more."""
        self.passed = 0
        """Bytes that were written, ever."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            await self._until(lambda: bool(self.lost) or self.ended or len(self._data) < ROOM)
            if self.lost or self.ended:
                raise PeerLost(f"data channel: {self.lost or 'the peer closed the connection'}")
            taken = view[: ROOM - len(self._data)]
            self._data += taken
            self.passed += len(taken)
            view = view[len(taken) :]
            await self.tell()

    async def read(self, most: int) -> bytes:
        await self._until(lambda: bool(self.lost) or (not self.held and (self.ended or bool(self._data))))
        if self.lost:
            raise PeerLost(f"data channel: {self.lost}")
        data = bytes(self._data[:most])
        del self._data[:most]
        await self.tell()
        return data

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def change(self) -> None:
        """After one of the fields was set by hand."""
        asyncio.get_running_loop().create_task(self.tell())


@dataclass
class Link:
    """One connection."""

    caller: str
    callee: str
    there: Pipe = field(default_factory=Pipe)
    """From caller to callee."""
    back: Pipe = field(default_factory=Pipe)

    def _set(self, **values: object) -> None:
        for pipe in (self.there, self.back):
            for name, value in values.items():
                setattr(pipe, name, value)
            pipe.change()

    def cut(self, why: str = "the connection was cut") -> None:
        self._set(lost=why)

    def hold(self) -> None:
        self._set(held=True)

    def release(self) -> None:
        self._set(held=False)


class MemoryChannel:
    """One end of a link (see ``channel.Channel``)."""

    def __init__(self, peer: Peer, out: Pipe, into: Pipe, silence: float, poll: float) -> None:
        self.peer = peer
        self.poll = poll
        self._out, self._into = out, into
        self._silence = silence
        self._closed = False

    async def send(self, message: Message, *, timeout: float) -> None:
        await self.write(encode(message), timeout=timeout)

    async def receive(self, *, timeout: float | None, most: int = MAX_MESSAGE) -> Message:
        try:
            async with asyncio.timeout(timeout):
                kind, _, length = parse_header(await self.exactly(HEADER.size), most)
                payload = await self.exactly(length)
        except TimeoutError as error:
            raise PeerLost("data channel: no message came: no answer in time") from error
        if kind != MESSAGE:
            raise MoveFailed("data channel: image data where a message was expected")
        return decode(payload)

    async def write(self, data: bytes | bytearray | memoryview, *, timeout: float) -> None:
        self._check()
        try:
            async with asyncio.timeout(timeout):
                await self._out.write(data)
        except TimeoutError as error:
            raise PeerLost("data channel: was not sent: no answer in time") from error

    async def read(self, most: int, *, timeout: float | None) -> bytes:
        self._check()
        try:
            async with asyncio.timeout(timeout):
                return await self._into.read(most)
        except TimeoutError as error:
            raise PeerLost("data channel: nothing came: no answer in time") from error

    async def exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = await self.read(length - len(data), timeout=None)
            if not more:
                raise PeerLost("data channel: no message came: the peer closed the connection")
            data += more
        return data

    def send_images(self, images: Path) -> "MemorySender":
        return MemorySender(self, images, self._silence)

    def receive_images(self, images: Path, *, most: int) -> "MemoryReceiver":
        return MemoryReceiver(self, images, most)

    def close(self) -> None:
        self._closed = True
        for pipe in (self._out, self._into):
            pipe.ended = True
            pipe.change()

    def _check(self) -> None:
        if self._closed:
            raise PeerLost("data channel: the connection was closed here")


class MemorySender:
    """``channel.Outgoing`` on the event loop."""

    def __init__(self, channel: MemoryChannel, images: Path, silence: float) -> None:
        self._channel = channel
        self._outbox = Outbox(images)
        self._silence = silence
        self._dumped = asyncio.Event()
        self._stopped = False

    @property
    def bytes(self) -> int:
        return self._outbox.bytes

    def on_dump(self, call: Callable[[], None]) -> None:
        self._outbox.dump_began = call

    async def compare(self) -> None:
        self._outbox.compare()

    def dumped(self) -> None:
        self._dumped.set()

    def end_early(self) -> None:
        self._stopped = True
        self._dumped.set()

    async def run(self) -> list[FileSum]:
        try:
            while not self._dumped.is_set():
                await self._send(self._outbox.growing())
                await asyncio.sleep(self._channel.poll)
            self._check()
            await self._send(self._outbox.rest())
        except asyncio.CancelledError:
            self._channel.close()
            raise
        finally:
            self._outbox.close()
        return self._outbox.sums()

    async def _send(self, frames: Iterator[memoryview]) -> None:
        for frame in frames:
            self._check()
            await self._channel.write(frame, timeout=self._silence)

    def _check(self) -> None:
        if self._stopped:
            raise PeerLost("data channel: sending was stopped")


class MemoryReceiver:
    """``channel.Incoming`` on the event loop."""

    def __init__(self, channel: MemoryChannel, images: Path, most: int) -> None:
        self._channel = channel
        self._images = images
        self._inbox = Inbox(images, most=most)

    @property
    def bytes(self) -> int:
        return self._inbox.bytes

    def on_dump(self, call: Callable[[], None]) -> None:
        self._inbox.dump_began = call

    async def run(self) -> End:
        try:
            while (end := await self._frame()) is None:
                pass
        except OSError as error:
            raise MoveFailed(f"{self._images}: images cannot be kept here: {error}") from error
        except asyncio.CancelledError:
            self._channel.close()
            raise
        finally:
            self._inbox.close()
        return end

    async def _frame(self) -> End | None:
        kind, number, length = parse_header(await self._channel.exactly(HEADER.size), MAX_MESSAGE)
        if kind == DATA:
            self._inbox.allow(number, length)
            self._inbox.keep(number, memoryview(await self._channel.exactly(length)))
            return None
        payload = await self._channel.exactly(length)
        if kind == KNOWN:
            self._inbox.copy(number, payload)
            return None
        return self._inbox.take(decode(payload))


class MemoryNetwork:
    """All exchanges of a test, by "host:port"; every node's host is 127.0.0.1."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.poll = POLL
        """Seconds between two looks for more images while a dump goes on; time that is not real may take larger steps."""
        self.doors: dict[int, MemoryDoor] = {}
        """By port: who waits for memory that is to follow a job (fakes/pages.py)."""
        self.wires: list[MemoryWire] = []
        """Every connection that was ever made for that, oldest first."""
        self._doors: dict[str, MemoryExchange] = {}
        self._ports = itertools.count(20_000)
        self._forbidden: set[frozenset[str]] = set()

    def exchange(self, config: Config) -> Exchange:
        """What an agent is given as its ``network``."""
        return self.exchange_for(config.node, config.port, hello=config.timing.hello, silence=config.timing.answer)

    def exchange_for(self, node: str, port: int = 0, *, hello: float = 5, silence: float = 5) -> "MemoryExchange":
        port = port or self.next_port()
        address = f"127.0.0.1:{port}"
        if address in self._doors:
            raise AgentError(f"data channel: {address} cannot be opened: address in use: choose another --port")
        door = self._doors[address] = MemoryExchange(self, Peer(node, NODES, proved=True), port, hello, silence)
        return door

    def admin(self, name: str = "admin") -> "MemoryExchange":
        """Somebody who calls and cannot be called."""
        return MemoryExchange(self, Peer(name, ADMINS, proved=True), 0, 5, 5)

    def next_port(self) -> int:
        return next(self._ports)

    def allowed(self, one: str, other: str) -> bool:
        """Whether new connections between the two may be made."""
        return frozenset((one, other)) not in self._forbidden

    def forbid(self, one: str, other: str) -> None:
        self._forbidden.add(frozenset((one, other)))

    def allow(self, one: str, other: str) -> None:
        self._forbidden.discard(frozenset((one, other)))

    def mend(self) -> None:
        """Everybody may reach everybody, and nothing is held."""
        self._forbidden.clear()
        for each in (*self.links, *self.wires):
            each.release()

    def forget(self, door: "MemoryExchange") -> None:
        self._doors.pop(f"127.0.0.1:{door.port}", None)

    def connect(self, caller: "MemoryExchange", peer: str, node: str) -> MemoryChannel:
        door = self._doors.get(peer)
        if door is None or not door.open or not self.allowed(caller.me.name, door.me.name):
            raise PeerLost(f"{peer} cannot be reached: connection refused")
        link = Link(caller.me.name, door.me.name)
        self.links.append(link)
        if not door.me.may_be(NODES, node):
            raise Untrusted(f"node {node} was expected at {peer}, its certificate says {door.me}: check the nodes' addresses")
        door.arrived.put_nowait((MemoryChannel(caller.me, link.back, link.there, door.silence, self.poll), caller.me.name))
        return MemoryChannel(door.me, link.there, link.back, caller.silence, self.poll)


class MemoryExchange(Exchange):
    """One node's door in the network."""

    def __init__(self, network: MemoryNetwork, me: Peer, port: int, hello: float, silence: float) -> None:
        super().__init__(hello=hello)
        self.me = me
        self.port = port
        self.silence = silence
        self.open = True
        self.arrived: asyncio.Queue[tuple[MemoryChannel, str]] = asyncio.Queue()
        self._network = network

    async def serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._strangers.acquire()
                    channel, name = await self.arrived.get()
                    group.create_task(self.welcome(self._given(channel), name), name=f"caller {name}")
        finally:
            self.close()

    def _given(self, channel: MemoryChannel) -> Callable[[], Awaitable[Channel]]:
        async def connect() -> Channel:
            return channel

        return connect

    async def dial(self, peer: str, *, node: str, timeout: float) -> Channel:
        await asyncio.sleep(0)
        return self._network.connect(self, peer, node)

    def close(self) -> None:
        self.open = False
        self._network.forget(self)
        while not self.arrived.empty():
            self.arrived.get_nowait()[0].close()
