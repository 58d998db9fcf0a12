"""What every data channel promises (nodeagent/channel.py); run on TCP, on TLS and on the one in memory.

A test class gets the fixture ``doors``: the exchanges of two nodes, n1 and n2, both serving.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from crds.organisations import ADMINS, NODES
from nodeagent.channel import Channel
from nodeagent.engine import Copy
from nodeagent.errors import AgentError, MoveFailed, PeerLost, Untrusted
from nodeagent.exchange import Exchange
from nodeagent.frames import Abort, End, FileSum, Hello, Open, Ready, Refused, Running

COPY = Copy("default", "w", "uid-w", 2)
PATIENCE = 10.0


@dataclass
class Doors:
    """Two nodes. ``proves``: whether anybody proves who it is."""

    n1: Exchange
    n2: Exchange
    proves: bool
    admin: Callable[[str, str], Awaitable[Channel]]
    """Dials (peer, node) as a person."""

    @property
    def address(self) -> str:
        """Of n2."""
        return f"127.0.0.1:{self.n2.port}"

    async def dial(self, *, node: str = "n2") -> Channel:
        return await self.n1.dial(self.address, node=node, timeout=PATIENCE)


def hello(**changes: object) -> Hello:
    fields = {"namespace": "default", "name": "w", "uid": "uid-w", "epoch": 2, "ticket": "right", "memory": 1, **changes}
    return Hello.model_validate(fields)


async def meet(doors: Doors) -> tuple[Channel, Channel]:
    """Both ends of a move's connection."""
    with doors.n2.expect(COPY, "right", "n1") as came:
        near = await doors.dial()
        await near.send(hello(), timeout=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            caller = await came
    assert caller.hello == hello()
    return near, caller.channel


def end_of(files: list[FileSum]) -> End:
    return End(files=files, last_pid=7, frozen_for=0.5, cpu_seconds=1.5, started_at=None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what happens in other threads and sockets tells nobody
            await asyncio.sleep(0.002)


class ChannelContract:
    """Inherited by one test class for each kind of channel."""

    async def test_both_ends_know_each_other(self, doors: Doors) -> None:
        near, far = await meet(doors)
        if doors.proves:
            assert (near.peer.name, near.peer.organisation) == ("n2", NODES)
            assert (far.peer.name, far.peer.organisation) == ("n1", NODES)
        else:
            assert not near.peer.proved and not far.peer.proved
        near.close()
        far.close()

    async def test_messages_arrive_in_order_both_ways_at_once(self, doors: Doors) -> None:
        near, far = await meet(doors)

        async def talk(channel: Channel) -> list[object]:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._say(channel))
                heard = group.create_task(self._hear(channel))
            return heard.result()

        one, other = await asyncio.gather(talk(near), talk(far))
        assert one == other == [Refused(reason=f"ü{i}" * 1000) for i in range(50)]
        near.close()
        far.close()

    @staticmethod
    async def _say(channel: Channel) -> None:
        for i in range(50):
            await channel.send(Refused(reason=f"ü{i}" * 1000), timeout=PATIENCE)

    @staticmethod
    async def _hear(channel: Channel) -> list[object]:
        return [await channel.receive(timeout=PATIENCE) for _ in range(50)]

    async def test_images_cross_while_they_grow(self, doors: Doors, tmp_path: Path) -> None:
        near, far = await meet(doors)
        here, there = tmp_path / "here", tmp_path / "there"
        here.mkdir()
        there.mkdir()
        piece = bytes(range(256)) * 1000
        (here / "pages-1.img").write_bytes(piece)
        outgoing, incoming = near.send_images(here), far.receive_images(there, most=1 << 30)
        sending, receiving = asyncio.create_task(outgoing.run()), asyncio.create_task(incoming.run())
        await until(lambda: incoming.bytes == len(piece))
        with (here / "pages-1.img").open("ab") as more:
            more.write(piece * 9)
        (here / "core-1.img").write_bytes(b"core")
        (here / "empty.img").write_bytes(b"")
        (here / "dump.log").write_text("not for others")
        outgoing.dumped()
        files = await sending
        await near.send(end_of(files), timeout=PATIENCE)
        assert await receiving == end_of(files)
        assert {path.name: path.read_bytes() for path in there.iterdir()} == {
            "pages-1.img": piece * 10,
            "core-1.img": b"core",
            "empty.img": b"",
        }
        assert outgoing.bytes == incoming.bytes == 10 * len(piece) + 4
        await far.send(Running(freeze_ms=1), timeout=PATIENCE)
        assert await near.receive(timeout=PATIENCE) == Running(freeze_ms=1)
        near.close()
        far.close()

    async def test_an_abort_may_follow_what_ended_early(self, doors: Doors, tmp_path: Path) -> None:
        near, far = await meet(doors)
        here, there = tmp_path / "here", tmp_path / "there"
        here.mkdir()
        there.mkdir()
        (here / "pages-1.img").write_bytes(b"x" * 100_000)
        outgoing, incoming = near.send_images(here), far.receive_images(there, most=1 << 30)
        sending, receiving = asyncio.create_task(outgoing.run()), asyncio.create_task(incoming.run())
        await until(lambda: incoming.bytes == 100_000)
        outgoing.end_early()
        with pytest.raises(PeerLost, match="stopped"):
            await sending
        await near.send(Abort(reason="dump failed"), timeout=PATIENCE)
        with pytest.raises(MoveFailed, match="dump failed"):
            await receiving
        near.close()
        far.close()

    @pytest.mark.parametrize("who", ["sender", "receiver"])
    async def test_a_cancelled_stream_loses_the_connection_for_both(self, doors: Doors, tmp_path: Path, who: str) -> None:
        near, far = await meet(doors)
        here, there = tmp_path / "here", tmp_path / "there"
        here.mkdir()
        there.mkdir()
        (here / "pages-1.img").write_bytes(b"x" * 100_000)
        incoming = far.receive_images(there, most=1 << 30)
        sending, receiving = asyncio.create_task(near.send_images(here).run()), asyncio.create_task(incoming.run())
        await until(lambda: incoming.bytes == 100_000)
        ended, other = (sending, receiving) if who == "sender" else (receiving, sending)
        ended.cancel()
        await asyncio.wait({ended}, timeout=PATIENCE)
        assert ended.cancelled()
        with (here / "pages-1.img").open("ab") as more:
            more.write(b"y" * 10_000_000)  # more than fits on the way
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(PeerLost):
                await other
        near.close()
        far.close()

    async def test_a_peer_that_closes_is_lost(self, doors: Doors) -> None:
        near, far = await meet(doors)
        far.close()
        with pytest.raises(PeerLost):
            await near.receive(timeout=PATIENCE)
        near.close()

    async def test_a_peer_that_says_nothing_is_lost_in_time(self, doors: Doors) -> None:
        near, far = await meet(doors)
        with pytest.raises(PeerLost, match="in time"):
            await near.receive(timeout=0.02)
        near.close()
        far.close()

    async def test_closing_wakes_who_waits(self, doors: Doors) -> None:
        near, far = await meet(doors)
        waiting = asyncio.create_task(near.receive(timeout=None))
        await asyncio.sleep(0.01)
        near.close()
        near.close()
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(PeerLost):
                await waiting
        far.close()

    async def test_nobody_there_is_lost(self, doors: Doors) -> None:
        doors.n2.close()
        with pytest.raises(PeerLost, match="cannot be reached"):
            await doors.dial()

    # --- who may come in, and what for ---

    @pytest.mark.parametrize(("changes", "expected"), [({"ticket": "wrong"}, "wrong ticket"), ({}, "has its connection already")])
    async def test_a_ticket_is_good_once(self, doors: Doors, changes: dict[str, str], expected: str) -> None:
        with doors.n2.expect(COPY, "right", "n1") as came:
            if not changes:
                first = await doors.dial()
                await first.send(hello(), timeout=PATIENCE)
                await asyncio.wait({came}, timeout=PATIENCE)
            near = await doors.dial()
            await near.send(hello(**changes), timeout=PATIENCE)
            answer = await near.receive(timeout=PATIENCE)
            assert isinstance(answer, Refused) and expected in answer.reason
            assert came.done() is not bool(changes)
            if came.done():
                came.result().channel.close()
        near.close()

    async def test_a_connection_for_something_else_goes_to_its_handler(self, doors: Doors) -> None:
        async def echo(channel: Channel, opening: Open) -> None:
            await channel.send(Refused(reason=str(opening.body["word"])), timeout=PATIENCE)
            while data := await channel.read(4096, timeout=PATIENCE):
                await channel.write(data.upper(), timeout=PATIENCE)

        doors.n2.register("echo", NODES, echo)
        near = await doors.dial()
        await near.send(Open(purpose="echo", body={"word": 7}), timeout=PATIENCE)
        assert await near.receive(timeout=PATIENCE) == Refused(reason="7")
        await near.write(b"abc" * 10_000, timeout=PATIENCE)
        heard = b""
        while len(heard) < 30_000:
            heard += await near.read(4096, timeout=PATIENCE)
        assert heard == b"ABC" * 10_000
        near.close()

    async def test_an_unknown_purpose_is_refused(self, doors: Doors) -> None:
        near = await doors.dial()
        await near.send(Open(purpose="nonsense"), timeout=PATIENCE)
        answer = await near.receive(timeout=PATIENCE)
        assert isinstance(answer, Refused) and "nonsense" in answer.reason
        near.close()

    async def test_a_purpose_is_for_one_organisation(self, doors: Doors) -> None:
        came = asyncio.Event()

        async def session(channel: Channel, opening: Open) -> None:
            await channel.send(Ready(), timeout=PATIENCE)
            came.set()

        doors.n2.register("session", ADMINS, session)
        person = await doors.admin(doors.address, "n2")
        await person.send(Open(purpose="session"), timeout=PATIENCE)
        assert await person.receive(timeout=PATIENCE) == Ready()
        person.close()
        near = await doors.dial()
        await near.send(Open(purpose="session"), timeout=PATIENCE)
        answer = await near.receive(timeout=PATIENCE)
        assert isinstance(answer, Refused if doors.proves else Ready)
        near.close()

    async def test_a_handler_that_fails_ends_its_connection_only(self, doors: Doors) -> None:
        async def broken(channel: Channel, opening: Open) -> None:
            raise AgentError("no")

        doors.n2.register("broken", NODES, broken)
        near = await doors.dial()
        await near.send(Open(purpose="broken"), timeout=PATIENCE)
        assert await near.read(1, timeout=PATIENCE) == b""
        near.close()
        for channel in await meet(doors):
            channel.close()


class ProvingContract(ChannelContract):
    """For channels on which both ends prove who they are."""

    async def test_only_the_orders_source_is_let_in(self, doors: Doors) -> None:
        with doors.n2.expect(COPY, "right", "n3") as came:
            near = await doors.dial()
            await near.send(hello(), timeout=PATIENCE)
            answer = await near.receive(timeout=PATIENCE)
            assert isinstance(answer, Refused) and "to come from node n3" in answer.reason and "n1" in answer.reason
            assert not came.done()
        near.close()

    async def test_a_node_that_is_another_is_not_spoken_to(self, doors: Doors) -> None:
        with pytest.raises(Untrusted, match="node n3 was expected"):
            await doors.dial(node="n3")
