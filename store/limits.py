"""What etcd would refuse, refused before it is sent.

Both implementations of the seam ask here, so that the fake refuses the same requests as etcd and the caller reads which key was
wrong; etcd's own message names none.
"""

from collections.abc import Sequence

from store.errors import Invalid
from store.kv import MAX_OPERATIONS, MAX_REQUEST, MAX_VALUE, Compare, Get, Op, Put

MAX_TTL = 9_000_000_000  # seconds: etcd's own limit


def check_txn(when: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]) -> None:
    """Raises Invalid when the transaction is too large, has too many parts, or writes one key twice in a branch."""
    _check_keys([part.key for part in (*when, *then, *otherwise)])
    for what, parts in (("compares", when), ("operations", then), ("operations", otherwise)):
        if len(parts) > MAX_OPERATIONS:
            raise Invalid(f"{len(parts)} {what} in one transaction, at most {MAX_OPERATIONS} are allowed: split it")
    for branch in (then, otherwise):
        _check_branch(branch)
    size = sum(len(part.key) for part in when) + sum(map(_size, then)) + sum(map(_size, otherwise))
    if size > MAX_REQUEST:
        raise Invalid(f"transaction of {size} bytes, at most {MAX_REQUEST} are allowed: split it")


def check_lease(ttl: float) -> None:
    """Raises Invalid unless ``ttl`` (seconds) is a time to live."""
    if not 0 < ttl <= MAX_TTL:
        raise Invalid(f"a lease of {ttl} s: the time to live must be above 0 and at most {MAX_TTL} s")


def _check_keys(keys: Sequence[str]) -> None:
    if not all(keys):
        raise Invalid("a key is empty: give each operation the key it is about")


def _check_branch(branch: Sequence[Op]) -> None:
    put: set[str] = set()
    deleted: set[str] = set()
    for operation in branch:
        key = operation.key
        if isinstance(operation, Get):
            continue
        if isinstance(operation, Put):
            _check_value(operation)
            if key in put or key in deleted:
                raise Invalid(f"{key} is written twice in one transaction: keep one of the two writes")
            put.add(key)
        else:
            if key in put:
                raise Invalid(f"{key} is written and deleted in one transaction: keep one of the two")
            deleted.add(key)


def _check_value(put: Put) -> None:
    if len(put.value) > MAX_VALUE:
        raise Invalid(f"{put.key} is too large: {len(put.value)} bytes, at most {MAX_VALUE} are allowed: make it smaller")


def _size(operation: Op) -> int:
    return len(operation.key) + (len(operation.value) if isinstance(operation, Put) else 0)
