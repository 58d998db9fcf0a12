"""Events: what happened to objects, for people. They count up, run out after an hour, and never stand in anybody's way.

The key is made from what is said, so saying it again finds the former event and counts up. The events of ten minutes share one
lease, because a lease an event would be far more than etcd bears: each event lives for 60 to 70 minutes after it was last
recorded. Recording gives up after ``PATIENCE`` and a failure is logged, not raised: no work waits or fails for want of an event.
"""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable
from typing import Literal

from crds import keys
from crds.event import Event, ObjectReference
from crds.meta import CLUSTER_SCOPE, DEFAULT_NAMESPACE, Metadata, Resource
from store.errors import Conflict, Fenced, Invalid, NotFound, StoreError
from store.kv import KeyValue, Put, absent, unchanged
from store.objects import Broken, Listing, decode, decode_all, encode, key_of, regarding_word
from store.store import Store
from store.transaction import commit

log = logging.getLogger(__name__)

LEASE_TTL = 70 * 60.0  # seconds
LEASE_SHARED = 10 * 60.0  # seconds during which one lease serves all new events
PATIENCE = 3.0  # seconds for one event
ATTEMPTS = 3
LONGEST_MESSAGE = 1000  # characters

Subject = Resource | Broken | ObjectReference


class EventRecorder:
    """Records events under one name, ``source``. ``clock`` is monotonic, in seconds, and only times the leases."""

    def __init__(self, store: Store, source: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._source = source
        self._clock = clock
        self._lease = 0
        self._lease_until = float("-inf")
        self._granting = asyncio.Lock()

    async def record(self, obj: Subject, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        """Something happened to ``obj``; said again, it counts up. Raises nothing but cancellation; failures are logged."""
        event = self._event(refer(obj), type, reason, " ".join(message.split())[:LONGEST_MESSAGE])
        try:
            async with asyncio.timeout(PATIENCE):
                await self._write(event)
        except (StoreError, TimeoutError) as error:
            log.warning(
                "event not recorded: %s %s: %s (%s)", _words(event), event.reason, event.message, error or "no answer in time"
            )

    def _event(self, regarding: ObjectReference, type: Literal["Normal", "Warning"], reason: str, message: str) -> Event:  # noqa: A002
        said = "\0".join((regarding.kind, regarding.name, regarding.uid or "", self._source, type, reason, message))
        name = f"{_as_name(regarding.name)[:46]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        now = self._store.clock()
        return Event(
            metadata=Metadata(name=name, namespace=_namespace(regarding), creation_timestamp=now),
            regarding=regarding,
            type=type,
            reason=reason,
            message=message,
            source=self._source,
            first_seen=now,
            last_seen=now,
        )

    async def _write(self, event: Event) -> None:
        for attempt in range(ATTEMPTS):
            former = await self._store.kv.get(key_of(event))
            fresh = _counted(event, former)
            expected = unchanged(former.key, former.mod_revision) if former else absent(key_of(event))
            put = Put(key_of(event), encode(fresh), await self._shared_lease())
            try:
                await commit(self._store.kv, self._store.guard, [expected], [put])
                return
            except (Conflict, NotFound) as error:
                if isinstance(error, Fenced) or attempt + 1 == ATTEMPTS:
                    raise
                if isinstance(error, NotFound):
                    self._lease_until = float("-inf")

    async def _shared_lease(self) -> int:
        async with self._granting:
            if self._clock() >= self._lease_until:
                self._lease = await self._store.kv.grant(LEASE_TTL)
                self._lease_until = self._clock() + LEASE_SHARED
            return self._lease


def refer(obj: Subject) -> ObjectReference:
    """A reference to what an event is about."""
    if isinstance(obj, ObjectReference):
        return obj
    namespace = None if obj.namespace == CLUSTER_SCOPE else obj.namespace
    if isinstance(obj, Broken):
        return ObjectReference(kind=obj.kind, name=obj.name, namespace=namespace)
    return ObjectReference(kind=obj.KIND, name=obj.name, namespace=namespace, uid=obj.metadata.uid)


async def events_of(store: Store, obj: Subject) -> Listing[Event]:
    """What happened to one object, oldest first; also to earlier objects of its name (compare ``regarding.uid``)."""
    regarding = refer(obj)
    page = await store.kv.list(f"{keys.EVENTS}{_namespace(regarding)}/{regarding_word(regarding)}/")
    found = decode_all(Event, page.items, page.revision)
    return Listing(tuple(sorted(found.items, key=lambda event: (event.last_seen, event.name))), found.broken, found.revision)


def _counted(event: Event, former: KeyValue | None) -> Event:
    """One more than the former; a former that cannot be read is replaced."""
    if former is None:
        return event
    try:
        old = decode(Event, former)
    except Invalid as error:
        log.warning("replacing a broken event: %s", error)
        return event
    metadata = event.metadata.model_copy(update={"creation_timestamp": old.metadata.creation_timestamp})
    return event.model_copy(update={"metadata": metadata, "count": old.count + 1, "first_seen": old.first_seen})


def _namespace(regarding: ObjectReference) -> str:
    """Events on objects of the whole cluster stand in the default namespace."""
    return _as_name(regarding.namespace) if regarding.namespace else DEFAULT_NAMESPACE


def _as_name(text: str) -> str:
    """A broken object may be called anything; what is said of it must still be readable."""
    return re.sub(r"[^-a-z0-9.]", "-", text.lower()[:63]).strip("-.") or "x"


def _words(event: Event) -> str:
    return regarding_word(event.regarding).replace(".", "/", 1)
