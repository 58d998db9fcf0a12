"""The fake's knobs; what it promises as a store is in tests/contract."""

import asyncio
import time
from contextlib import aclosing

import pytest

from store import memory_server
from store.errors import Conflict, Gone, Invalid, Unavailable
from store.kv import Put
from store.memory import MemoryKV


async def test_a_call_fails_before_or_after_its_effect() -> None:
    kv = MemoryKV()
    kv.fail_next("txn")
    kv.fail_next("txn", applied=True)
    with pytest.raises(Unavailable):
        await kv.txn([], [Put("/a", b"1")])
    assert await kv.get("/a") is None
    with pytest.raises(Unavailable):
        await kv.txn([], [Put("/a", b"1")])
    assert await kv.get("/a") is not None
    await kv.txn([], [Put("/a", b"2")])


async def test_any_error_can_be_asked_for_and_other_calls_go_on() -> None:
    kv = MemoryKV()
    kv.fail_next("list", Conflict("on demand"))
    await kv.get("/a")
    with pytest.raises(Conflict):
        await kv.list("/")


async def test_a_hook_sees_every_call_and_may_crash_it() -> None:
    class Crash(BaseException):
        pass

    kv, seen = MemoryKV(), []

    def hook(call: str, moment: str) -> None:
        seen.append((call, moment))
        if (call, moment) == ("txn", "after"):
            raise Crash

    kv.hook = hook
    await kv.get("/a")
    with pytest.raises(Crash):
        await kv.txn([], [Put("/a", b"1")])
    assert await kv.get("/a") is not None
    assert seen[:4] == [("get", "before"), ("get", "after"), ("txn", "before"), ("txn", "after")]


async def test_clients_share_the_server_and_not_the_knobs() -> None:
    one = MemoryKV()
    two = one.client()
    one.down = True
    with pytest.raises(Unavailable):
        await one.get("/a")
    await two.txn([], [Put("/a", b"1", await two.grant(5))])
    one.down = False
    assert await one.get("/a") is not None
    one.advance(5)
    assert await two.get("/a") is None


async def test_with_a_clock_leases_run_out_by_themselves() -> None:
    kv = MemoryKV(clock=time.monotonic)
    put = await kv.txn([], [Put("/a", b"1", await kv.grant(1))])
    async with aclosing(kv.watch("/", revision=put.revision + 1)) as batches:
        batch = await asyncio.wait_for(anext(batches), 10)
    assert batch.changes[0].deleted


async def test_a_watch_that_leaves_too_much_unread_must_list_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_server, "MAX_PENDING", 3)
    kv = MemoryKV()
    async with aclosing(kv.watch("/", revision=1)) as batches:
        await kv.txn([], [Put("/a", b"")])
        await anext(batches)
        for _ in range(4):
            await kv.txn([], [Put("/a", b"")])
        with pytest.raises(Gone, match="list again"):
            await anext(batches)


async def test_a_closed_watch_is_forgotten() -> None:
    kv = MemoryKV()
    async with aclosing(kv.watch("/a", revision=0)) as batches:
        await anext(batches)
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        assert kv.server._watchers
        waiting.cancel()
        await asyncio.wait({waiting})
    assert not kv.server._watchers


async def test_compaction_forgets_what_nobody_can_ask_for() -> None:
    kv = MemoryKV()
    for number in range(10):
        await kv.txn([], [Put("/a", b"%d" % number)])
    await kv.compact(kv.server.revision)
    assert len(kv.server._versions["/a"]) == 1
    with pytest.raises(Invalid):
        await kv.compact(kv.server.revision + 1)
