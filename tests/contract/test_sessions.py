"""A session keeps its lease, and knows by its own clock when it has lost it."""

import asyncio

import pytest

from store.errors import Unavailable
from store.kv import Put
from store.lease import Session
from tests.contract.conftest import PATIENCE, Backend, eventually

TTL = 2.0


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_session_outlives_its_ttl_and_takes_its_keys_with_it(backend: Backend, prefix: str) -> None:
    async with Session(backend.kv, ttl=TTL) as session:
        first = session.deadline
        await backend.kv.txn([], [Put(prefix + "a", b"1", session.lease)])

        async def renewed() -> bool:
            return session.deadline > first + TTL

        await eventually(renewed)
        assert session.alive
        assert await backend.other.get(prefix + "a") is not None
    assert not session.alive
    assert session.lost.is_set()
    assert await backend.other.get(prefix + "a") is None


async def test_a_session_notices_that_its_lease_was_revoked(backend: Backend) -> None:
    async with Session(backend.kv, ttl=1.0) as session:
        await backend.other.revoke(session.lease)
        await asyncio.wait_for(session.lost.wait(), PATIENCE)
        assert not session.alive
        with pytest.raises(Unavailable, match="not held any more"):
            _ = session.lease


async def test_a_session_cut_off_counts_itself_lost_before_its_keys_vanish(backend: Backend, prefix: str) -> None:
    async with Session(backend.kv, ttl=TTL - 0.5) as session:  # the server rounds up: half a second to look before it acts
        await backend.kv.txn([], [Put(prefix + "a", b"1", session.lease)])
        await backend.stall()
        await asyncio.wait_for(session.lost.wait(), PATIENCE)
        assert await backend.other.get(prefix + "a") is not None
        await backend.pass_time(TTL)

        async def vanished() -> bool:
            return await backend.other.get(prefix + "a") is None

        await eventually(vanished)
        await backend.resume()


async def test_a_short_outage_does_no_harm(backend: Backend) -> None:
    async with Session(backend.kv, ttl=3.0) as session:
        first = session.deadline
        await backend.go_down()
        with pytest.raises(Unavailable):
            await backend.kv.keep_alive(session.lease)
        await backend.come_up()

        async def renewed() -> bool:
            return session.deadline > first

        await eventually(renewed)
        assert session.alive


async def test_a_renewal_counts_only_when_what_was_asked_for_holds(backend: Backend) -> None:
    """And the deadline is told with each that does."""
    told: list[float] = []
    holds = True

    async def verify() -> None:
        if not holds:
            raise Unavailable("the key is gone")

    async with Session(backend.kv, ttl=TTL) as session:
        first = session.deadline
        session.verify, session.renewed = verify, told.append

        async def renewed() -> bool:
            return bool(told)

        await eventually(renewed)
        assert first < told[-1] == session.deadline
        holds = False
        await asyncio.wait_for(session.lost.wait(), PATIENCE)
        assert told[-1] == session.deadline


async def test_a_session_that_slept_too_long_is_not_alive_at_once(backend: Backend) -> None:
    clock = Clock()
    async with Session(backend.kv, ttl=TTL, clock=clock) as session:
        clock.now += TTL - 0.01
        assert session.alive
        clock.now += 0.02
        assert not session.alive
        await asyncio.wait_for(session.lost.wait(), PATIENCE)
        clock.now -= 1.0
        assert not session.alive


async def test_a_session_cannot_begin_without_a_server(backend: Backend) -> None:
    await backend.go_down()
    with pytest.raises(Unavailable):
        async with Session(backend.kv, ttl=TTL):
            pass


async def test_a_session_ends_also_when_it_cannot_say_so(backend: Backend) -> None:
    async with Session(backend.kv, ttl=TTL) as session:
        await backend.go_down()
    assert not session.alive
