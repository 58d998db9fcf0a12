"""Images in etcd and on the shelf of this machine: builds what specs ask for, records revisions, keeps their layers.

Two use it: ``mxctl image`` for one image, and mx-clip for all of them, all the time (``Images.run``). Both may at once: the shelf
lets one build at a time, and what is written is compared. The order is always layers, hold, record: a revision that is recorded has
its layers. Layers are held in the name of ``owner``, the cluster, as several clusters (labs) may share a shelf.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from clip import revisions
from clip.builder import Builder, Built, Count, counted
from clip.errors import NO_KERNEL, UNKNOWN_ACCOUNT, UNKNOWN_PACKAGE, ClipError, ImageError
from clip.image import wanted
from crds import keys
from crds.image import BUILT, LAYERS_FINALIZER, Image, Revision
from crds.meta import find_condition
from crds.node import Node
from store.errors import Conflict, NotFound, StoreError, Unavailable
from store.informer import Informer
from store.objects import utcnow
from store.store import Store

log = logging.getLogger(__name__)

STATUS_SECONDS = 1.0
"""Between two writes of progress at least."""
LOOK_SECONDS = 30.0
"""Between two looks at what only time or other keys change."""
GRACE_SECONDS = 3600.0
"""A layer that was held so lately may belong to a build that is just being recorded."""
FIRST_RETRY, LONGEST_RETRY = 30.0, 900.0
BUILD_SECONDS = 1200.0
"""Somebody's build that began longer ago is dead."""
LASTING = frozenset({UNKNOWN_PACKAGE, UNKNOWN_ACCOUNT, NO_KERNEL})
"""Reasons that only another spec cures."""
_ATTEMPTS = 5


def layer_owner(cluster: str) -> str:
    """How a cluster is called among the users of layers."""
    return f"images-{cluster}"


def silent(phase: str, fraction: float, /) -> None:
    """Tells nobody."""


@dataclass(slots=True)
class _Failure:
    """Of one image's last build."""

    recipe: str
    pause: float
    again_at: float


@dataclass
class Images:
    """All images of a cluster. ``owner`` names the cluster on the shelf."""

    store: Store
    builder: Builder
    owner: str
    clock: Callable[[], datetime] = utcnow
    monotonic: Callable[[], float] = time.monotonic
    _failures: dict[str, _Failure] = field(default_factory=dict)
    _began: datetime = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    # --- one image ---

    async def build(self, name: str, *, anew: bool = False, tell: Count = silent) -> Revision:
        """The revision of the image's spec, as the current one. Raises ImageError, which its status tells, too, and NotFound."""
        image = await self.store.get(Image, name)
        generation = image.metadata.generation
        if not anew and self.is_current(image) and image.status.current_revision:
            return image.status.current_revision
        try:
            built = await self._run(image, anew, tell)
            await asyncio.to_thread(self._hold, (*built.layers, built.boot))
        except ClipError as error:
            failure = error if isinstance(error, ImageError) else ImageError(str(error))  # the shelf is busy, for instance
            await self.store.change_status(Image, name, None, lambda i: revisions.fail(i, failure, generation, self.clock()))
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._forget_progress(name))
            raise
        return await self._record(name, built, generation)

    def is_current(self, image: Image) -> bool:
        """The current revision was built from what its spec and this source ask for, and is complete. ImageError."""
        current = image.status.current_revision
        return (
            current is not None
            and current.recipe == self.builder.recipe(image.spec)
            and current.rollback_of is None
            and all(map(self.builder.shelf.has, (*current.layers, current.boot)))
        )

    async def _run(self, image: Image, anew: bool, tell: Count) -> Built:
        """Builds in a thread; what it says goes to ``tell`` at once and into the status now and then."""
        said: list[tuple[str, float]] = []
        lock = threading.Lock()

        def note(phase: str, fraction: float) -> None:
            tell(phase, fraction)
            with lock:
                said[:] = [(phase, fraction)]

        def work() -> Built:
            report = counted(self.builder.phases(image.spec, anew=anew), note)
            return self.builder.build(image.spec, report, anew=anew)

        building = asyncio.create_task(asyncio.to_thread(work))
        try:
            while not building.done():
                with lock:
                    news, said[:] = said[:], []
                if news:
                    await self._show(image, *news[-1])
                await asyncio.wait([building], timeout=STATUS_SECONDS)
        except BaseException:  # cancelled: a thread cannot be, so what it waits for is ended
            while not building.done():
                self.builder.workshop.stop()
                await asyncio.wait([building], timeout=STATUS_SECONDS)
            raise
        return building.result()

    async def _show(self, image: Image, phase: str, fraction: float) -> None:
        generation = image.metadata.generation
        try:
            await self.store.change_status(
                Image, image.name, None, lambda i: revisions.progress(i, phase, fraction, generation, self.clock())
            )
        except (Conflict, Unavailable) as error:
            log.warning("%s: its progress was not written: %s", image.label, error)

    async def _forget_progress(self, name: str) -> None:
        stopped = ImageError("node image: the build was stopped; start it again with mxctl image build", "Stopped")
        try:
            image = await self.store.get(Image, name)
            generation = image.metadata.generation
            await self.store.change_status(Image, name, None, lambda i: revisions.fail(i, stopped, generation, self.clock()))
        except StoreError as error:
            log.warning("image/%s: that its build was stopped was not written: %s", name, error)

    async def _record(self, name: str, built: Built, generation: int) -> Revision:
        """Revision and manifest in one write."""
        for attempt in range(_ATTEMPTS):
            image = await self.store.get(Image, name)
            revision = revisions.record(image, built, generation, self.clock())
            transaction = self.store.transaction().put_status(image)
            transaction.put(keys.manifest(name, revision.digest), built.manifest)
            try:
                await transaction.commit()
                return (await self.store.get(Image, name)).status.numbered(revision.number) or revision
            except Conflict:
                if attempt + 1 == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _hold(self, layers: Iterable[str]) -> None:
        for layer in layers:
            self.builder.shelf.hold(layer, self.owner)

    async def drop(self, layers: Iterable[str]) -> list[str]:
        """Layers of a revision that is gone: those no other revision has are released, and removed when nobody else holds them."""
        listing = await self.store.list(Image)
        needed = {layer for image in listing.items for layer in layers_of(image)}
        if listing.broken:  # nobody knows what they need
            return []
        return await asyncio.to_thread(self._remove, [layer for layer in layers if layer not in needed])

    def _remove(self, layers: Iterable[str]) -> list[str]:
        plain, _ = wanted(self.builder.state, self.builder.project)
        gone = []
        for layer in layers:
            self.builder.shelf.release(layer, self.owner)
            if layer not in (plain.base, plain.agent) and self.builder.shelf.remove(layer):
                gone.append(layer)
        return gone

    # --- all of them, all the time ---

    async def run(self) -> None:
        """Until cancelled: builds what is wanted, one image after the other, and keeps the shelf in order."""
        await asyncio.to_thread(self.builder.shelf.sweep)
        informer = Informer(self.store.kv, keys.kind_prefix(Image))
        changed = asyncio.Event()
        informer.subscribe(lambda *_: changed.set())
        async with asyncio.TaskGroup() as group:
            group.create_task(informer.run())
            await informer.synced.wait()
            while True:
                changed.clear()
                await self.look()
                try:
                    await asyncio.wait_for(changed.wait(), self._patience())
                except TimeoutError:
                    continue

    def _patience(self) -> float:
        soonest = min((failure.again_at for failure in self._failures.values()), default=float("inf")) - self.monotonic()
        return max(0.1, min(LOOK_SECONDS, soonest))

    async def look(self) -> None:
        """Once at everything. What cannot be done now is logged, and left to the next look."""
        try:
            listing = await self.store.list(Image)
            nodes = (await self.store.list(Node)).items
        except StoreError as error:
            log.warning("images: %s", error)
            return
        for image in listing.items:
            try:
                await self._look_at(image, nodes)
            except (ClipError, StoreError) as error:
                log.warning("%s: %s", image.label, error)
        await self._tidy()

    async def _look_at(self, image: Image, nodes: Sequence[Node]) -> None:
        if image.metadata.deletion_timestamp:
            return await self._leave(image, nodes)
        if LAYERS_FINALIZER not in image.metadata.finalizers:
            await self.store.change(Image, image.name, None, _add_finalizer)
        if not self._builds_elsewhere(image) and self._is_wanted(image):
            await self._build_again(image)
        return None

    def _builds_elsewhere(self, image: Image) -> bool:
        """Somebody is at it: we build one image after the other, so it is not we."""
        building = image.status.building
        return building is not None and (self.clock() - building.since).total_seconds() < BUILD_SECONDS

    def _is_wanted(self, image: Image) -> bool:
        current, recipe = image.status.current_revision, self.builder.recipe(image.spec)
        suits = current is not None and (current.recipe == recipe or self._is_of_others(image, current))
        if current is not None and suits and all(map(self.builder.shelf.has, (*current.layers, current.boot))):
            self._failures.pop(image.name, None)
            return False
        failure = self._failures.get(image.name)
        return failure is None or failure.recipe != recipe or failure.again_at <= self.monotonic()

    def _is_of_others(self, image: Image, current: Revision) -> bool:
        """Somebody built this spec since we began: from another source than ours, likely a newer one. It is not built over."""
        condition = find_condition(image.status.conditions, BUILT)
        is_of_spec = condition is not None and condition.observed_generation == image.metadata.generation
        return is_of_spec and current.built >= self._began

    async def _build_again(self, image: Image) -> None:
        recipe, before = self.builder.recipe(image.spec), self._failures.get(image.name)
        try:
            await self.build(image.name)
            self._failures.pop(image.name, None)
        except ImageError as error:
            pause = min(before.pause * 2, LONGEST_RETRY) if before and before.recipe == recipe else FIRST_RETRY
            again_at = float("inf") if error.reason in LASTING else self.monotonic() + pause
            self._failures[image.name] = _Failure(recipe, pause, again_at)
            raise

    async def _leave(self, image: Image, nodes: Sequence[Node]) -> None:
        """An image that is being deleted goes when no node runs it any more."""
        digests = {revision.digest for revision in image.status.revisions}
        users = sorted(node.name for node in nodes if revisions.digests_of(node) & digests or node.spec.image == image.name)
        if users:
            message = f"in use by {', '.join(users)}"
            if image.status.message != message:
                image.status.message = message
                await self.store.update_status(image)
            return
        for entry in (await self.store.kv.list(keys.manifest_prefix(image.name))).items:
            await self.store.transaction().delete(entry.key).commit()
        await self.store.remove_finalizer(image, LAYERS_FINALIZER)
        try:
            await self.store.get(Image, image.name)
        except NotFound:
            await self.drop(layers_of(image))

    async def _tidy(self) -> None:
        """Holds what revisions have, and lets go what none has."""
        try:
            listing = await self.store.list(Image)
            if not listing.broken:  # nobody knows what those need
                await asyncio.to_thread(self._hold_only, [layer for image in listing.items for layer in layers_of(image)])
        except (ClipError, StoreError) as error:
            log.warning("images: the shelf was not put in order: %s", error)

    def _hold_only(self, needed: Sequence[str]) -> None:
        shelf = self.builder.shelf
        for layer in dict.fromkeys(needed):
            if shelf.has(layer):
                shelf.hold(layer, self.owner)
            else:
                log.warning("layer %s is not on the shelf: revisions with it cannot be booted", layer)
        oldest = time.time() - GRACE_SECONDS
        stale = [layer for layer in shelf.held(self.owner) - set(needed) if shelf.held_since(layer, self.owner) < oldest]
        self._remove(stale)


def layers_of(image: Image) -> list[str]:
    """All that its revisions need on the shelf."""
    return [layer for revision in image.status.revisions for layer in (*revision.layers, revision.boot)]


def _add_finalizer(image: Image) -> None:
    if LAYERS_FINALIZER not in image.metadata.finalizers:
        image.metadata.finalizers.append(LAYERS_FINALIZER)
