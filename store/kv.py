"""The seam between the store and what keeps its bytes: real etcd (etcd.py) or memory (memory.py).

Both pass the same contract tests (tests/contract). Everything above this file is written against ``KV`` only, so what the
fake does not promise nobody can use by mistake. Keys are text, values are bytes, revisions are etcd's.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

MAX_VALUE = 1 << 20  # bytes of one value; etcd refuses requests from 1.5 MiB on, so one value always fits beside its guards
MAX_REQUEST = 3 << 19  # bytes of keys and values of one transaction: etcd's own limit of 1.5 MiB
MAX_OPERATIONS = 128  # compares, or operations of one branch, in one transaction: etcd's own limit


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as it stood at some revision. ``lease`` is 0 for none."""

    key: str
    value: bytes
    mod_revision: int
    create_revision: int
    version: int = 1
    lease: int = 0


class Target(StrEnum):
    """What a compare looks at. Of an absent key all three revisions are 0."""

    MOD = "mod"
    CREATE = "create"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class Compare:
    """``key``'s ``target`` equals (or, with ``op="!="``, does not equal) ``number``."""

    key: str
    target: Target
    number: int
    op: Literal["==", "!="] = "=="


def absent(key: str) -> Compare:
    """The key is not there."""
    return Compare(key, Target.CREATE, 0)


def unchanged(key: str, mod_revision: int) -> Compare:
    """The key is as it was at ``mod_revision``."""
    return Compare(key, Target.MOD, mod_revision)


@dataclass(frozen=True, slots=True)
class Put:
    """Write ``value``; ``lease`` 0 means none."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key; no error when it is absent."""

    key: str


@dataclass(frozen=True, slots=True)
class Get:
    """Read one key inside a transaction."""

    key: str


Op = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class TxnResult:
    """``gets`` holds one entry for each Get of the branch that ran, in order; None where the key is absent."""

    succeeded: bool
    revision: int
    gets: tuple[KeyValue | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """All keys below a prefix, sorted by key, as they stood together at ``revision``."""

    items: tuple[KeyValue, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """One change seen by a watch; ``deleted`` changes carry an empty value and the revision of the deletion."""

    kv: KeyValue
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What one complete watch response said. ``revision`` is where to resume from, minus one. No changes = progress only."""

    revision: int
    changes: tuple[Change, ...] = field(default=())


class KV(Protocol):
    """Errors: Unavailable (time-out, no connection), Gone (compacted), Invalid (too large, denied).

    A Put under a lease that has ended raises NotFound.
    """

    async def get(self, key: str) -> KeyValue | None: ...

    async def list(self, prefix: str, *, revision: int = 0) -> Page:
        """All keys below the prefix at one revision (0 = now); paged inside, one revision for all pages."""
        ...

    async def txn(self, when: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        """Atomic. At most ``MAX_OPERATIONS`` a branch, each key written once. Unavailable means the outcome is unknown."""
        ...

    def watch(self, prefix: str, *, revision: int) -> AsyncGenerator[Batch, None]:
        """Changes from ``revision`` (inclusive) on, for ever; reconnects by itself without loss or repetition.

        ``revision`` 0 means from now on: the first batch then is empty and says where "now" is. Close it when done
        (``contextlib.aclosing``): an abandoned watch keeps its stream until the garbage collector finds it.

        Raises Gone when the revision was compacted: list again and watch from there + 1.
        """
        ...

    async def grant(self, ttl: float) -> int:
        """A new lease of ``ttl`` seconds; returns its id."""
        ...

    async def keep_alive(self, lease: int) -> float:
        """Renews once; returns the seconds left, 0 when the lease is lost."""
        ...

    async def revoke(self, lease: int) -> None:
        """Ends the lease and deletes its keys; no error when it is gone already."""
        ...

    async def close(self) -> None: ...
