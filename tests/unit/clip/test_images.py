"""Images in the store and on the shelf: recorded with their layers, failed ones told, unused ones let go."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from clip import images as module
from clip import revisions
from clip.builder import Builder
from clip.errors import ImageError
from clip.images import Images, layers_of
from clip.revisions import remove, roll_back
from crds import keys
from crds.image import LAYERS_FINALIZER, Image, ImageSpec, Init
from crds.meta import Condition, find_condition
from crds.node import Node
from store.errors import NotFound
from store.kv import Put
from store.memory import MemoryKV
from store.store import Store
from tests.fakes.workshop import FakeWorkshop

Names = Callable[[], set[str]]


@pytest.fixture
def store() -> Store:
    return Store(MemoryKV())


@pytest.fixture
def images(store: Store, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.setattr(module, "STATUS_SECONDS", 0.01)
    return Images(store, builder, "images-test")


async def declare(store: Store, name: str = "numpy", **spec: Any) -> Image:
    spec = {"kernel": "linux-image-cloud-amd64"} | spec
    return await store.create(Image.model_validate({"metadata": {"name": name}, "spec": spec}))


async def change(store: Store, **spec: Any) -> None:
    def edit(image: Image) -> None:
        image.spec = ImageSpec.model_validate(image.spec.to_data() | spec)

    await store.change(Image, "numpy", None, edit)


async def now(store: Store) -> Image:
    return await store.get(Image, "numpy")


async def built(store: Store) -> Condition:
    condition = find_condition((await now(store)).status.conditions, "Built")
    assert condition is not None
    return condition


async def test_a_build_is_recorded_with_its_manifest_and_holds_its_layers(images: Images, store: Store) -> None:
    await declare(store)
    revision = await images.build("numpy")
    image = await now(store)
    assert image.status.current_revision == revision and image.status.building is None
    assert await store.kv.get(keys.manifest("numpy", revision.digest)) is not None
    assert images.builder.shelf.held("images-test") == set(layers_of(image))
    assert (await built(store)).reason == "Complete"


async def test_nothing_is_built_when_nothing_changed(images: Images, store: Store, workshop: FakeWorkshop) -> None:
    await declare(store)
    first = await images.build("numpy")
    workshop.built.clear()
    before = (await now(store)).metadata.resource_version
    assert await images.build("numpy") == first
    assert (await now(store)).metadata.resource_version == before
    again = await images.build("numpy", anew=True)
    assert (again.number, again.digest) == (1, first.digest), "rebuilding without a change: the same digest, no drift"
    assert len(workshop.built) == 2


async def test_a_failure_stands_in_the_condition_and_the_next_build_clears_it(
    images: Images, store: Store, workshop: FakeWorkshop, on_shelf: Names
) -> None:
    await declare(store)
    workshop.full = True
    with pytest.raises(ImageError, match="no space is left"):
        await images.build("numpy")
    assert ((await built(store)).reason, (await now(store)).status.building) == ("DiskFull", None)
    assert on_shelf() == {".lock"}
    workshop.full = False
    await images.build("numpy")
    assert (await built(store)).reason == "Complete"


async def test_progress_is_seen_by_others_while_it_builds(images: Images, store: Store, workshop: FakeWorkshop) -> None:
    await declare(store)
    workshop.pause = threading.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(images.build("numpy"))
        seen = await until(store, lambda image: image.status.building and image.status.building.phase == "unpacking")
        assert seen.status.building and 0 < seen.status.building.fraction < 1
        assert (await built(store)).reason == "Building"
        workshop.pause.set()
    assert (await now(store)).status.building is None


async def test_a_build_that_is_stopped_leaves_nothing_and_says_so(
    images: Images, store: Store, workshop: FakeWorkshop, on_shelf: Names
) -> None:
    await declare(store)
    workshop.pause = threading.Event()
    task = asyncio.create_task(images.build("numpy"))
    await until(store, lambda image: image.status.building)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert on_shelf() == {".lock"}
    assert ((await built(store)).reason, (await now(store)).status.building) == ("Stopped", None)


async def test_a_build_is_recorded_though_others_write_the_image_meanwhile(images: Images, store: Store) -> None:
    await declare(store)

    def disturb(call: str, moment: str) -> None:
        if call == "txn" and moment == "before" and writes:
            writes.pop()
            kv = store.kv
            assert isinstance(kv, MemoryKV)
            key = keys.object_key(Image, "numpy")
            stored = kv.server.get(key)
            assert stored is not None
            kv.server.txn((), (Put(key, stored.value),), ())

    writes = [1, 2]
    built_now = await asyncio.to_thread(images.builder.build, (await now(store)).spec)
    await asyncio.to_thread(images._hold, (*built_now.layers, built_now.boot))
    kv = store.kv
    assert isinstance(kv, MemoryKV)
    kv.hook = disturb
    revision = await images._record("numpy", built_now, 1)
    kv.hook = None
    assert not writes and (await now(store)).status.revisions == [revision]


@asynccontextmanager
async def running(images: Images) -> AsyncIterator[None]:
    task = asyncio.create_task(images.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(store: Store, holds: Callable[[Image], object]) -> Image:
    async with asyncio.timeout(20), aclosing(store.kv.watch(keys.OBJECTS, revision=1)) as changes:
        async for _ in changes:
            if holds(image := await now(store)):
                return image
    raise AssertionError("a watch never ends")


async def test_a_change_of_the_spec_is_built_by_itself(images: Images, store: Store) -> None:
    await declare(store)
    async with running(images):
        first = await until(store, lambda image: image.status.current == 1)
        assert LAYERS_FINALIZER in first.metadata.finalizers
        await change(store, init="systemd")
        second = await until(store, lambda image: image.status.current == 2)
    revision = second.status.current_revision
    assert revision is not None and revision.init is Init.SYSTEMD


async def test_a_rollback_is_not_built_over(images: Images, store: Store, workshop: FakeWorkshop) -> None:
    await declare(store)
    await images.look()
    await change(store, packages=["curl"])
    await images.look()
    await store.change_status(Image, "numpy", None, lambda image: roll_back(image, 1, images.clock()) and None)
    await images.look()
    assert (await now(store)).status.current == 3, "the way back stays the current one"
    revision = await images.build("numpy")
    assert revision.number == 4 and revision.rollback_of is None, "until somebody asks for a build"


async def test_what_somebody_builds_from_another_source_is_not_built_over(images: Images, store: Store, builder: Builder) -> None:
    await declare(store)
    await images.look()
    for file in builder.project.glob("*/inner/code.py"):
        file.write_text("# newer")
    newer = await Images(store, builder, "images-person").build("numpy")
    assert newer.number == 2
    older = replace(builder, project=builder.project / "older")
    shutil.copytree(builder.project, older.project)
    (older.project / "clip/inner/code.py").write_text("# what mx-clip was started from")
    images.builder = older
    await images.look()
    assert (await now(store)).status.current == 2
    await change(store, packages=["curl"])
    await images.look()
    assert (await now(store)).status.current == 3, "another spec is built by whoever sees it"
    await Images(store, older, "images-test").look()
    assert (await now(store)).status.current == 3, "there is nothing newer to build"


async def test_what_only_another_spec_cures_is_not_tried_again(images: Images, store: Store, workshop: FakeWorkshop) -> None:
    clock = [0.0]
    images.monotonic = lambda: clock[0]
    await declare(store, packages=["no-such"])
    await images.look()
    assert (await built(store)).reason == "UnknownPackage"
    tries = len(workshop.built)
    clock[0] += 1e6
    await images.look()
    assert len(workshop.built) == tries
    await change(store, packages=["curl"])
    await images.look()
    assert (await now(store)).status.current == 1


async def test_a_mirror_that_was_away_is_tried_again_ever_later(images: Images, store: Store, workshop: FakeWorkshop) -> None:
    clock = [0.0]
    images.monotonic = lambda: clock[0]
    await declare(store)
    workshop.say, workshop.code = ["W: Failed to fetch x"], 100
    tries = []
    for _ in range(200):
        before = len(workshop.built)
        await images.look()
        if len(workshop.built) > before:
            tries.append(clock[0])
        clock[0] += 10
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses[:4] == [30, 60, 120, 240]
    workshop.code = 0
    clock[0] += 1000
    await images.look()
    assert (await now(store)).status.current == 1


async def test_what_somebody_else_builds_is_left_to_them_unless_they_died(images: Images, store: Store) -> None:
    await declare(store)
    began = images.clock()
    await store.change_status(Image, "numpy", None, lambda image: revisions.progress(image, "unpacking", 0.5, 1, began))
    await images.look()
    assert (await now(store)).status.current is None
    images.clock = lambda: began + timedelta(hours=1)
    await images.look()
    image = await now(store)
    assert (image.status.current, image.status.building) == (1, None)


async def test_layers_of_a_removed_revision_go_unless_another_needs_them(images: Images, store: Store) -> None:
    await declare(store)
    await images.build("numpy")
    await change(store, packages=["curl"])
    await images.build("numpy")
    image = await now(store)
    old = remove(image, 1, [])
    await store.update_status(image)
    gone = await images.drop((*old.layers, old.boot))
    assert [name.split("-")[0] for name in gone] == [], "the plain base and agent stay for labs, the kernel is shared"
    await change(store, packages=["bash"])
    await images.build("numpy")
    image = await now(store)
    old = remove(image, 2, [])
    await store.update_status(image)
    gone = await images.drop((*old.layers, old.boot))
    assert sorted(name.split("-")[0] for name in gone) == ["agent", "base"]
    assert all(map(images.builder.shelf.has, layers_of(await now(store))))


async def test_an_image_that_nodes_run_does_not_go(images: Images, store: Store) -> None:
    await declare(store)
    await images.look()
    node = await store.create(Node.model_validate({"metadata": {"name": "n1"}, "spec": {"image": "numpy"}}))
    assert not await store.delete(Image, "numpy")
    await images.look()
    image = await now(store)
    assert image.status.message == "in use by n1" and images.builder.shelf.held("images-test")
    await store.delete(Node, node.name)
    await images.look()
    with pytest.raises(NotFound):
        await now(store)
    assert (await store.kv.list(keys.MANIFESTS)).items == ()
    assert not images.builder.shelf.held("images-test")


async def test_layers_that_nobody_recorded_are_let_go_after_a_while(
    images: Images, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = await asyncio.to_thread(images.builder.build, ImageSpec.model_validate({"packages": ["curl"]}))
    await asyncio.to_thread(images._hold, revision.layers)
    await images.look()
    assert images.builder.shelf.held("images-test") == set(revision.layers), "it may be about to be recorded"
    monkeypatch.setattr(module, "GRACE_SECONDS", -1.0)
    await images.look()
    assert not images.builder.shelf.held("images-test")
