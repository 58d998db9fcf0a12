"""Informer: everything below a prefix, kept at hand and up to date, so that deciding costs no request.

What always holds:
  - ``items`` is what etcd held at ``revision``, never half of a transaction.
  - Subscribers hear of every difference between what they knew and what is there, in order. After a compaction (Gone) everything
    is listed again at one revision, and keys that vanished meanwhile are told as deleted.
  - Over an outage it goes on serving what it knew; ``connected`` and ``age`` say how far that can be trusted.
  - It looks at no value: a broken one is cached like any other. ``list`` and ``get`` read values, and tell broken ones apart.
"""

import asyncio
import logging
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType

from crds.meta import Resource
from store.errors import Gone, NotFound, Unavailable
from store.kv import KV, Batch, KeyValue
from store.objects import Listing, T, decode, decode_all, place, prefix_of

log = logging.getLogger(__name__)

Subscriber = Callable[[str, KeyValue | None, KeyValue | None], None]
"""Called with key, old, new: old is None for a new key, new is None for a deleted one. It must not raise, nor wait."""

Difference = tuple[str, KeyValue | None, KeyValue | None]

PROBE = 5.0  # seconds of silence after which etcd is asked whether it is there
SELDOM = 30.0
"""For a daemon that asks often anyhow: its heartbeat, or one of its informers, tells of a lost connection soon enough."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts to list


class Informer:
    """Cache of all keys below ``prefix`` but those below ``ignore``. ``run`` keeps it up to date until it is cancelled.

    ``synced`` is set once everything was listed. ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self,
        kv: KV,
        prefix: str,
        *,
        ignore: Sequence[str] = (),
        probe: float = PROBE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.prefix = prefix
        self.synced = asyncio.Event()
        self.connected = False
        self.last_contact = float("-inf")
        self.revision = 0
        self._kv = kv
        self._ignore = tuple(ignore)
        self._probe = probe
        self._clock = clock
        self._items: dict[str, KeyValue] = {}
        self._keys: list[str] = []
        self._subscribers: list[Subscriber] = []
        self._complained = False
        self._advanced = asyncio.Condition()

    # --- what it knows ---

    @property
    def items(self) -> Mapping[str, KeyValue]:
        """By key; a live view, so copy it before waiting for anything."""
        return MappingProxyType(self._items)

    @property
    def age(self) -> float:
        """Seconds since etcd was last heard; infinite before the first time."""
        return self._clock() - self.last_contact

    def below(self, prefix: str) -> Iterator[KeyValue]:
        """All keys below the prefix in order, as they are at this moment."""
        start = bisect_left(self._keys, prefix)
        end = bisect_left(self._keys, prefix + "\U0010ffff", start)
        return iter([self._items[key] for key in self._keys[start:end]])

    def list(self, kind: type[T], namespace: str | None = None) -> Listing[T]:
        """Like ``Store.list``, without a request. Each call reads the values anew, so the objects are the caller's own."""
        return decode_all(kind, self.below(prefix_of(kind, namespace)), self.revision)

    def get(self, kind: type[T], name: str, namespace: str | None = None) -> T:
        """Like ``Store.get``, without a request. Raises NotFound, Invalid."""
        return decode(kind, self.stored(kind, name, namespace))

    def stored(self, kind: type[Resource], name: str, namespace: str | None = None) -> KeyValue:
        """The object as it is stored. Raises NotFound."""
        identity = place(kind, name, namespace)
        kv = self._items.get(f"{prefix_of(kind)}{identity.namespace}/{identity.name}")
        if kv is None:
            raise NotFound(f"{identity.label} does not exist")
        return kv

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """``callback`` hears of everything from now on; whatever is known already it must read. Returns how to end it."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def reached(self, revision: int) -> None:
        """Waits until it has seen ``revision``, which must be that of a change below its prefix: one's own write, for instance."""
        async with self._advanced:
            await self._advanced.wait_for(lambda: self.revision >= revision)

    # --- keeping up ---

    async def run(self) -> None:
        """Until cancelled. Raises only what no waiting cures, in an ExceptionGroup: Invalid (no right to read, for instance)."""
        async with asyncio.TaskGroup() as group:
            probing = group.create_task(self._keep_probing())
            try:
                await self._follow()
            finally:
                probing.cancel()

    async def _follow(self) -> None:
        pause = FIRST_PAUSE
        listed = False
        while True:
            try:
                if not listed:
                    await self._relist()
                    listed, pause = True, FIRST_PAUSE
                await self._watch()
            except Gone as error:
                log.warning("%s: listing everything again: %s", self.prefix, error)
                listed = False
            except Unavailable as error:
                self._lost(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _relist(self) -> None:
        page = await self._kv.list(self.prefix)
        fresh = {kv.key: kv for kv in page.items if not kv.key.startswith(self._ignore)}
        gone = [(key, old, None) for key, old in self._items.items() if key not in fresh]
        differences: list[Difference] = [*gone]
        for key, kv in fresh.items():
            old = self._items.get(key)
            if old is None or old.mod_revision != kv.mod_revision:
                differences.append((key, old, kv))
        self._items.clear()
        self._items.update(fresh)
        self._keys = sorted(fresh)
        await self._advance(page.revision, differences)
        self.synced.set()

    async def _watch(self) -> None:
        async with aclosing(self._kv.watch(self.prefix, revision=self.revision + 1)) as batches:
            async for batch in batches:
                await self._advance(batch.revision, self._apply(batch))

    def _apply(self, batch: Batch) -> Sequence[Difference]:
        differences = []
        for change in batch.changes:
            key = change.kv.key
            if key.startswith(self._ignore):
                continue
            new = None if change.deleted else change.kv
            old = self._replace(key, new)
            if old is not None or new is not None:
                differences.append((key, old, new))
        return differences

    def _replace(self, key: str, new: KeyValue | None) -> KeyValue | None:
        old = self._items.get(key)
        if new is None:
            if old is not None:
                del self._items[key]
                del self._keys[bisect_left(self._keys, key)]
            return old
        if old is None:
            insort(self._keys, key)
        self._items[key] = new
        return old

    async def _advance(self, revision: int, differences: Sequence[Difference]) -> None:
        """Only now, with the cache complete at ``revision``, does anybody hear of it."""
        self.revision = revision
        self._heard()
        for difference in differences:
            for subscriber in tuple(self._subscribers):
                subscriber(*difference)
        async with self._advanced:
            self._advanced.notify_all()

    # --- trust ---

    async def _keep_probing(self) -> None:
        """A watch says nothing while nothing happens, nor when the connection is lost: so ask."""
        while True:
            await asyncio.sleep(self._probe)
            if self.age < self._probe:
                continue
            try:
                await self._kv.get(self.prefix)
                self._heard()
            except Unavailable as error:
                self._lost(error)

    def _heard(self) -> None:
        self.last_contact = self._clock()
        if not self.connected:
            log.info("%s: connected at revision %d", self.prefix, self.revision)
        self.connected = True
        self._complained = False

    def _lost(self, error: Unavailable) -> None:
        if not self._complained:
            log.warning("%s: no connection, serving what was known at revision %d: %s", self.prefix, self.revision, error)
        self.connected = False
        self._complained = True
