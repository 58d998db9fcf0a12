"""Events: they count up, share leases, run out, and never stand in the way."""

import logging

import pytest

from crds import keys
from crds.event import Event, ObjectReference
from crds.node import Node
from store.events import EventRecorder, events_of
from store.kv import Compare, Put, Target
from store.memory import MemoryKV
from store.objects import Broken, key_of
from store.store import Store
from tests.resources import job, node
from tests.unit.store_objects.conftest import Clock


@pytest.fixture
def recorder(store: Store) -> EventRecorder:
    return EventRecorder(store, "reconciler", clock=lambda: store.clock().timestamp())


async def test_the_same_said_again_counts_up(store: Store, recorder: EventRecorder, clock: Clock) -> None:
    made = await store.create(job())
    await recorder.record(made, "Normal", "Placed", "on n1")
    first = clock.now
    clock.advance(60)
    await recorder.record(made, "Normal", "Placed", "on n1")
    (event,) = (await events_of(store, made)).items
    assert (event.count, event.first_seen, event.last_seen) == (2, first, clock.now)
    assert event.regarding == ObjectReference(kind="Job", name="w", namespace="default", uid=made.metadata.uid)
    assert (event.type, event.reason, event.message, event.source) == ("Normal", "Placed", "on n1", "reconciler")


async def test_anything_else_is_another_event(store: Store, recorder: EventRecorder, clock: Clock) -> None:
    made = await store.create(job())
    await recorder.record(made, "Normal", "Placed", "on n1")
    for kind, reason, message in (("Warning", "Placed", "on n1"), ("Normal", "Moved", "on n1"), ("Normal", "Placed", "on n2")):
        clock.advance(1)
        await recorder.record(made, kind, reason, message)  # type: ignore[arg-type]
    await EventRecorder(store, "agent").record(made, "Normal", "Placed", "on n1")
    assert [e.count for e in (await events_of(store, made)).items] == [1] * 5
    assert [e.message for e in (await events_of(store, made)).items].count("on n1") == 4


async def test_events_of_one_object_only(store: Store, recorder: EventRecorder) -> None:
    a_job, a_node = await store.create(job("n1")), await store.create(node("n1"))
    await recorder.record(a_job, "Normal", "J", "m")
    await recorder.record(a_node, "Normal", "N", "m")
    assert [e.reason for e in (await events_of(store, a_job)).items] == ["J"]
    assert [e.reason for e in (await events_of(store, a_node)).items] == ["N"]
    assert sorted(e.reason for e in (await store.list(Event)).items) == ["J", "N"]
    assert [e.reason for e in (await store.list(Event, "alice")).items] == []
    found = (await store.list(Event)).items[0]
    stored = await store.kv.get(key_of(found))
    assert stored is not None and stored.key.startswith(f"{keys.EVENTS}default/job.n1/")


async def test_events_run_out_after_an_hour_and_share_leases(
    kv: MemoryKV, store: Store, recorder: EventRecorder, clock: Clock
) -> None:
    made = await store.create(job())
    for minute in range(0, 20, 2):
        await recorder.record(made, "Normal", "R", f"minute {minute}")
        clock.advance(120)
        kv.advance(120)
    events = (await kv.list(keys.EVENTS)).items
    leases = {stored.lease for stored in events}
    assert (len(events), len(leases), 0 in leases) == (10, 2, False)
    kv.advance(3600 - 20 * 60)
    assert len((await kv.list(keys.EVENTS)).items) == 10
    kv.advance(1200)
    assert (await kv.list(keys.EVENTS)).items == ()


async def test_counting_up_keeps_an_event_alive(kv: MemoryKV, store: Store, recorder: EventRecorder, clock: Clock) -> None:
    made = await store.create(job())
    for _ in range(5):
        await recorder.record(made, "Normal", "R", "m")
        clock.advance(1800)
        kv.advance(1800)
    (event,) = (await events_of(store, made)).items
    assert event.count == 5


async def test_a_lost_lease_is_replaced(kv: MemoryKV, store: Store, recorder: EventRecorder) -> None:
    made = await store.create(job())
    await recorder.record(made, "Normal", "R", "m")
    kv.advance(5000)
    await recorder.record(made, "Normal", "R", "m")
    (event,) = (await events_of(store, made)).items
    assert event.count == 1


async def test_two_recorders_lose_no_count(kv: MemoryKV, store: Store, recorder: EventRecorder) -> None:
    made = await store.create(job())
    await recorder.record(made, "Normal", "R", "m")
    twin = EventRecorder(Store(kv.client(), clock=store.clock), "reconciler")
    assert isinstance(twin._store.kv, MemoryKV)
    raced: list[int] = []

    def overtake(call: str, moment: str) -> None:
        if (call, moment) == ("txn", "before") and not raced:
            raced.append(1)
            there = kv.server.list(keys.EVENTS, 0).items[0]
            kv.server.txn([], [Put(there.key, there.value.replace(b'"count":1', b'"count":2'))], [])

    twin._store.kv.hook = overtake
    await twin.record(made, "Normal", "R", "m")
    (event,) = (await events_of(store, made)).items
    assert event.count == 3


@pytest.mark.parametrize("failure", ["down", "fenced", "silent"])
async def test_a_failure_is_logged_and_stops_nobody(
    kv: MemoryKV, store: Store, failure: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await store.create(job())
    if failure == "fenced":
        store = store.guarded(Compare("/mx/leader", Target.CREATE, 3))
    elif failure == "silent":
        monkeypatch.setattr("store.events.PATIENCE", 0.05)
        kv.delay = 4
    else:
        kv.down = True
    with caplog.at_level(logging.WARNING):
        await EventRecorder(store, "reconciler").record(made, "Normal", "Placed", "on n1")
    assert "event not recorded: job/w Placed: on n1" in caplog.text


async def test_a_broken_event_is_replaced(kv: MemoryKV, store: Store, recorder: EventRecorder) -> None:
    made = await store.create(job())
    await recorder.record(made, "Normal", "R", "m")
    (stored,) = (await kv.list(keys.EVENTS)).items
    await kv.txn([], [Put(stored.key, b"{")])
    assert [b.kind for b in (await events_of(store, made)).broken] == ["Event"]
    await recorder.record(made, "Normal", "R", "m")
    assert [e.count for e in (await events_of(store, made)).items] == [1]


@pytest.mark.parametrize(("name", "namespace"), [("bad", "default"), ("Bad_Name/é", "Odd NS"), ("--", "_"), ("x" * 300, "y" * 300)])
async def test_broken_objects_have_events_whatever_they_are_called(
    store: Store, recorder: EventRecorder, name: str, namespace: str
) -> None:
    broken = Broken("/mx/kinds/jobs/x", "Job", name, namespace, b"", "why")
    await recorder.record(broken, "Warning", "Invalid", "why\nit   is")
    (event,) = (await events_of(store, broken)).items
    assert (event.message, event.regarding.name) == ("why it is", name)
    assert len((await store.list(Event)).items) == 1


async def test_an_earlier_object_of_the_name_is_another(store: Store, recorder: EventRecorder) -> None:
    first = await store.create(node())
    await recorder.record(first, "Normal", "R", "m")
    await store.delete(Node, "n1")
    second = await store.create(node())
    await recorder.record(second, "Normal", "R", "m")
    assert {e.regarding.uid for e in (await events_of(store, second)).items} == {first.metadata.uid, second.metadata.uid}
