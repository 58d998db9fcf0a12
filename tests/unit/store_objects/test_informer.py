"""The informer: what it tells, in which order, and what it survives."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from crds import keys
from crds.job import Job
from store.errors import Gone, Invalid, NotFound, Unavailable
from store.informer import Informer
from store.kv import Delete, KeyValue, Put
from store.memory import MemoryKV
from store.store import Store
from tests.resources import job

P = "/mx/kinds/"


class Heard:
    """What a subscriber was told: key, old and new value."""

    def __init__(self, informer: Informer) -> None:
        self.differences: list[tuple[str, bytes | None, bytes | None]] = []
        self.end = informer.subscribe(self)

    def __call__(self, key: str, old: KeyValue | None, new: KeyValue | None) -> None:
        self.differences.append((key.removeprefix(P), old.value if old else None, new.value if new else None))


@asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[Informer]:
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(5):
            await informer.synced.wait()
        yield informer
    finally:
        task.cancel()
        await asyncio.wait({task})


async def put(kv: MemoryKV, **values: str) -> int:
    return (await kv.txn([], [Put(P + name, value.encode()) for name, value in values.items()])).revision


async def delete(kv: MemoryKV, *names: str) -> int:
    return (await kv.txn([], [Delete(P + name) for name in names])).revision


async def reach(informer: Informer, revision: int) -> None:
    async with asyncio.timeout(5):
        await informer.reached(revision)


async def test_it_knows_what_is_there_and_what_comes(kv: MemoryKV) -> None:
    await put(kv, b="1")
    async with running(Informer(kv, P)) as informer:
        heard = Heard(informer)
        assert [kv.value for kv in informer.items.values()] == [b"1"]
        await put(kv, a="2")
        await put(kv, b="3")
        await reach(informer, await delete(kv, "a"))
        assert heard.differences == [("a", None, b"2"), ("b", b"1", b"3"), ("a", b"2", None)]
        assert {key: kv.value for key, kv in informer.items.items()} == {P + "b": b"3"}


async def test_what_was_there_before_is_told_to_those_who_came_before(kv: MemoryKV) -> None:
    await put(kv, b="1", a="2")
    informer = Informer(kv, P)
    heard = Heard(informer)
    async with running(informer):
        assert heard.differences == [("a", None, b"2"), ("b", None, b"1")]


async def test_a_transaction_is_seen_whole(kv: MemoryKV) -> None:
    async with running(Informer(kv, P)) as informer:
        seen: list[list[str]] = []
        informer.subscribe(lambda key, old, new: seen.append(sorted(informer.items)))
        await reach(informer, await put(kv, a="1", b="2"))
        assert seen == [[P + "a", P + "b"]] * 2


async def test_ignored_keys_are_not_there_but_their_revisions_count(kv: MemoryKV) -> None:
    await kv.txn([], [Put("/mx/events/x", b"1"), Put(P + "a", b"1")])
    informer = Informer(kv, "/mx/", ignore=["/mx/events/"])
    heard = Heard(informer)
    async with running(informer):
        await reach(informer, (await kv.txn([], [Put("/mx/events/y", b"1")])).revision)
        assert list(informer.items) == [P + "a"]
        assert heard.differences == [("a", None, b"1")]


async def test_below_is_sorted_and_may_be_walked_while_it_changes(kv: MemoryKV) -> None:
    await kv.txn([], [Put(key, b"") for key in (P + "b/2", P + "a/1", P + "b/1", P + "b0", P + "c")])
    async with running(Informer(kv, P)) as informer:
        walk = informer.below(P + "b/")
        first = next(walk)
        await reach(informer, await delete(kv, "b/1", "b/2"))
        assert [first.key, *(kv.key for kv in walk)] == [P + "b/1", P + "b/2"]
        await reach(informer, await put(kv, **{"b/3": "", "b/0": ""}))
        assert [kv.key for kv in informer.below(P + "b/")] == [P + "b/0", P + "b/3"]
        assert [kv.key for kv in informer.below(P)] == sorted(informer.items)


async def test_an_outage_is_served_over_and_told(kv: MemoryKV) -> None:
    now = [100.0]
    await put(kv, a="1")
    informer = Informer(kv.client(), P, probe=0.01, clock=lambda: now[0])
    assert (informer.connected, informer.age) == (False, float("inf"))
    async with running(informer):
        assert (informer.connected, informer.age) == (True, 0)
        assert isinstance(informer._kv, MemoryKV)
        informer._kv.down = True
        now[0] += 7
        await until(lambda: not informer.connected)
        assert (informer.age, list(informer.items)) == (7, [P + "a"])
        revision = await put(kv, a="2")
        informer._kv.down = False
        await reach(informer, revision)
        assert (informer.connected, informer.age, informer.items[P + "a"].value) == (True, 0, b"2")


async def test_silence_is_not_an_outage(kv: MemoryKV) -> None:
    now = [100.0]
    async with running(Informer(kv, P, probe=0.01, clock=lambda: now[0])) as informer:
        now[0] += 7
        await until(lambda: informer.age == 0)
        assert informer.connected


async def test_it_waits_for_a_store_that_is_down_at_first(kv: MemoryKV, caplog: pytest.LogCaptureFixture) -> None:
    await put(kv, a="1")
    kv.fail_next("list")
    kv.fail_next("list")
    async with running(Informer(kv, P)) as informer:
        assert list(informer.items) == [P + "a"]
    assert caplog.text.count("no connection") == 1


async def test_after_a_compaction_it_makes_up_for_what_it_missed(kv: MemoryKV) -> None:
    await put(kv, gone="1", kept="1", changed="1")
    line = kv.client()
    async with running(Informer(line, P)) as informer:
        heard = Heard(informer)
        line.down = True
        await put(kv, changed="2")
        await delete(kv, "gone")
        revision = await put(kv, new="1")
        await kv.compact(revision)
        line.down = False
        await reach(informer, revision)
        assert sorted(heard.differences) == [("changed", b"1", b"2"), ("gone", b"1", None), ("new", None, b"1")]
        assert heard.differences[0] == ("gone", b"1", None)
        await reach(informer, await put(kv, new="2"))
        assert heard.differences[-1] == ("new", b"1", b"2")


async def test_broken_streams_lose_and_repeat_nothing(kv: MemoryKV) -> None:
    line = kv.client()
    async with running(Informer(line, P)) as informer:
        heard = Heard(informer)
        for number in range(50):
            revision = await put(kv, a=str(number))
            if number % 7 == 0:
                line.drop_watches()
            if number % 11 == 0:
                await asyncio.sleep(0)
        await reach(informer, revision)
        assert [new for _, _, new in heard.differences] == [str(number).encode() for number in range(50)]


async def test_errors_of_the_watch_itself(kv: MemoryKV) -> None:
    """Unavailable: goes on where it was. Gone: lists again."""
    line = kv.client()
    errors = [Unavailable("w"), Gone("w")]

    def fail(call: str, moment: str) -> None:
        if call == "watch" and errors:
            raise errors.pop(0)

    line.hook = fail
    async with running(Informer(line, P)) as informer:
        await reach(informer, await put(kv, a="1"))
        assert not errors


async def test_a_missing_right_is_raised(kv: MemoryKV) -> None:
    kv.fail_next("list", Invalid("no right"))
    with pytest.raises(ExceptionGroup) as caught:
        await Informer(kv, P).run()
    assert caught.group_contains(Invalid, match="no right")


async def test_a_subscriber_that_ended_hears_no_more(kv: MemoryKV) -> None:
    async with running(Informer(kv, P)) as informer:
        heard = Heard(informer)
        heard.end()
        await reach(informer, await put(kv, a="1"))
        assert heard.differences == []


async def test_objects_are_read_and_broken_ones_told_apart(kv: MemoryKV, store: Store) -> None:
    async with running(Informer(kv, P)) as informer:
        made = await store.create(job())
        await store.create(job("x", "alice"))
        revision = (await kv.txn([], [Put(keys.object_key(Job, "bad", "default"), b"\xff{")])).revision
        await reach(informer, revision)
        found = informer.list(Job)
        assert ([j.name for j in found.items], [b.label for b in found.broken]) == (["x", "w"], ["job/bad"])
        assert found.revision == revision
        assert [j.name for j in informer.list(Job, "alice").items] == ["x"]
        assert informer.get(Job, "w") == made == informer.get(Job, "w", "default")
        informer.get(Job, "w").spec.command.append("changed")
        assert informer.get(Job, "w") == made
        with pytest.raises(NotFound, match=r"^job/nobody does not exist$"):
            informer.get(Job, "nobody")
        with pytest.raises(Invalid, match=r"^job/bad: the stored value is broken"):
            informer.get(Job, "bad")


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - nobody sets an Event for us
            await asyncio.sleep(0.005)
