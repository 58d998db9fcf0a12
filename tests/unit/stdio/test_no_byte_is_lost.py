"""Client and session over a link that is cut anywhere, while the program is moved: no byte is lost, doubled or out of order."""

import pickle
from dataclasses import dataclass
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.stdio import frames
from nodeagent.stdio.client import Client, Exited, Missed, Printed, Renewed
from nodeagent.stdio.session import Connection, Session

RING = 96
WINDOW = 64
CHUNK = 56


@dataclass
class Screen:
    """A program that only remembers what it was told."""

    size: tuple[int, int] = (0, 0)

    def resize(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)

    def redraw(self) -> None: ...

    def signal(self, number: int) -> None: ...


class World:
    """One program, one client, and what is under way between them."""

    def __init__(self) -> None:
        self.screen = Screen()
        self.session = Session(self.screen, b"p" * 16, 0.0, hold=True, ring=RING)
        self.client = Client(rows=10, columns=20, number=b"c" * 16)
        self.connection: Connection | None = None
        self.there, self.back = bytearray(), bytearray()
        self.printed = {1: b"", 2: b""}
        self.shown = {1: b"", 2: b""}
        self.waiting: list[Printed] = []
        self.typed, self.taken = b"", b""
        self.code: int | None = None
        self.connect()

    def _bytes(self, so_far: bytes, count: int) -> bytes:
        return bytes((len(so_far) + n) % 251 for n in range(count))

    # --- what may happen ---

    def print(self, stream: int, count: int) -> None:
        data = self._bytes(self.printed[stream], min(count, self.session.room(stream, 0.0)))
        self.printed[stream] += data
        self.session.printed(stream, data)

    def take(self, count: int) -> None:
        data = self.session.input()[:count]
        if data:
            self.taken += data
            self.session.took(len(data))

    def type(self, count: int) -> None:
        data = self._bytes(self.typed, min(count, self.client.room))
        self.typed += data
        self.client.feed(data)

    def connect(self) -> None:
        """Perhaps beside a connection that nobody noticed to be dead."""
        self.connection = Connection()
        self.there, self.back = bytearray(), bytearray()
        self.client.begin()

    def cut(self) -> None:
        """What is under way is lost."""
        if self.connection is not None:
            self.session.lost(self.connection, 0.0)
        self.connection = None

    def move(self) -> None:
        """The program is frozen, and goes on as it was somewhere else; nobody is connected then."""
        self.cut()
        self.session = pickle.loads(pickle.dumps(self.session))
        self.screen = self.session._program  # type: ignore[assignment]

    def pass_there(self, count: int) -> None:
        if self.connection is not None:
            self.there += self.client.outgoing()
            data, self.there = bytes(self.there[:count]), self.there[count:]
            self.session.receive(self.connection, data)

    def pass_back(self, count: int) -> None:
        if self.connection is not None:
            self.session.fill(self.connection)
            self.back += self.connection.outgoing
            self.connection.outgoing.clear()
            data, self.back = bytes(self.back[:count]), self.back[count:]
            for event in self.client.receive(data):
                assert not isinstance(event, Missed | Renewed), event
                if isinstance(event, Printed):
                    self.waiting.append(event)
                elif isinstance(event, Exited):
                    self.code = event.code

    def show(self) -> None:
        if self.waiting:
            event = self.waiting.pop(0)
            self.shown[event.stream] += event.data
            self.client.shown(event.stream, len(event.data))

    def settle(self) -> None:
        """Everything gets where it belongs."""
        self.cut()
        self.connect()
        for _ in range(400):
            self.pass_there(1000)
            self.take(1000)
            self.pass_back(1000)
            self.show()


ACTIONS = st.one_of(
    st.tuples(st.just("print"), st.sampled_from([1, 2]), st.integers(1, 40)),
    st.tuples(st.just("type"), st.integers(1, 40)),
    st.tuples(st.just("take"), st.integers(1, 40)),
    st.tuples(st.just("pass_there"), st.integers(1, 80)),
    st.tuples(st.just("pass_back"), st.integers(1, 80)),
    st.tuples(st.sampled_from(["show", "cut", "connect", "move"])),
)


@pytest.fixture(autouse=True, scope="module")
def small() -> object:
    with patch.object(frames, "WINDOW", WINDOW), patch.object(frames, "CHUNK", CHUNK):
        yield


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=120))
def test_no_byte_is_lost_or_doubled_wherever_the_link_is_cut(actions: list[tuple[object, ...]]) -> None:
    world = World()
    for name, *arguments in actions:
        getattr(world, str(name))(*arguments)
        assert all(world.printed[stream].startswith(world.shown[stream]) for stream in (1, 2))
        assert world.typed.startswith(world.taken)
    world.client.end_input()
    world.settle()
    assert world.shown == world.printed
    assert world.taken == world.typed
    assert world.session.input_ended
    assert world.screen.size == (10, 20)
    world.session.ended(3)
    world.settle()
    assert world.code == 3
    assert not world.session.finished(0.0), "it waits until we have said that we have all"
    world.client.bye()
    world.pass_there(1000)
    assert world.session.finished(0.0)
