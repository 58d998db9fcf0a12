"""Several writes as one, with everything the decision relied on compared again at the moment of writing.

``commit`` is the only way any object is written. It keeps two promises:
  - A write whose outcome is unknown (Unavailable) is only repeated under its compares, which its own first copy would break. When
    they fail on the repetition, the keys are looked at: if they hold what we wanted to write, the first copy did it. If somebody
    wrote over it since, that is a Conflict like any other, and its message says what is not known. So whoever repeats a decision
    must set what should be, not add to what is.
  - A failed guard (leadership, an agent's session) is Fenced, any other failed compare is Conflict, so that a deposed leader
    never mistakes its fall for an ordinary race and tries again.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from crds.meta import Model, Resource
from store.errors import Conflict, Fenced, Unavailable
from store.kv import KV, MAX_OPERATIONS, Compare, Delete, Get, KeyValue, Op, Put, Target, TxnResult
from store.objects import identify

ATTEMPTS = 3
PAUSE = 0.1  # seconds before the first repetition, doubled for each further one

Read = dict[str, KeyValue | None]


async def commit(kv: KV, guard: Sequence[Compare], when: Sequence[Compare], then: Sequence[Put | Delete]) -> int:
    """Writes all or nothing; returns the revision. Raises Fenced, Conflict, Invalid, and Unavailable when it stayed unknown."""
    compares = list(dict.fromkeys((*guard, *when)))
    gets = [Get(key) for key in dict.fromkeys(part.key for part in (*compares, *then))][:MAX_OPERATIONS]
    unknown = False
    for attempt in range(ATTEMPTS):
        try:
            result = await kv.txn(compares, then, gets)
        except Unavailable:
            unknown = True
            if attempt + 1 == ATTEMPTS:
                raise
            await asyncio.sleep(PAUSE * 2**attempt)
            continue
        if result.succeeded:
            return result.revision
        return _explain(guard, compares, then, _read(gets, result), unknown)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _read(gets: Sequence[Get], result: TxnResult) -> Read:
    return dict(zip((get.key for get in gets), result.gets, strict=True))


def _explain(guard: Sequence[Compare], compares: Sequence[Compare], then: Sequence[Op], read: Read, unknown: bool) -> int:
    """The revision when our own earlier copy had been written; raises Fenced or Conflict otherwise."""
    failed = [compare for compare in compares if not _holds(compare, read)]
    fallen = [compare for compare in failed if compare in guard]
    if fallen:
        raise Fenced(f"{_names(fallen)} is not ours any more: nothing was written; stop acting and start over")
    if unknown and then and all(_stands(operation, read) for operation in then):
        return max((found.mod_revision for found in map(read.get, (part.key for part in then)) if found), default=0)
    written = "an earlier attempt may have been written and changed since" if unknown else "nothing was written"
    raise Conflict(f"{_names(failed)} changed meanwhile: {written}; read again and decide again")


def _holds(compare: Compare, read: Read) -> bool:
    if compare.key not in read:
        return True
    kv = read[compare.key] or KeyValue(compare.key, b"", 0, 0, 0)
    numbers = {Target.MOD: kv.mod_revision, Target.CREATE: kv.create_revision, Target.VERSION: kv.version}
    return (numbers[compare.target] == compare.number) == (compare.op == "==")


def _stands(operation: Op, read: Read) -> bool:
    """Whether the key is as the operation would leave it. A key we could not read counts as not."""
    if operation.key not in read:
        return False
    found = read[operation.key]
    if isinstance(operation, Put):
        return found is not None and found.value == operation.value
    return found is None


def _names(compares: Iterable[Compare]) -> str:
    """``job/w``, and keys of ours that hold no object as they are."""
    return ", ".join(dict.fromkeys(_name(compare.key) for compare in compares)) or "something"


def _name(key: str) -> str:
    identity = identify(key)
    return key if identity.kind == "Key" else identity.label


@dataclass(slots=True)
class Prepared:
    """What one write of an object comes to: compares and operations."""

    compares: list[Compare] = field(default_factory=list)
    operations: list[Put | Delete] = field(default_factory=list)


class Transaction:
    """Collects writes; nothing happens before ``commit``, and then all of it or none. Made by ``Store.transaction``."""

    def __init__(
        self,
        kv: KV,
        guard: Sequence[Compare],
        *,
        status: Callable[[Resource], Coroutine[Any, Any, Prepared]],
        create: Callable[[Resource], Coroutine[Any, Any, Prepared]],
    ) -> None:
        self._kv = kv
        self._guard = guard
        self._status = status
        self._create = create
        self._compares: list[Compare] = []
        self._operations: list[Put | Delete] = []
        self._pending: list[tuple[Callable[[Resource], Coroutine[Any, Any, Prepared]], Resource]] = []

    def expect(self, *compares: Compare) -> "Transaction":
        """Something that was relied on and must still hold."""
        self._compares.extend(compares)
        return self

    def put_status(self, obj: Resource) -> "Transaction":
        """The object's status; expects the object as it was read, and keeps its stored metadata and spec."""
        self._pending.append((self._status, obj))
        return self

    def create(self, obj: Resource) -> "Transaction":
        """A new object, admitted like any other; expects that the name is free."""
        self._pending.append((self._create, obj))
        return self

    def put(self, key: str, value: Model, lease: int = 0) -> "Transaction":
        """A key that holds no object: a placement, a report. Say with ``expect`` what it must replace."""
        self._operations.append(Put(key, value.to_json(), lease))
        return self

    def put_text(self, key: str, text: str) -> "Transaction":
        """A key that holds bare text: a reservation. Say with ``expect`` what it must replace."""
        self._operations.append(Put(key, text.encode()))
        return self

    def delete(self, key: str) -> "Transaction":
        """A key that holds no object; no error when it is absent."""
        self._operations.append(Delete(key))
        return self

    async def commit(self) -> int:
        """The revision of all the writes. Raises Conflict, Fenced, NotFound, Invalid: nothing was written (but see the module's
        docstring on Conflict). Raises Unavailable: it is unknown whether all of it was written or nothing, so read again."""
        prepared = [await prepare(obj) for prepare, obj in self._pending]
        compares = self._compares + [compare for part in prepared for compare in part.compares]
        operations = self._operations + [operation for part in prepared for operation in part.operations]
        return await commit(self._kv, self._guard, compares, operations)
