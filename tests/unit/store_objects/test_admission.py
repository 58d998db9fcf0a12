"""What is refused, before anything is written."""

import pytest

from crds import keys
from crds.image import Image
from crds.job import Job, JobNetwork, NetworkMode
from crds.meta import Metadata
from crds.migration import Migration, MigrationSpec
from crds.node import Node
from store.admission import Refused, largest
from store.errors import Fenced
from store.kv import MAX_VALUE, Compare, Put, Target
from store.memory import MemoryKV
from store.store import Store
from tests.resources import job, node

CHANGES = [("command", ["false"]), ("env", {"A": "b"}), ("workdir", "/tmp"), ("network", JobNetwork(mode=NetworkMode.OWN))]
MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"


async def test_a_cluster_wide_kind_has_no_namespace(store: Store) -> None:
    wrong = Image(metadata=Metadata(name="trixie", namespace="alice"))
    with pytest.raises(Refused, match=r"^image/trixie: metadata.namespace: Image belongs to the whole cluster"):
        await store.create(wrong)


async def test_size_is_refused_with_the_field_that_holds_it(store: Store, kv: MemoryKV) -> None:
    before = kv.server.revision
    with pytest.raises(
        Refused, match=rf"^job/w: spec\.env\.DATA: too large: with it the object takes \d+ bytes; {MAX_VALUE} are"
    ) as caught:
        await store.create(job(env={"A": "b", "DATA": "x" * 3 * 2**20}))
    assert len(str(caught.value)) < 200
    assert kv.server.revision == before


def test_the_largest_part_is_only_named_when_it_outweighs_the_rest() -> None:
    assert largest({"a": "x" * 10, "b": ["y" * 50, "z"]}) == ("b", 0)
    assert largest({"a": ["x"] * 100, "b": "y"}) == ("a",)
    assert largest({}) == ()


@pytest.mark.parametrize(("field", "value"), CHANGES)
async def test_what_runs_cannot_be_changed(store: Store, field: str, value: object) -> None:
    made = await store.create(job())
    setattr(made.spec, field, value)
    with pytest.raises(Refused, match=rf"^job/w: spec\.{field}: cannot be changed: delete job/w and create it again$"):
        await store.update(made)


async def test_where_it_runs_can(store: Store) -> None:
    made = await store.create(job())
    made.spec.placement.pinned, made.spec.migration.allowed, made.spec.termination_grace = True, False, 1.0
    assert (await store.update(made)).metadata.generation == 2


async def test_a_migration_cannot_be_changed(store: Store) -> None:
    made = await store.create(Migration(metadata=Metadata(name="m"), spec=MigrationSpec(job="w")))
    made.spec.to, made.spec.requested_by = "n2", "me"
    with pytest.raises(Refused, match=r"spec\.to: cannot be changed.*; spec\.requestedBy: cannot be changed"):
        await store.update(made)


async def test_but_it_can_be_called_off_once(store: Store) -> None:
    made = await store.create(Migration(metadata=Metadata(name="m"), spec=MigrationSpec(job="w")))
    made.spec.cancelled = True
    made = await store.update(made)
    made.spec.cancelled = False
    with pytest.raises(Refused, match=r"spec\.cancelled: cannot be taken back"):
        await store.update(made)


class TestAddresses:
    async def test_two_nodes_never_share_one(self, store: Store) -> None:
        await store.create(node("n1", mac=MAC, address="10.77.0.1"))
        with pytest.raises(Refused, match=rf"^node/n2: spec\.mac: {MAC} belongs to node/n1 already"):
            await store.create(node("n2", mac=MAC.upper()))
        with pytest.raises(Refused, match=r"^node/n2: spec\.address: 10\.77\.0\.1 belongs to node/n1 already"):
            await store.create(node("n2", address="10.77.0.1"))

    async def test_nor_by_a_change(self, store: Store) -> None:
        await store.create(node("n1", mac=MAC))
        await store.create(node("n2"))
        with pytest.raises(Refused, match="belongs to node/n1"):
            await store.change(Node, "n2", None, lambda n: setattr(n.spec, "mac", MAC))

    async def test_it_is_free_again_after_a_change_or_deletion(self, store: Store, kv: MemoryKV) -> None:
        await store.create(node("n1", mac=MAC))
        await store.change(Node, "n1", None, lambda n: setattr(n.spec, "mac", OTHER))
        await store.create(node("n2", mac=MAC))
        await store.delete(Node, "n1")
        await store.create(node("n3", mac=OTHER))
        entries = await kv.list(keys.ADDRESSES)
        assert {e.key.removeprefix(keys.ADDRESSES): e.value for e in entries.items} == {MAC: b"n2", OTHER: b"n3"}

    async def test_it_is_free_again_when_the_last_finalizer_goes(self, store: Store, kv: MemoryKV) -> None:
        first = node("n1", mac=MAC)
        first.metadata.finalizers.append("x/y")
        made = await store.create(first)
        assert await store.delete(Node, "n1") is False
        await store.remove_finalizer(made, "x/y")
        assert (await kv.list(keys.ADDRESSES)).items == ()

    async def test_of_two_creations_at_once_one_wins(self, kv: MemoryKV) -> None:
        """The second is written between the first one's look and its write."""
        first, second = Store(kv.client()), Store(kv.client())
        assert isinstance(first.kv, MemoryKV)

        def overtake(call: str, moment: str) -> None:
            if (call, moment) == ("txn", "before") and "n2" not in made:
                made.append("n2")
                kv.server.txn(
                    [], [Put(keys.address(MAC), b"n2"), Put(keys.object_key(Node, "n2"), node("n2", mac=MAC).to_json())], []
                )

        made: list[str] = []
        first.kv.hook = overtake
        with pytest.raises(Refused, match="belongs to node/n2 already"):
            await first.create(node("n1", mac=MAC))
        assert [n.name for n in (await second.list(Node)).items] == ["n2"]

    async def test_of_two_changes_at_once_one_wins(self, kv: MemoryKV) -> None:
        store = Store(kv.client())
        assert isinstance(store.kv, MemoryKV)
        await store.create(node("n1"))

        def overtake(call: str, moment: str) -> None:
            if (call, moment) == ("txn", "before"):
                kv.server.txn(
                    [], [Put(keys.address(MAC), b"n2"), Put(keys.object_key(Node, "n2"), node("n2", mac=MAC).to_json())], []
                )

        store.kv.hook = overtake
        with pytest.raises(Refused, match="belongs to node/n2 already"):
            await store.change(Node, "n1", None, lambda n: setattr(n.spec, "mac", MAC))

    @pytest.mark.parametrize("owner", [None, node("gone", mac=OTHER).to_json()])
    async def test_what_nobody_has_any_more_is_taken_over(self, store: Store, kv: MemoryKV, owner: bytes | None) -> None:
        await kv.txn([], [Put(keys.address(MAC), b"gone")])
        if owner:
            await kv.txn([], [Put(keys.object_key(Node, "gone"), owner)])
        await store.create(node("n1", mac=MAC))
        entry = await kv.get(keys.address(MAC))
        assert entry is not None and entry.value == b"n1"

    async def test_a_broken_owner_keeps_it(self, store: Store, kv: MemoryKV) -> None:
        await kv.txn([], [Put(keys.address(MAC), b"n1"), Put(keys.object_key(Node, "n1"), b"{")])
        with pytest.raises(Refused, match="belongs to node/n1"):
            await store.create(node("n2", mac=MAC))

    async def test_a_deposed_leader_takes_none(self, store: Store, kv: MemoryKV) -> None:
        with pytest.raises(Fenced):
            await store.guarded(Compare("/mx/leader", Target.CREATE, 3)).create(node("n1", mac=MAC))
        assert (await kv.list("/mx/")).items == ()

    async def test_a_name_that_is_taken_reserves_nothing(self, store: Store, kv: MemoryKV) -> None:
        await store.create(node("n1"))
        with pytest.raises(Exception, match="exists already"):
            await store.create(node("n1", mac=MAC))
        assert (await kv.list(keys.ADDRESSES)).items == ()


async def test_a_job_keeps_its_namespace(store: Store) -> None:
    made = await store.create(job(namespace="alice"))
    made.metadata.labels["a"] = "b"
    assert (await store.update(made)).metadata.namespace == "alice"
    assert [j.name for j in (await store.list(Job, "alice")).items] == ["w"]
