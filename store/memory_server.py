"""The state of the fake etcd: revisions, history, leases and watchers, with no waiting and no clock of its own.

One server is shared by any number of clients (memory.py), as etcd is. Every change goes through ``_commit``, which gives all
writes of one transaction one revision and hands them to the watchers at once; so nobody sees half a transaction.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from store.errors import Gone, Invalid, NotFound
from store.kv import Batch, Change, Compare, Delete, Get, KeyValue, Op, Page, Put, Target, TxnResult

MAX_PENDING = 10_000  # batches a watcher may leave unread; beyond that it must list again


class Watcher:
    """What one watch has not read yet. ``wake`` is called whenever that changes."""

    def __init__(self, prefix: str, start: int, wake: Callable[[], None]) -> None:
        self.prefix = prefix
        self.start = start  # the first revision not handed over yet
        self.wake = wake
        self.pending: deque[Batch] = deque()
        self.overrun = False
        self.broken = False

    def break_off(self) -> None:
        """The connection is gone, and with it all that was not read."""
        self.pending.clear()
        self.broken = True
        self.wake()

    def push(self, batch: Batch) -> None:
        """Adds a batch, or marks the watcher overrun when it does not read."""
        if len(self.pending) >= MAX_PENDING:
            self.pending.clear()
            self.overrun = True
        if not self.overrun:
            self.pending.append(batch)
        self.start = batch.revision + 1
        self.wake()


@dataclass(slots=True)
class _Lease:
    ttl: float
    deadline: float
    keys: set[str] = field(default_factory=set)


class MemoryServer:
    """Fake etcd. Revisions start at 1, as etcd's do. Times are seconds of the clock that the caller passes in as ``now``."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self._keys: list[str] = []
        self._versions: dict[str, list[KeyValue]] = {}
        self._log: list[Batch] = []
        self._leases: dict[int, _Lease] = {}
        self._next_lease = 0x4D58_0000_0001  # far from any revision, so that a mix-up fails
        self._watchers: dict[str, list[Watcher]] = {}

    # --- reading and writing ---

    def get(self, key: str) -> KeyValue | None:
        """The key as it is now, None when absent."""
        versions = self._versions.get(key)
        return versions[-1] if versions and versions[-1].version else None

    def list(self, prefix: str, revision: int) -> Page:
        """All keys below the prefix at ``revision`` (0 = now). Raises Gone or, for one that is yet to come, Invalid."""
        self._check_revision(revision)
        at = revision or self.revision
        found = []
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix):
                break
            versions = self._versions[key]
            newest = bisect_right(versions, at, key=lambda kv: kv.mod_revision) - 1
            if newest >= 0 and versions[newest].version:
                found.append(versions[newest])
        return Page(tuple(found), at)

    def txn(self, when: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]) -> TxnResult:
        """Runs one branch. Raises NotFound, with nothing written, when a Put names a lease that has ended."""
        succeeded = all(map(self._holds, when))
        branch = then if succeeded else otherwise
        for operation in branch:
            if isinstance(operation, Put) and operation.lease and operation.lease not in self._leases:
                raise NotFound(f"lease {operation.lease:x} of {operation.key} has ended: get a new lease and write again")
        gets: list[KeyValue | None] = []
        changes: list[Change] = []
        for operation in branch:
            if isinstance(operation, Get):
                gets.append(self.get(operation.key))
            elif isinstance(operation, Put):
                changes.append(self._put(operation))
            elif isinstance(operation, Delete) and self.get(operation.key):
                changes.append(self._delete(operation.key))
        self._commit(changes)
        return TxnResult(succeeded, self.revision, tuple(gets))

    def compact(self, revision: int) -> None:
        """Forgets all history before ``revision``. Raises Gone when that is done already."""
        if revision <= self.compacted:
            raise Gone(f"revision {revision} is compacted already", self.compacted)
        self._check_revision(revision)
        self.compacted = revision
        self._log = self._log[bisect_left(self._log, revision, key=lambda batch: batch.revision) :]
        for key in list(self._versions):
            self._compact_key(key, revision)

    # --- watching ---

    def subscribe(self, watcher: Watcher) -> None:
        """Hands over all history from ``watcher.start`` on and, from then on, every change. Raises Gone."""
        if watcher.start < self.compacted:
            raise Gone(
                f"watch of {watcher.prefix} from revision {watcher.start}: compacted up to {self.compacted}, list again",
                self.compacted,
            )
        for batch in self._log[bisect_left(self._log, watcher.start, key=lambda batch: batch.revision) :]:
            self._deliver(watcher, batch)
        self._watchers.setdefault(watcher.prefix, []).append(watcher)

    def unsubscribe(self, watcher: Watcher) -> None:
        """Ends deliveries; no error when they have ended."""
        watchers = self._watchers.get(watcher.prefix, [])
        if watcher in watchers:
            watchers.remove(watcher)
        if not watchers:
            self._watchers.pop(watcher.prefix, None)

    def progress(self) -> None:
        """Tells every watcher how far it is, as etcd does from time to time."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                if self.revision >= watcher.start:
                    watcher.push(Batch(self.revision))

    # --- leases ---

    def grant(self, ttl: float, now: float) -> int:
        """A new lease, rounded up to whole seconds as etcd does."""
        lease = self._next_lease
        self._next_lease += 1
        self._leases[lease] = _Lease(math.ceil(ttl), now + math.ceil(ttl))
        return lease

    def keep_alive(self, lease: int, now: float) -> float:
        """Seconds left after renewing; 0 when the lease has ended."""
        held = self._leases.get(lease)
        if held is None:
            return 0
        held.deadline = now + held.ttl
        return held.ttl

    def revoke(self, lease: int) -> None:
        """Ends the lease and deletes its keys at one revision; no error when it has ended."""
        held = self._leases.pop(lease, None)
        if held is not None:
            self._commit([self._delete(key) for key in sorted(held.keys)])

    def expire(self, now: float) -> None:
        """Ends all leases whose time is up."""
        for lease in [lease for lease, held in self._leases.items() if held.deadline <= now]:
            self.revoke(lease)

    # --- inside ---

    def _check_revision(self, revision: int) -> None:
        if revision > self.revision:
            raise Invalid(f"revision {revision} is yet to come, the newest is {self.revision}: read the present (0)")
        if 0 < revision < self.compacted:
            raise Gone(f"revision {revision} was compacted, the oldest left is {self.compacted}: list again", self.compacted)

    def _holds(self, compare: Compare) -> bool:
        kv = self.get(compare.key) or KeyValue(compare.key, b"", 0, 0, 0)
        numbers = {Target.MOD: kv.mod_revision, Target.CREATE: kv.create_revision, Target.VERSION: kv.version}
        return (numbers[compare.target] == compare.number) == (compare.op == "==")

    def _put(self, put: Put) -> Change:
        old = self.get(put.key)
        revision = self.revision + 1
        created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
        return self._store(KeyValue(put.key, put.value, revision, created, version, put.lease), old)

    def _delete(self, key: str) -> Change:
        return self._store(KeyValue(key, b"", self.revision + 1, 0, 0), self.get(key))

    def _store(self, kv: KeyValue, old: KeyValue | None) -> Change:
        if old and old.lease in self._leases:
            self._leases[old.lease].keys.discard(kv.key)
        if kv.lease:
            self._leases[kv.lease].keys.add(kv.key)
        if kv.key not in self._versions:
            self._versions[kv.key] = []
            insort(self._keys, kv.key)
        self._versions[kv.key].append(kv)
        return Change(kv, deleted=not kv.version)

    def _commit(self, changes: Sequence[Change]) -> None:
        """Makes the changes one revision. All of them were stored at ``revision + 1``; nothing may wait in between."""
        if not changes:
            return
        self.revision += 1
        batch = Batch(self.revision, tuple(changes))
        self._log.append(batch)
        for watcher in self._interested(changes):
            self._deliver(watcher, batch)

    def _interested(self, changes: Sequence[Change]) -> Sequence[Watcher]:
        """Found by prefix, not by asking every watcher: a simulated cluster has thousands."""
        prefixes = {change.kv.key[:end] for change in changes for end in range(len(change.kv.key) + 1)}
        return [watcher for prefix in prefixes & self._watchers.keys() for watcher in self._watchers[prefix]]

    @staticmethod
    def _deliver(watcher: Watcher, batch: Batch) -> None:
        changes = tuple(change for change in batch.changes if change.kv.key.startswith(watcher.prefix))
        if changes and batch.revision >= watcher.start:
            watcher.push(Batch(batch.revision, changes))

    def _compact_key(self, key: str, revision: int) -> None:
        versions = self._versions[key]
        first = max(bisect_right(versions, revision, key=lambda kv: kv.mod_revision) - 1, 0)
        kept = versions[first:]
        if not kept[0].version and kept[0].mod_revision <= revision:
            kept = kept[1:]
        if kept:
            self._versions[key] = kept
        else:
            del self._versions[key]
            self._keys.pop(bisect_left(self._keys, key))
