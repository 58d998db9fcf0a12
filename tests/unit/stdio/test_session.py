"""What mx-stdio does for clients that come, go, lag behind and misbehave."""

from collections.abc import Callable

import pytest

from nodeagent.stdio import frames
from nodeagent.stdio.client import Client, Event, Missed, Printed, Renewed
from nodeagent.stdio.frames import BadFrame, frame
from nodeagent.stdio.session import MOST_CLIENTS, Connection, Session
from tests.unit.stdio.test_no_byte_is_lost import Screen

RING = 100


class Line:
    """A client that is connected without delay."""

    def __init__(self, session: Session, client: Client) -> None:
        self.session, self.client = session, client
        self.connection = Connection()
        self.client.begin()

    def exchange(self, *, show: bool = True) -> list[Event]:
        events: list[Event] = []
        for _ in range(5):
            self.session.receive(self.connection, self.client.outgoing())
            self.session.fill(self.connection)
            found = self.client.receive(bytes(self.connection.outgoing))
            self.connection.outgoing.clear()
            for event in found:
                if isinstance(event, Printed) and show:
                    self.client.shown(event.stream, len(event.data))
            events += found
        return events


def text(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Printed))


@pytest.fixture
def session() -> Session:
    return Session(Screen(), b"p" * 16, 0.0, ring=RING)


def test_output_never_waits_when_nobody_is_attached(session: Session) -> None:
    for _ in range(10):
        assert session.room(1, 0.0) == RING
        session.printed(1, b"x" * RING)


def test_output_waits_for_the_first_client_if_told_so_but_not_for_ever() -> None:
    session = Session(Screen(), b"p" * 16, 0.0, hold=True, ring=RING)
    session.printed(1, b"x" * RING)
    assert session.room(1, 1.0) == 0
    assert session.deadline(1.0) == frames.GRACE
    assert session.room(1, frames.GRACE) == RING


def test_the_first_client_sees_what_was_printed_before_it_came() -> None:
    session = Session(Screen(), b"p" * 16, 0.0, hold=True, ring=RING)
    session.printed(1, b"prompt")
    session.ended(4)
    assert not session.finished(1.0)
    assert text(Line(session, Client()).exchange()) == b"prompt"


def test_output_waits_for_the_slowest_of_all_that_are_attached(session: Session) -> None:
    quick, slow = Line(session, Client()), Line(session, Client())
    session.printed(1, b"x" * 60)
    quick.exchange()
    slow.exchange(show=False)
    assert session.room(1, 0.0) == 40
    slow.client.shown(1, 60)
    slow.exchange()
    assert session.room(1, 0.0) == RING


def test_output_waits_for_a_lost_client_for_a_while_and_the_rest_is_told_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "SLACK", 0)
    session = Session(Screen(), b"p" * 16, 0.0, ring=RING)
    client = Client()
    line = Line(session, client)
    line.exchange()
    session.lost(line.connection, 10.0)
    session.printed(1, b"a" * RING)
    assert session.room(1, 11.0) == 0
    assert session.room(1, 10.0 + frames.GRACE) == RING
    session.printed(1, b"b" * 30)
    events = Line(session, client).exchange()
    assert Missed(1, 30) in events
    assert text(events) == b"a" * 70 + b"b" * 30


def test_who_looks_on_sees_only_what_comes_from_now_on(session: Session) -> None:
    session.printed(1, b"old")
    line = Line(session, Client(live=True))
    assert line.exchange() == []
    session.printed(1, b"new")
    assert text(line.exchange()) == b"new"


def test_input_of_several_comes_whole_from_each(session: Session) -> None:
    lines = [Line(session, Client()) for _ in range(2)]
    for line, word in zip(lines, (b"one\n", b"two\n"), strict=True):
        line.client.feed(word)
        line.exchange()
    taken = b""
    while data := session.input():
        taken += data
        session.took(len(data))
    assert taken == b"one\ntwo\n"


def test_another_run_of_the_program_is_noticed() -> None:
    client = Client()
    first = Session(Screen(), b"1" * 16, 0.0, ring=RING)
    first.printed(1, b"first")
    assert text(Line(first, client).exchange()) == b"first"
    client.feed(b"typed")
    second = Session(Screen(), b"2" * 16, 0.0, ring=RING)
    second.printed(1, b"second")
    line = Line(second, client)
    events = line.exchange()
    assert Renewed() in events
    assert second.input() == b"typed", "what nobody took goes to whoever runs now"


@pytest.mark.parametrize(
    "data",
    [
        frame(frames.DATA, 0, 0, b"x"),
        b"GET / HTTP/1.1\r\n\r\n",
        frame(frames.HELLO, payload=b"short"),
        frame(frames.HELLO, payload=frames.HELLO_BODY.pack(9, b"c" * 16, False, 0, 0, 0, 0)),
    ],
    ids=["no hello", "another protocol", "short hello", "another version"],
)
def test_strangers_are_turned_away(session: Session, data: bytes) -> None:
    with pytest.raises(BadFrame):
        session.receive(Connection(), data)


@pytest.mark.parametrize(
    "data",
    [
        frame(frames.DATA, 0, 5, b"x"),
        frame(frames.ACK, 1, 5),
        frame(frames.EXIT),
        *(frame(frames.DATA, 0, at * frames.CHUNK, bytes(frames.CHUNK)) for at in (100,)),
    ],
    ids=["a gap", "more than was sent", "not for clients", "beyond the window"],
)
def test_clients_that_break_the_rules_are_turned_away(session: Session, data: bytes) -> None:
    line = Line(session, Client())
    line.exchange()
    with pytest.raises(BadFrame):
        session.receive(line.connection, data)


def test_those_that_stay_away_are_forgotten_when_there_are_too_many(session: Session) -> None:
    for number in range(MOST_CLIENTS + 5):
        line = Line(session, Client())
        line.exchange()
        session.lost(line.connection, float(number))
    assert len(session.clients) == MOST_CLIENTS


def test_a_pause_is_heard_from_whoever_comes_for_it_only(session: Session) -> None:
    connection = Connection()
    session.receive(connection, frame(frames.PAUSE))
    assert connection.closed
    assert session.pause_wanted
    line = Line(session, Client())
    line.exchange()
    with pytest.raises(BadFrame):
        session.receive(line.connection, frame(frames.PAUSE))


@pytest.mark.parametrize("leave", [lambda line: line.client.bye(), lambda line: None], ids=["bye", "lost"])
def test_it_is_finished_when_nobody_is_to_be_waited_for(session: Session, leave: Callable[[Line], None]) -> None:
    line = Line(session, Client())
    line.exchange()
    session.ended(0)
    leave(line)
    line.exchange()
    session.lost(line.connection, 5.0)
    assert session.finished(5.0) == (not session.clients)
    assert session.finished(5.0 + frames.GRACE)


def test_there_is_room_for_input_as_soon_as_it_is_heard_that_some_was_taken(session: Session) -> None:
    line = Line(session, Client())
    line.exchange()
    line.client.feed(bytes(frames.WINDOW))
    assert line.client.room == 0
    line.exchange()
    session.took(len(session.input()))
    session.fill(line.connection)
    line.client.receive(bytes(line.connection.outgoing))
    assert line.client.room > 0, "before anything else is sent: who waits for room is woken once"
