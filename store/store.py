"""Objects in etcd: read strictly, written only by compare-and-set, spec and status apart.

What always holds:
  - A write either replaces exactly what its caller read, or nothing (Conflict). There are no blind writes.
  - ``update`` never touches status, ``update_status`` never touches anything else; each keeps what is stored of the other.
  - uid and creationTimestamp are given once, generation rises with the spec only, resourceVersion is etcd's and never stored.
  - What would be refused is refused before anything is written, with the path of the field (admission.py).
  - Writing what is there already writes nothing.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, TypeVar

from crds.meta import Resource
from store.admission import admit, reread, reserve, with_defaults
from store.errors import AlreadyExists, Conflict, Fenced, Invalid, NotFound
from store.kv import KV, Compare, Delete, KeyValue, Put, absent, unchanged
from store.objects import Identity, Listing, T, decode, decode_all, encode, key_of, place, prefix_of, utcnow
from store.transaction import Prepared, Transaction, commit

log = logging.getLogger(__name__)

R = TypeVar("R")

ATTEMPTS = 20  # read-modify-writes that met somebody else's write
PAUSE = 0.01  # seconds, times the attempt, at most, between two of them


class Store:
    """Typed access to one etcd. ``guard`` is compared in every write's transaction; when it fails the write raises Fenced.

    All methods raise Unavailable when etcd does not answer; after a write it is unknown whether it was done.
    """

    def __init__(self, kv: KV, *, clock: Callable[[], datetime] = utcnow, guard: Sequence[Compare] = ()) -> None:
        self.kv = kv
        self.clock = clock
        self.guard = tuple(guard)

    def guarded(self, *compares: Compare) -> "Store":
        """The same store, whose writes are also refused (Fenced) unless these hold."""
        return Store(self.kv, clock=self.clock, guard=(*self.guard, *compares))

    # --- reading ---

    async def get(self, kind: type[T], name: str, namespace: str | None = None) -> T:
        """Raises NotFound, and Invalid when what is stored is broken."""
        return decode(kind, await self._stored(kind, place(kind, name, namespace)))

    async def list(self, kind: type[T], namespace: str | None = None) -> Listing[T]:
        """All objects of the kind (of one namespace), at one revision; broken ones apart."""
        page = await self.kv.list(prefix_of(kind, namespace))
        return decode_all(kind, page.items, page.revision)

    # --- writing ---

    async def create(self, obj: T) -> T:
        """A new object. Raises AlreadyExists, Refused."""
        return await self._persist(lambda: self._create_once(obj))

    async def update(self, obj: T) -> T:
        """Metadata and spec, as they were read and changed. Raises Conflict when the object changed since, NotFound, Refused."""
        return await self._persist(lambda: self._update_once(obj))

    async def update_status(self, obj: T) -> T:
        """The status. Raises Conflict when the object changed since it was read, NotFound, Refused."""
        part, new = await self._status(obj)
        if not part.operations:
            return new
        return _at(new, await commit(self.kv, self.guard, part.compares, part.operations))

    async def change(self, kind: type[T], name: str, namespace: str | None, fn: Callable[[T], None]) -> T:
        """Reads, lets ``fn`` change metadata or spec, writes; again when somebody else wrote in between.

        ``fn`` may run more than once, each time on a fresh object, and must set, not count (see transaction.py). Raises NotFound,
        Refused, Fenced, and Conflict after ``ATTEMPTS``.
        """
        return await _repeat(lambda: self._changed(kind, name, namespace, fn, self.update))

    async def change_status(self, kind: type[T], name: str, namespace: str | None, fn: Callable[[T], None]) -> T:
        """Like ``change``, for the status."""
        return await _repeat(lambda: self._changed(kind, name, namespace, fn, self.update_status))

    def transaction(self) -> Transaction:
        """Several writes that happen together or not at all, under this store's guard."""
        return Transaction(self.kv, self.guard, status=self._prepare_status, create=self._prepare_create)

    # --- deleting ---

    async def delete(self, kind: type[Resource], name: str, namespace: str | None = None, *, uid: str | None = None) -> bool:
        """True: it is gone. False: it waits for its finalizers. Raises NotFound, also when the object has another ``uid``.

        A broken object goes at once: whoever holds a finalizer of it could not read it either.
        """
        return await _repeat(lambda: self._delete_once(kind, place(kind, name, namespace), uid))

    async def remove_finalizer(self, obj: Resource, finalizer: str) -> None:
        """Says that ``finalizer``'s part is done; the object goes with its last one if it is being deleted.

        No error when that was done before, by whomever. Raises Fenced, and Conflict after ``ATTEMPTS``.
        """

        async def once() -> None:
            try:
                now = await self.get(type(obj), obj.name, obj.metadata.namespace)
            except NotFound:
                return
            if now.metadata.uid == obj.metadata.uid and finalizer in now.metadata.finalizers:
                now.metadata.finalizers.remove(finalizer)
                await self.update(now)

        await _repeat(once)

    # --- inside ---

    async def _stored(self, kind: type[Resource], identity: Identity) -> KeyValue:
        kv = await self.kv.get(f"{prefix_of(kind)}{identity.namespace}/{identity.name}")
        if kv is None:
            raise NotFound(f"{identity.label} does not exist")
        return kv

    async def _persist(self, write: Callable[[], Coroutine[Any, Any, T | None]]) -> T:
        """Runs ``write`` again when only a reservation of addresses changed: the object itself may still be as it was read."""
        for _ in range(ATTEMPTS):
            done = await write()
            if done is not None:
                return done
        raise Conflict("the addresses reserved for nodes keep changing: nothing was written; try again")

    async def _create_once(self, obj: T) -> T | None:
        part, new = await self._creation(obj)
        try:
            return _at(new, await commit(self.kv, self.guard, part.compares, part.operations))
        except Fenced:
            raise
        except Conflict:
            there = await self.kv.get(key_of(new))
            if there is None:
                return None
            return self._taken_by(new, there)

    def _taken_by(self, new: T, there: KeyValue) -> T:
        """What stands where ``new`` should be: itself, if an answer was lost and somebody changed it since."""
        try:
            found = decode(type(new), there)
        except Invalid as error:
            raise AlreadyExists(f"{new.label} exists already, and is broken: delete it first") from error
        if found.metadata.uid != new.metadata.uid:
            raise AlreadyExists(f"{new.label} exists already: choose another name, or change it")
        return found

    async def _creation(self, obj: T) -> tuple[Prepared, T]:
        new = with_defaults(obj)
        new.metadata.uid = str(uuid.uuid4())
        new.metadata.creation_timestamp = self.clock()
        new.metadata.deletion_timestamp = None
        new.metadata.generation = 1
        new, raw = admit(new)
        part = await reserve(self.kv, None, new)
        part.compares.append(absent(key_of(new)))
        part.operations.append(Put(key_of(new), raw))
        return part, new

    async def _prepare_create(self, obj: Resource) -> Prepared:
        return (await self._creation(obj))[0]

    async def _current(self, obj: T) -> tuple[KeyValue, T]:
        """What is stored, if it is what ``obj`` was read from. Raises NotFound, Conflict."""
        if obj.metadata.resource_version is None:
            raise Invalid(f"{obj.label}: metadata.resourceVersion: is missing: read the object, then change it")
        kv = await self._stored(type(obj), place(type(obj), obj.name, obj.metadata.namespace))
        if kv.mod_revision != obj.metadata.resource_version:
            raise Conflict(f"{obj.label} changed since it was read: read it again")
        return kv, decode(type(obj), kv)

    async def _update_once(self, obj: T) -> T | None:
        kv, old = await self._current(obj)
        new, raw = admit(_merged(old, obj), old)
        if raw == kv.value:
            return _at(new, kv.mod_revision)
        leaving = new.metadata.deletion_timestamp is not None and not new.metadata.finalizers
        part = await reserve(self.kv, old, None if leaving else new)
        part.compares.append(unchanged(kv.key, kv.mod_revision))
        part.operations.append(Delete(kv.key) if leaving else Put(kv.key, raw))
        try:
            return _at(new, await commit(self.kv, self.guard, part.compares, part.operations))
        except Fenced:
            raise
        except Conflict:
            if len(part.compares) > 1:
                return None
            raise

    async def _status(self, obj: T) -> tuple[Prepared, T]:
        kv, old = await self._current(obj)
        raw = encode(old.model_copy(update={"status": getattr(obj, "status", None)}))
        new = reread(obj, raw)
        part = Prepared([unchanged(kv.key, kv.mod_revision)])
        if raw != kv.value:
            part.operations.append(Put(kv.key, raw))
        return part, _at(new, kv.mod_revision)

    async def _prepare_status(self, obj: Resource) -> Prepared:
        return (await self._status(obj))[0]

    async def _changed(
        self, kind: type[T], name: str, namespace: str | None, fn: Callable[[T], None], write: Callable[[T], Coroutine[Any, Any, T]]
    ) -> T:
        obj = await self.get(kind, name, namespace)
        fn(obj)
        return await write(obj)

    async def _delete_once(self, kind: type[Resource], identity: Identity, uid: str | None) -> bool:
        kv = await self._stored(kind, identity)
        try:
            obj = decode(kind, kv)
        except Invalid as error:
            log.warning("deleting at once: %s", error)
            await commit(self.kv, self.guard, [unchanged(kv.key, kv.mod_revision)], [Delete(kv.key)])
            return True
        if uid is not None and obj.metadata.uid != uid:
            raise NotFound(f"{obj.label} with uid {uid} does not exist any more: there is another of that name")
        if obj.metadata.finalizers:
            await self._mark_deleted(kv, obj)
            return False
        part = await reserve(self.kv, obj, None)
        await commit(self.kv, self.guard, [*part.compares, unchanged(kv.key, kv.mod_revision)], [*part.operations, Delete(kv.key)])
        return True

    async def _mark_deleted(self, kv: KeyValue, obj: Resource) -> None:
        if obj.metadata.deletion_timestamp is None:
            obj.metadata.deletion_timestamp = self.clock()
            await commit(self.kv, self.guard, [unchanged(kv.key, kv.mod_revision)], [Put(kv.key, encode(obj))])


def _merged(old: T, wish: T) -> T:
    """``wish``, with everything that is not its caller's to change taken from what is stored."""
    new = wish.model_copy(update={"status": getattr(old, "status", None)}, deep=True)
    metadata = new.metadata
    metadata.namespace = old.metadata.namespace
    metadata.uid = old.metadata.uid
    metadata.creation_timestamp = old.metadata.creation_timestamp
    metadata.deletion_timestamp = old.metadata.deletion_timestamp
    same = getattr(new, "spec", None) == getattr(old, "spec", None)
    metadata.generation = old.metadata.generation + (0 if same else 1)
    return new


def _at(obj: T, revision: int) -> T:
    obj.metadata.resource_version = revision
    return obj


async def _repeat(once: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Runs ``once`` until nobody writes in between. Raises the last Conflict after ``ATTEMPTS``; Fenced at once."""
    for attempt in range(1, ATTEMPTS):
        try:
            return await once()
        except (AlreadyExists, Fenced):
            raise
        except Conflict:
            await asyncio.sleep(random.uniform(0, PAUSE * attempt))
    return await once()
