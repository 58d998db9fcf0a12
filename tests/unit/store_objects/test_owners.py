"""Children whose owners have gone."""

import pytest

from crds.image import Image
from crds.job import Job
from crds.meta import Metadata, OwnerReference
from crds.node import Node
from store.objects import Broken
from store.owners import find_orphans, owner_reference
from store.store import Store
from tests.resources import job, node


async def owned(store: Store, name: str, *owners: OwnerReference) -> Job:
    child = job(name, namespace="alice")
    child.metadata.owner_references = list(owners)
    return await store.create(child)


async def test_only_those_without_any_owner_left(store: Store) -> None:
    there, gone = await store.create(node("there")), await store.create(node("gone"))
    orphan = await owned(store, "orphan", owner_reference(gone))
    child = await owned(store, "child", owner_reference(there))
    both = await owned(store, "both", owner_reference(there), owner_reference(gone))
    free = await owned(store, "free")
    assert find_orphans([there, gone, orphan, child, both, free]) == []
    assert find_orphans([there, orphan, child, both, free]) == [orphan]
    assert find_orphans([orphan, child, both, free]) == [orphan, child, both]


async def test_another_object_of_the_name_is_no_owner(store: Store) -> None:
    first = await store.create(node("n"))
    child = await owned(store, "child", owner_reference(first))
    await store.delete(Node, "n")
    second = await store.create(node("n"))
    assert find_orphans([child, second]) == [child]


@pytest.mark.parametrize(("kind", "namespace", "kept"), [("Node", "_", True), ("Node", "bob", False), ("Job", "_", False)])
async def test_a_broken_owner_is_still_an_owner(store: Store, kind: str, namespace: str, kept: bool) -> None:
    child = await owned(store, "child", OwnerReference(kind="Node", name="n", uid="1"))
    broken = Broken("key", kind, "n", namespace, b"{", "why")
    assert find_orphans([child], [broken]) == ([] if kept else [child])


def test_an_owner_must_have_been_stored() -> None:
    with pytest.raises(ValueError, match="image/i has no uid yet"):
        owner_reference(Image(metadata=Metadata(name="i")))
