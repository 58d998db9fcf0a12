"""A watch tells every change once and in order, whatever happens to the connection."""

import asyncio
from contextlib import aclosing

import pytest

from store.errors import Gone, Unavailable
from store.kv import KV, Change, Delete, Op, Put
from tests.contract.conftest import PATIENCE, Backend, Reader


async def write(kv: KV, *operations: Op) -> int:
    return (await kv.txn([], operations)).revision


async def write_numbers(kv: KV, prefix: str, numbers: range) -> int:
    """One key each, in order; gives the last revision."""
    revision = 0
    for number in numbers:
        revision = await write(kv, Put(prefix + f"{number:04d}", b"x"))
    return revision


def names(numbers: range) -> list[tuple[str, bytes | None]]:
    return [(f"{number:04d}", b"x") for number in numbers]


async def test_changes_come_in_order_from_the_asked_revision_on(backend: Backend, prefix: str) -> None:
    await write(backend.kv, Put(prefix + "a", b"0"))
    start = await write(backend.kv, Put(prefix + "a", b"1"))
    await write(backend.kv, Delete(prefix + "a"))
    reader = Reader(backend.kv, prefix, start)
    await reader.until(2)
    await write(backend.other, Put(prefix + "b", b"2"))
    await write(backend.other, Put(prefix[:-1] + "0", b"not below the prefix"))
    await write(backend.other, Put(prefix + "c", b"3"))
    assert await reader.until(4) == [("a", b"1"), ("a", None), ("b", b"2"), ("c", b"3")]
    await reader.stop()


async def test_a_transaction_is_one_batch(backend: Backend, prefix: str) -> None:
    await write(backend.kv, Put(prefix + "c", b"0"))
    revision = await write(backend.kv, Put(prefix + "b", b"1"), Delete(prefix + "c"), Put(prefix + "a", b"1"))
    async with aclosing(backend.kv.watch(prefix, revision=revision)) as batches:
        batch = await anext(batches)
    assert batch.revision == revision
    assert [(c.kv.key.removeprefix(prefix), c.deleted) for c in batch.changes] == [("b", False), ("c", True), ("a", False)]


async def test_a_deletion_carries_its_revision_and_nothing_else(backend: Backend, prefix: str) -> None:
    await write(backend.kv, Put(prefix + "a", b"1"))
    revision = await write(backend.kv, Delete(prefix + "a"))
    async with aclosing(backend.kv.watch(prefix, revision=revision)) as batches:
        (change,) = (await anext(batches)).changes
    kv = change.kv
    assert change.deleted
    assert (kv.value, kv.mod_revision, kv.create_revision, kv.version, kv.lease) == (b"", revision, 0, 0, 0)


async def test_a_watched_put_equals_what_get_says(backend: Backend, prefix: str) -> None:
    lease = await backend.kv.grant(60)
    await write(backend.kv, Put(prefix + "a", b"1"))
    revision = await write(backend.kv, Put(prefix + "a", b"2", lease))
    async with aclosing(backend.kv.watch(prefix, revision=revision)) as batches:
        (change,) = (await anext(batches)).changes
    kv = await backend.kv.get(prefix + "a")
    assert kv is not None
    assert change == Change(kv)


async def test_a_watch_from_now_says_where_now_is(backend: Backend, prefix: str) -> None:
    past = await write(backend.kv, Put(prefix + "a", b"past"))
    async with aclosing(backend.kv.watch(prefix, revision=0)) as batches:
        first = await anext(batches)
        await write(backend.other, Put(prefix + "b", b"future"))
        while not (second := await anext(batches)).changes:
            pass
    assert (first.revision, first.changes) == (past, ())
    assert [change.kv.value for change in second.changes] == [b"future"]


async def test_a_quiet_watch_learns_how_far_it_is(backend: Backend, prefix: str) -> None:
    start = await write(backend.kv, Put(prefix + "a", b"1"))
    reader = Reader(backend.kv, prefix, start)
    await reader.until(1)
    elsewhere = await write(backend.other, Put("/elsewhere", b"1"))
    progress = getattr(backend.kv, "server", None)
    if progress is not None:
        progress.progress()
    await reader.until_revision(elsewhere)
    assert reader.seen == [("a", b"1")]
    await backend.compact(elsewhere)
    await backend.cut()
    await write(backend.other, Put(prefix + "b", b"2"))
    assert await reader.until(2) == [("a", b"1"), ("b", b"2")]
    await reader.stop()


async def test_several_watches_see_the_same(backend: Backend, prefix: str) -> None:
    start = await write(backend.kv, Put(prefix + "a", b"1"))
    readers = [Reader(backend.kv, prefix, start) for _ in range(5)]
    await write(backend.other, Put(prefix + "b", b"2"))
    for reader in readers:
        assert await reader.until(2) == [("a", b"1"), ("b", b"2")]
        await reader.stop()


async def test_nothing_is_lost_or_repeated_when_the_connection_breaks(backend: Backend, prefix: str) -> None:
    start = (await backend.kv.list(prefix)).revision + 1
    reader = Reader(backend.kv, prefix, start)
    for part in range(4):
        await write_numbers(backend.other, prefix, range(part * 25, part * 25 + 20))
        await backend.cut()
        await write_numbers(backend.other, prefix, range(part * 25 + 20, part * 25 + 25))
    assert await reader.until(100) == names(range(100))
    await reader.stop()


async def test_nothing_is_lost_or_repeated_when_the_server_dies(backend: Backend, prefix: str) -> None:
    start = (await backend.kv.list(prefix)).revision + 1
    reader = Reader(backend.kv, prefix, start)
    await write_numbers(backend.other, prefix, range(50))
    await backend.restart()
    await until_reachable(backend.other)
    await write_numbers(backend.other, prefix, range(50, 100))
    assert await reader.until(100) == names(range(100))
    await reader.stop()


async def test_a_watch_survives_a_long_outage(backend: Backend, prefix: str) -> None:
    start = (await backend.kv.list(prefix)).revision + 1
    reader = Reader(backend.kv, prefix, start)
    await write_numbers(backend.other, prefix, range(3))
    await reader.until(3)
    await backend.go_down()
    await write_numbers(backend.other, prefix, range(3, 6))
    with pytest.raises(Unavailable):
        await backend.kv.get(prefix)
    assert len(reader.seen) == 3
    await backend.come_up()
    assert await reader.until(6) == names(range(6))
    await reader.stop()


async def test_a_compacted_start_is_gone(backend: Backend, prefix: str) -> None:
    start = await write(backend.kv, Put(prefix + "a", b"1"))
    last = await write_numbers(backend.kv, prefix, range(3))
    await backend.compact(last)
    with pytest.raises(Gone) as gone:
        await asyncio.wait_for(anext(backend.kv.watch(prefix, revision=start)), PATIENCE)
    assert gone.value.compact_revision == last
    page = await backend.kv.list(prefix)
    reader = Reader(backend.kv, prefix, page.revision + 1)
    await write(backend.other, Put(prefix + "b", b"2"))
    assert await reader.until(1) == [("b", b"2")]
    await reader.stop()


async def test_a_watch_that_missed_a_compaction_is_gone(backend: Backend, prefix: str) -> None:
    start = await write(backend.kv, Put(prefix + "a", b"1"))
    reader = Reader(backend.kv, prefix, start)
    await reader.until(1)
    await backend.go_down()
    last = await write_numbers(backend.other, prefix, range(5))
    await backend.compact(last)
    await backend.come_up()
    with pytest.raises(Gone):
        await reader.until(2)
    assert reader.seen == [("a", b"1")]


async def test_a_watch_ends_when_its_own_process_closes_the_connection(backend: Backend, prefix: str) -> None:
    reader = Reader(backend.kv, prefix, 0)
    await reader.until_revision(1)
    await backend.kv.close()
    with pytest.raises(Unavailable):
        await reader.until(1)
    with pytest.raises(Unavailable):
        await backend.kv.get(prefix)


async def until_reachable(kv: KV) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await kv.list("/nothing")
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return
