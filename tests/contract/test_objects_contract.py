"""Objects, applying and the informer on both stores: what is built on the seam holds on real etcd too.

The tests share one etcd, so each has a namespace of its own, which also begins the names of its nodes.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import pytest

from crds import keys
from crds.job import STOP_FINALIZER, Job
from crds.node import Node
from store.admission import Refused
from store.apply import apply
from store.broken import mark_broken
from store.errors import AlreadyExists, Conflict, Fenced, NotFound
from store.events import EventRecorder, events_of
from store.informer import Informer
from store.kv import Compare, Put, Target, absent
from store.store import Store
from tests.contract.conftest import PATIENCE, Backend
from tests.resources import job, node

_numbers = itertools.count(1)


@pytest.fixture
def ns() -> str:
    return f"ns{next(_numbers)}-{datetime.now(UTC):%H%M%S%f}"


@pytest.fixture
def store(backend: Backend) -> Store:
    return Store(backend.kv)


@pytest.fixture
def other(backend: Backend) -> Store:
    return Store(backend.other)


@asynccontextmanager
async def informed(store: Store, prefix: str) -> AsyncIterator[Informer]:
    informer = Informer(store.kv, prefix, probe=0.1)
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(PATIENCE):
            await informer.synced.wait()
        yield informer
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_what_is_written_is_read(store: Store, other: Store, ns: str) -> None:
    made = await store.create(job(namespace=ns))
    made.status.node = "n1"
    made = await store.update_status(made)
    made.spec.termination_grace = 3
    made = await store.update(made)
    assert made == await other.get(Job, "w", ns)
    assert (made.status.node, made.metadata.generation) == ("n1", 2)
    listing = await other.list(Job, ns)
    assert listing.items == (made,)
    with pytest.raises(AlreadyExists):
        await other.create(job(namespace=ns))


async def test_a_write_over_somebody_elses_is_a_conflict(store: Store, other: Store, ns: str) -> None:
    mine = await store.create(job(namespace=ns))
    await other.change_status(Job, "w", ns, lambda j: setattr(j.status, "node", "n1"))
    mine.metadata.labels["a"] = "b"
    with pytest.raises(Conflict):
        await store.update(mine)
    mine = await store.change(Job, "w", ns, lambda j: j.metadata.labels.update(a="b"))
    assert (mine.status.node, mine.metadata.labels) == ("n1", {"a": "b"})


def add_label(name: str, target: Job) -> None:
    target.metadata.labels[name] = "1"


async def test_writers_at_once_lose_nothing(store: Store, other: Store, ns: str) -> None:
    await store.create(job(namespace=ns))
    async with asyncio.TaskGroup() as group:
        for number, through in enumerate([store, other] * 4):
            group.create_task(through.change(Job, "w", ns, partial(add_label, f"l{number}")))
            group.create_task(
                through.change_status(Job, "w", ns, lambda j: setattr(j.status, "move_count", j.status.move_count + 1))
            )
    found = await store.get(Job, "w", ns)
    assert (len(found.metadata.labels), found.status.move_count) == (8, 8)


async def test_an_answer_that_is_lost_is_not_a_conflict(backend: Backend, store: Store, other: Store, ns: str) -> None:
    await backend.lose_answer()
    made = await store.create(job(namespace=ns))
    assert made == await other.get(Job, "w", ns)
    key = keys.placement("n1", ns, "w")
    await backend.lose_answer()
    revision = await store.transaction().expect(absent(key)).put(key, made.spec).commit()
    stored = await other.kv.get(key)
    assert stored is not None and stored.mod_revision == revision


async def test_finalizers_hold_an_object(store: Store, other: Store, ns: str) -> None:
    made = await store.create(job(namespace=ns))
    assert await other.delete(Job, "w", ns) is False
    assert (await store.get(Job, "w", ns)).metadata.deletion_timestamp is not None
    await store.remove_finalizer(made, STOP_FINALIZER)
    with pytest.raises(NotFound):
        await other.get(Job, "w", ns)


async def test_a_fallen_guard_is_fenced(store: Store, ns: str) -> None:
    leader = f"/mx/leader-{ns}"
    deposed = store.guarded(Compare(leader, Target.CREATE, 3))
    with pytest.raises(Fenced):
        await deposed.create(job(namespace=ns))
    await store.guarded(absent(leader)).create(job(namespace=ns))


async def test_a_transaction_is_all_or_nothing(store: Store, other: Store, ns: str) -> None:
    made = await store.create(job(namespace=ns))
    key = keys.placement("n1", ns, "w")
    made.status.node = "n1"
    await store.transaction().expect(absent(key)).put_status(made).put(key, made.spec).commit()
    with pytest.raises(Conflict):
        await store.transaction().put_status(made).delete(key).commit()
    assert await other.kv.get(key) is not None
    fresh = await other.get(Job, "w", ns)
    fresh.status.node = "n2"
    await store.transaction().put_status(fresh).delete(key).commit()
    assert (await other.get(Job, "w", ns)).status.node == "n2"
    assert await other.kv.get(key) is None


async def test_of_two_nodes_with_one_mac_one_is_created(store: Store, other: Store, ns: str) -> None:
    digits = f"{next(_numbers):012x}"
    mac = ":".join(digits[i : i + 2] for i in range(0, 12, 2))
    names = [f"{ns}-{letter}" for letter in "abcdef"]
    results = await asyncio.gather(
        *(through.create(node(name, mac=mac)) for name, through in zip(names, [store, other] * 3, strict=True)),
        return_exceptions=True,
    )
    made = [result for result in results if isinstance(result, Node)]
    refused = [result for result in results if isinstance(result, Refused)]
    assert (len(made), len(refused)) == (1, 5)
    assert f"{mac} belongs to {made[0].label} already" in str(refused[0])
    await store.delete(Node, made[0].name)
    await other.create(node(f"{ns}-g", mac=mac))
    await other.delete(Node, f"{ns}-g")


async def test_apply(store: Store, other: Store, ns: str) -> None:
    wish = {"apiVersion": "mx/v1", "kind": "Job", "metadata": {"name": "w", "namespace": ns}, "spec": {"command": ["a"]}}
    assert (await apply(store, wish)).verb == "created"
    assert (await apply(other, wish)).verb == "unchanged"
    assert (await apply(other, wish | {"spec": {"command": ["a"], "terminationGrace": "3s"}})).verb == "configured"
    assert (await apply(store, wish)).verb == "configured"
    assert (await store.get(Job, "w", ns)).spec.termination_grace == 10


async def test_broken_values_are_told_apart_and_marked(store: Store, ns: str) -> None:
    await store.create(job("good", ns))
    key = keys.object_key(Job, "bad", ns)
    await store.kv.txn([], [Put(key, b'{"kind":"Job","metadata":{"name":"bad"},"spec":{}}'), Put(f"{key}2", b"\xff")])
    found = await store.list(Job, ns)
    assert ([j.name for j in found.items], [b.name for b in found.broken]) == (["good"], ["bad", "bad2"])
    assert [await mark_broken(store, broken) for broken in found.broken] == [True, False]
    assert b'"Valid"' in (await store.list(Job, ns)).broken[0].raw


async def test_events_count_up(store: Store, ns: str) -> None:
    made = await store.create(job(namespace=ns))
    recorder = EventRecorder(store, "reconciler")
    for _ in range(3):
        await recorder.record(made, "Normal", "Placed", "on n1")
    (event,) = (await events_of(store, made)).items
    assert event.count == 3
    (stored,) = (await store.kv.list(f"{keys.EVENTS}{ns}/")).items
    assert stored.lease != 0


async def test_the_informer_follows_through_an_outage(backend: Backend, store: Store, other: Store, ns: str) -> None:
    prefix = keys.kind_prefix(Job, ns)
    await other.create(job("a", ns))
    async with informed(store, prefix) as informer:
        heard: list[tuple[str, bool, bool]] = []
        informer.subscribe(lambda key, old, new: heard.append((key.removeprefix(prefix), old is not None, new is not None)))
        await backend.go_down()
        async with asyncio.timeout(PATIENCE):
            while informer.connected:  # noqa: ASYNC110 - nobody sets an Event for us
                await asyncio.sleep(0.02)
        assert [j.name for j in informer.list(Job).items] == ["a"]
        made = await other.create(job("b", ns))
        await backend.come_up()
        async with asyncio.timeout(PATIENCE):
            await informer.reached(made.metadata.resource_version or 0)
        assert informer.connected
        assert heard == [("b", False, True)]
        assert [j.name for j in informer.list(Job).items] == ["a", "b"]


async def test_the_informer_makes_up_for_a_compaction(backend: Backend, store: Store, other: Store, ns: str) -> None:
    prefix = keys.kind_prefix(Job, ns)
    gone = await other.create(job("gone", ns))
    await other.create(job("kept", ns))
    async with informed(store, prefix) as informer:
        heard: list[tuple[str, bool, bool]] = []
        informer.subscribe(lambda key, old, new: heard.append((key.removeprefix(prefix), old is not None, new is not None)))
        await backend.go_down()
        await other.delete(Job, "gone", ns)
        await other.remove_finalizer(gone, STOP_FINALIZER)
        new = await other.create(job("new", ns))
        await backend.compact(new.metadata.resource_version or 0)
        await backend.come_up()
        async with asyncio.timeout(PATIENCE):
            await informer.reached(new.metadata.resource_version or 0)
        assert sorted(heard) == [("gone", True, False), ("new", False, True)]
        assert [j.name for j in informer.list(Job).items] == ["kept", "new"]
