"""Objects: what a write keeps, what it refuses, and what it does when the answer is lost."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds import keys
from crds.event import Event
from crds.job import STOP_FINALIZER, Job, JobPhase
from crds.node import Node
from store.errors import AlreadyExists, Conflict, Fenced, Invalid, NotFound, Unavailable
from store.kv import Compare, Put, Target, absent
from store.memory import MemoryKV
from store.store import Store
from tests.resources import job, node
from tests.unit.store_objects.conftest import Clock


async def test_create_gives_what_the_store_gives(store: Store, clock: Clock) -> None:
    made = await store.create(job())
    meta = made.metadata
    assert (meta.namespace, meta.generation, meta.finalizers) == ("default", 1, [STOP_FINALIZER])
    assert meta.uid and meta.creation_timestamp == clock.now
    assert made == await store.get(Job, "w")


async def test_the_caller_cannot_choose_what_the_store_gives(store: Store) -> None:
    wish = job()
    wish.metadata.uid, wish.metadata.generation, wish.metadata.deletion_timestamp = "mine", 7, store.clock()
    made = await store.create(wish)
    assert made.metadata.uid != "mine"
    assert (made.metadata.generation, made.metadata.deletion_timestamp) == (1, None)


async def test_a_name_is_given_once(store: Store) -> None:
    await store.create(job())
    with pytest.raises(AlreadyExists, match=r"^job/w exists already"):
        await store.create(job())
    await store.create(job(namespace="alice"))


async def test_resource_version_is_never_in_the_text(store: Store, kv: MemoryKV) -> None:
    made = await store.create(job())
    made.status.node = "n1"
    written = await store.update_status(made)
    stored = await kv.get(keys.object_key(Job, "w", "default"))
    assert stored is not None
    assert "resourceVersion" not in json.loads(stored.value)["metadata"]
    assert written.metadata.resource_version == stored.mod_revision


async def test_a_resource_version_in_the_text_is_not_believed(store: Store, kv: MemoryKV) -> None:
    made = await store.create(job())
    key = keys.object_key(Job, "w", "default")
    await kv.txn([], [Put(key, made.to_json())])
    found = await store.get(Job, "w")
    stored = await kv.get(key)
    assert stored is not None
    assert found.metadata.resource_version == stored.mod_revision != made.metadata.resource_version


async def test_update_keeps_the_status_and_counts_the_generation(store: Store) -> None:
    made = await store.create(job())
    made.status.node = "n1"
    made = await store.update_status(made)
    made.status.node = "elsewhere"
    made.spec.termination_grace = 3
    made = await store.update(made)
    assert (made.status.node, made.spec.termination_grace, made.metadata.generation) == ("n1", 3, 2)


async def test_status_and_labels_do_not_count_as_a_generation(store: Store) -> None:
    made = await store.create(job())
    made.metadata.labels["a"] = "b"
    made = await store.update(made)
    made.status.phase = JobPhase.RUNNING
    made = await store.update_status(made)
    assert made.metadata.generation == 1


async def test_update_status_keeps_everything_else(store: Store) -> None:
    made = await store.create(job())
    made.status.node = "n1"
    made.spec.termination_grace = 99
    made.metadata.labels["a"] = "b"
    written = await store.update_status(made)
    assert (written.status.node, written.spec.termination_grace, written.metadata.labels) == ("n1", 10.0, {})
    assert written == await store.get(Job, "w")


@pytest.mark.parametrize("method", ["update", "update_status"])
async def test_a_write_over_somebody_elses_is_a_conflict(store: Store, method: str) -> None:
    mine = await store.create(job())
    theirs = mine.model_copy(deep=True)
    theirs.metadata.labels["theirs"] = "1"
    await store.update(theirs)
    mine.metadata.labels["mine"], mine.status.node = "1", "n1"
    with pytest.raises(Conflict):
        await getattr(store, method)(mine)
    assert (await store.get(Job, "w")).metadata.labels == {"theirs": "1"}


async def test_an_object_that_was_never_read_cannot_be_updated(store: Store) -> None:
    await store.create(job())
    with pytest.raises(Invalid, match=r"metadata\.resourceVersion: is missing"):
        await store.update(job())


async def test_writing_what_is_there_writes_nothing(store: Store, kv: MemoryKV) -> None:
    made = await store.create(job())
    before = kv.server.revision
    assert await store.update(made) == made
    assert await store.update_status(made) == made
    assert kv.server.revision == before


async def test_what_was_assigned_in_python_is_checked_too(store: Store, kv: MemoryKV) -> None:
    made = await store.create(job())
    made.status.exit_code = "zero"  # type: ignore[assignment]
    before = kv.server.revision
    with pytest.raises(Invalid, match=r"status\.exitCode"):
        await store.update_status(made)
    made.spec.termination_grace = "soon"  # type: ignore[assignment]
    with pytest.raises(Invalid):
        await store.update(made)
    assert kv.server.revision == before


async def test_change_starts_again_when_somebody_wrote_in_between(store: Store) -> None:
    await store.create(job())
    met: list[int] = []

    def label(fresh: Job) -> None:
        if not met:  # somebody else is quicker, once
            met.append(1)
            task.append(asyncio.ensure_future(store.change(Job, "w", None, lambda j: j.metadata.labels.update(theirs="1"))))
        fresh.metadata.labels["mine"] = "1"

    task: list[asyncio.Future[Job]] = []
    await store.change(Job, "w", None, label)
    await task[0]
    assert (await store.get(Job, "w")).metadata.labels == {"mine": "1", "theirs": "1"}


async def test_change_gives_up_when_others_never_stop(store: Store, kv: MemoryKV) -> None:
    await store.create(job())
    ours = Store(kv.client())

    def overtake(call: str, moment: str) -> None:
        if (call, moment) == ("txn", "before"):
            current = kv.server.get(keys.object_key(Job, "w", "default"))
            assert current is not None
            kv.server.txn([], [Put(current.key, current.value)], [])

    ours.kv.hook = overtake  # type: ignore[attr-defined]
    with pytest.raises(Conflict, match="job/w"):
        await ours.change(Job, "w", None, lambda j: j.metadata.labels.update(a="b"))


class TestDelete:
    async def test_without_finalizers_it_is_gone(self, store: Store) -> None:
        await store.create(node())
        assert await store.delete(Node, "n1") is True
        with pytest.raises(NotFound, match=r"^node/n1 does not exist$"):
            await store.get(Node, "n1")

    async def test_with_finalizers_it_waits(self, store: Store, clock: Clock) -> None:
        made = await store.create(job())
        assert await store.delete(Job, "w") is False
        marked = await store.get(Job, "w")
        assert marked.metadata.deletion_timestamp == clock.now
        clock.advance(5)
        assert await store.delete(Job, "w") is False
        assert await store.get(Job, "w") == marked
        await store.remove_finalizer(made, STOP_FINALIZER)
        with pytest.raises(NotFound):
            await store.get(Job, "w")
        await store.remove_finalizer(made, STOP_FINALIZER)  # done already

    async def test_the_last_finalizer_alone_deletes_nothing(self, store: Store) -> None:
        made = await store.create(job())
        await store.remove_finalizer(made, STOP_FINALIZER)
        assert (await store.get(Job, "w")).metadata.finalizers == []

    async def test_a_finalizer_of_an_earlier_object_is_not_ours(self, store: Store) -> None:
        first = await store.create(job())
        await store.remove_finalizer(first, STOP_FINALIZER)
        await store.delete(Job, "w")
        await store.create(job())
        await store.remove_finalizer(first, STOP_FINALIZER)
        assert (await store.get(Job, "w")).metadata.finalizers == [STOP_FINALIZER]

    async def test_no_finalizer_can_be_added_to_a_leaving_object(self, store: Store) -> None:
        await store.create(job())
        await store.delete(Job, "w")
        leaving = await store.get(Job, "w")
        leaving.metadata.finalizers.append("other/one")
        with pytest.raises(Invalid, match=r"metadata\.finalizers"):
            await store.update(leaving)

    async def test_nobody_can_undo_it(self, store: Store) -> None:
        await store.create(job())
        await store.delete(Job, "w")
        leaving = await store.get(Job, "w")
        leaving.metadata.deletion_timestamp = None
        leaving.metadata.labels["a"] = "b"
        assert (await store.update(leaving)).metadata.deletion_timestamp is not None

    async def test_another_uid_is_another_object(self, store: Store) -> None:
        made = await store.create(node())
        with pytest.raises(NotFound, match="with uid 7"):
            await store.delete(Node, "n1", uid="7")
        assert await store.delete(Node, "n1", uid=made.metadata.uid) is True

    async def test_what_is_not_there(self, store: Store) -> None:
        with pytest.raises(NotFound, match=r"^job/alice/w does not exist$"):
            await store.delete(Job, "w", "alice")

    async def test_a_broken_object_goes_at_once(self, store: Store, kv: MemoryKV) -> None:
        await kv.txn([], [Put(keys.object_key(Job, "w", "default"), b"{")])
        assert await store.delete(Job, "w") is True


class TestBroken:
    @pytest.mark.parametrize(
        ("raw", "why"),
        [
            (b"\xff", "Invalid JSON"),
            (b"[]", "must be a mapping|Input should be an object"),
            (b'{"kind":"Job","metadata":{"name":"w"},"spec":{"command":["a"],"cmd":1}}', r"spec\.cmd: unknown field"),
            (b'{"kind":"Job","metadata":{"name":"other"},"spec":{"command":["a"]}}', "calls itself default/other"),
            (b'{"kind":"Node","metadata":{"name":"w"},"spec":{}}', "kind"),
        ],
    )
    async def test_it_is_told_apart(self, store: Store, kv: MemoryKV, raw: bytes, why: str) -> None:
        await store.create(job("good"))
        await kv.txn([], [Put(keys.object_key(Job, "w", "default"), raw)])
        found = await store.list(Job)
        assert [item.name for item in found.items] == ["good"]
        (bad,) = found.broken
        assert (bad.kind, bad.namespace, bad.name, bad.raw, bad.label) == ("Job", "default", "w", raw, "job/w")
        with pytest.raises(Invalid, match=f"^job/w: .*({why})"):
            await store.get(Job, "w")
        with pytest.raises(AlreadyExists, match="broken"):
            await store.create(job())

    async def test_list_is_of_one_kind_and_namespace(self, store: Store) -> None:
        await store.create(job("a"))
        await store.create(job("b", "alice"))
        await store.create(node())
        assert [j.name for j in (await store.list(Job)).items] == ["b", "a"]
        assert [j.name for j in (await store.list(Job, "alice")).items] == ["b"]
        assert [n.name for n in (await store.list(Node, "alice")).items] == ["n1"]

    async def test_events_are_not_written_as_objects(self, store: Store) -> None:
        with pytest.raises(Invalid, match="event"):
            await store.get(Event, "e")


class TestGuard:
    async def test_a_fallen_guard_is_fenced_and_nothing_is_written(self, store: Store, kv: MemoryKV) -> None:
        made = await store.create(job())
        await store.create(node())
        deposed = store.guarded(Compare("/mx/leader", Target.CREATE, 3))
        before = kv.server.revision
        made.metadata.labels["a"], made.status.node = "b", "n1"
        for write in (
            deposed.update(made),
            deposed.update_status(made),
            deposed.create(job("new")),
            deposed.change(Job, "w", None, lambda j: j.metadata.labels.update(a="b")),
            deposed.delete(Job, "w"),
            deposed.delete(Node, "n1"),
            deposed.remove_finalizer(made, STOP_FINALIZER),
            deposed.transaction().delete("/mx/x").commit(),
        ):
            with pytest.raises(Fenced, match=r"^/mx/leader is not ours any more"):
                await write
        assert kv.server.revision == before

    async def test_a_standing_guard_lets_pass(self, store: Store) -> None:
        await store.guarded(absent("/mx/leader")).create(job())

    async def test_fenced_comes_before_taken(self, store: Store) -> None:
        await store.create(job())
        with pytest.raises(Fenced):
            await store.guarded(Compare("/mx/leader", Target.CREATE, 3)).create(job())


class TestLostAnswers:
    async def test_our_own_creation_is_recognised(self, store: Store, kv: MemoryKV) -> None:
        kv.fail_next("txn", applied=True)
        made = await store.create(node(mac="52:54:00:00:00:01"))
        assert made == await store.get(Node, "n1")

    async def test_so_is_our_own_change(self, store: Store, kv: MemoryKV) -> None:
        made = await store.create(job())
        made.status.node = "n1"
        kv.fail_next("txn", applied=True)
        made = await store.update_status(made)
        assert made == await store.get(Job, "w")
        kv.fail_next("txn", applied=True)
        assert await store.delete(Job, "w") is False
        await store.create(node())
        kv.fail_next("txn", applied=True)
        assert await store.delete(Node, "n1") is True

    async def test_a_creation_that_somebody_changed_since_is_recognised(self, store: Store, kv: MemoryKV) -> None:
        other = Store(kv.client())

        def change(call: str, moment: str) -> None:
            if (call, moment) == ("txn", "after"):
                kv.hook = None
                there = kv.server.get(keys.object_key(Job, "w", "default"))
                assert there is not None
                kv.server.txn([], [Put(there.key, there.value.replace(b'"labels":{}', b'"labels":{"a":"b"}'))], [])

        kv.hook = change
        kv.fail_next("txn", applied=True)
        made = await store.create(job())
        assert made == await other.get(Job, "w")
        assert made.metadata.labels == {"a": "b"}

    async def test_a_write_that_was_not_done_is_done(self, store: Store, kv: MemoryKV) -> None:
        kv.fail_next("txn", applied=False)
        assert (await store.create(job())).metadata.uid == (await store.get(Job, "w")).metadata.uid

    async def test_somebody_elses_object_is_not_taken_for_ours(self, store: Store, kv: MemoryKV) -> None:
        await Store(kv.client()).create(job())
        kv.fail_next("txn", applied=False)
        with pytest.raises(AlreadyExists):
            await store.create(job())

    async def test_an_outage_ends_in_unavailable(self, store: Store, kv: MemoryKV) -> None:
        for _ in range(3):
            kv.fail_next("txn")
        with pytest.raises(Unavailable):
            await store.create(job())


class TestTransaction:
    async def test_all_of_it_at_one_revision(self, store: Store, kv: MemoryKV) -> None:
        made = await store.create(job())
        made.status.node = "n1"
        revision = await store.transaction().put_status(made).create(node()).put("/mx/x", made.spec).delete("/mx/y").commit()
        assert (await store.get(Job, "w")).metadata.resource_version == revision
        assert (await store.get(Node, "n1")).metadata.resource_version == revision
        stored = await kv.get("/mx/x")
        assert stored is not None and stored.mod_revision == revision
        assert stored.value == made.spec.to_json()

    async def test_nothing_of_it(self, store: Store, kv: MemoryKV) -> None:
        made = await store.create(job())
        await store.change(Job, "w", None, lambda j: j.metadata.labels.update(a="b"))
        made.status.node = "n1"
        before = kv.server.revision
        with pytest.raises(Conflict):
            await store.transaction().put_status(made).put("/mx/x", made.spec).commit()
        with pytest.raises(Conflict, match=r"^/mx/x changed meanwhile"):
            await store.transaction().expect(Compare("/mx/x", Target.MOD, 5)).create(node()).commit()
        with pytest.raises(Conflict, match=r"^job/w changed meanwhile"):
            await store.transaction().create(job()).put("/mx/x", made.spec).commit()
        assert kv.server.revision == before

    async def test_an_unchanged_status_still_expects_its_object(self, store: Store, kv: MemoryKV) -> None:
        made = await store.create(job())
        transaction = store.transaction().put_status(made).put("/mx/x", made.spec)
        revision = await transaction.commit()
        assert (await store.get(Job, "w")).metadata.resource_version == made.metadata.resource_version != revision

    async def test_a_lost_answer_is_recognised(self, store: Store, kv: MemoryKV) -> None:
        made = await store.create(job())
        kv.fail_next("txn", applied=True)
        revision = await store.transaction().expect(absent("/mx/x")).put("/mx/x", made.spec).commit()
        stored = await kv.get("/mx/x")
        assert stored is not None and stored.mod_revision == revision


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
def test_interleaved_writers_lose_no_update(steps: list[tuple[int, int, bool]]) -> None:
    """Each writer adds a label or a move of its own, all at once in an order drawn at random; none goes missing."""

    async def write(store: Store, number: int, yields: int, status: bool) -> None:
        for _ in range(yields):
            await asyncio.sleep(0)
        if status:
            await store.change_status(Job, "w", None, lambda j: setattr(j.status, "move_count", j.status.move_count + 1))
        else:
            await store.change(Job, "w", None, lambda j: j.metadata.labels.update({f"l{number}": "1"}))

    async def run() -> None:
        server = MemoryKV()
        await Store(server).create(job())
        async with asyncio.TaskGroup() as group:
            for number, (writer, yields, status) in enumerate(steps):
                group.create_task(write(Store(server.client()), number, writer + yields, status))
        found = await Store(server).get(Job, "w")
        assert found.metadata.labels == {f"l{n}": "1" for n, (_, _, status) in enumerate(steps) if not status}
        assert found.status.move_count == sum(status for _, _, status in steps)

    asyncio.run(run())
