"""At most one leads, somebody always does in the end, and whoever is deposed writes nothing more."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from store.election import Election, leader
from store.errors import Fenced, Unavailable
from store.kv import Delete, Put, absent
from store.lease import Session
from tests.contract.conftest import PATIENCE, Backend

TTL = 2.0


async def test_the_second_candidate_waits_until_the_first_resigns(backend: Backend, prefix: str) -> None:
    key = prefix + "leader"
    async with Session(backend.kv) as one, Session(backend.other) as two:
        first, second = Election(one, "one", key=key), Election(two, "two", key=key)
        await first.campaign()
        campaign = asyncio.create_task(second.campaign())
        assert await leader(backend.kv, key) == "one"
        assert (first.leading, second.leading) == (True, False)
        with pytest.raises(Fenced):
            _ = second.token
        await first.resign()
        await asyncio.wait_for(campaign, PATIENCE)
        assert await leader(backend.kv, key) == "two"
        assert (first.leading, second.leading) == (False, True)
        with pytest.raises(Fenced):
            _ = first.token
        await second.resign()
        assert await leader(backend.kv, key) is None


async def test_of_many_candidates_one_leads_at_a_time(backend: Backend, prefix: str) -> None:
    key, led, leading = prefix + "leader", [], 0

    async def candidate(number: int) -> None:
        nonlocal leading
        async with Session(backend.kv) as session, Election(session, str(number), key=key) as election:
            leading += 1
            assert leading == 1
            assert (await backend.kv.txn([election.token], [Put(prefix + "last", str(number).encode())])).succeeded
            led.append(number)
            leading -= 1

    await asyncio.wait_for(asyncio.gather(*(candidate(number) for number in range(6))), PATIENCE)
    assert sorted(led) == list(range(6))


async def test_a_leader_cut_off_is_followed_and_cannot_write(backend: Backend, prefix: str) -> None:
    key = prefix + "leader"
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Session(backend.kv, ttl=TTL))
        two = await stack.enter_async_context(Session(backend.other, ttl=60))
        first, second = Election(one, "one", key=key), Election(two, "two", key=key)
        await first.campaign()
        token = first.token
        campaign = asyncio.create_task(second.campaign())
        await backend.stall()
        await asyncio.wait_for(first.lost.wait(), PATIENCE)
        assert not first.leading
        await backend.pass_time(TTL)
        await asyncio.wait_for(campaign, PATIENCE)
        await backend.resume()
        late = await backend.other.txn([token], [Put(prefix + "a", b"of the deposed")])
        good = await backend.other.txn([second.token], [Put(prefix + "b", b"of the leader")])
        assert (late.succeeded, good.succeeded) == (False, True)


async def test_a_leader_notices_that_somebody_deleted_its_key(backend: Backend, prefix: str) -> None:
    key = prefix + "leader"
    async with Session(backend.kv) as session, Election(session, "one", key=key) as election:
        await backend.other.txn([], [Delete(key)])
        await asyncio.wait_for(election.lost.wait(), PATIENCE)
        assert session.alive
        assert not election.leading


async def test_a_campaign_whose_answer_was_lost_finds_its_own_key(backend: Backend, prefix: str) -> None:
    key = prefix + "leader"
    async with Session(backend.kv, ttl=10) as session:
        election = Election(session, "one", key=key, retry=0.1)
        await backend.lose_answer()
        await asyncio.wait_for(election.campaign(), PATIENCE)
        assert (await backend.other.txn([election.token], [])).succeeded
        await election.resign()


async def test_a_campaign_goes_on_after_an_outage(backend: Backend, prefix: str) -> None:
    key = prefix + "leader"
    async with Session(backend.kv, ttl=10) as session:
        await backend.go_down()
        election = Election(session, "one", key=key, retry=0.1)
        campaign = asyncio.create_task(election.campaign())
        with pytest.raises(Unavailable):
            await backend.kv.get(key)
        assert not campaign.done()
        await backend.come_up()
        await asyncio.wait_for(campaign, PATIENCE)
        await election.resign()


async def test_a_campaign_ends_with_its_session(backend: Backend, prefix: str) -> None:
    key = prefix + "leader"
    await backend.kv.txn([absent(key)], [Put(key, b"somebody")])
    async with Session(backend.kv, ttl=TTL) as session:
        campaign = asyncio.create_task(Election(session, "one", key=key).campaign())
        await backend.other.revoke(session.lease)
        with pytest.raises(Fenced, match="lost its session"):
            await asyncio.wait_for(campaign, PATIENCE)
