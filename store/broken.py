"""Telling people that a stored object is broken, in the object itself: the condition Valid=False.

It is broken, so its model cannot write it. The raw JSON is changed instead: one condition, nothing else, by compare-and-set.
"""

import json
from typing import Any

from crds.meta import Condition, Truth, format_time
from store.kv import MAX_VALUE, Put, unchanged
from store.objects import Broken
from store.store import Store
from store.transaction import commit

VALID = "Valid"
UNREADABLE = "Unreadable"


async def mark_broken(store: Store, broken: Broken) -> bool:
    """Sets the condition Valid=False with the error as its message; writes nothing when it stands there already.

    False when the value has no place for a condition (no JSON object, status or conditions of another type, full): then
    only an event can tell. Raises Conflict when the value is not the one that was found broken any more, Fenced, Unavailable.
    """
    data = _read(broken)
    conditions = _conditions(data) if data is not None else None
    if data is None or conditions is None:
        return False
    old = next((c for c in conditions if isinstance(c, dict) and c.get("type") == VALID), {})
    new = _condition(store, broken, old)
    if new == old:
        return True
    conditions[:] = [c for c in conditions if not (isinstance(c, dict) and c.get("type") == VALID)] + [new]
    raw = json.dumps(data, separators=(",", ":")).encode()
    if len(raw) > MAX_VALUE:
        return False
    await commit(store.kv, store.guard, [unchanged(broken.key, broken.resource_version)], [Put(broken.key, raw)])
    return True


def _read(broken: Broken) -> dict[str, Any] | None:
    try:
        data = json.loads(broken.raw)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _conditions(data: dict[str, Any]) -> list[Any] | None:
    """The list to change, made where it is missing; None when something else stands in its place."""
    status = data.setdefault("status", {})
    if not isinstance(status, dict):
        return None
    conditions = status.setdefault("conditions", [])
    return conditions if isinstance(conditions, list) else None


def _condition(store: Store, broken: Broken, old: dict[str, Any]) -> dict[str, Any]:
    since = old.get("lastTransitionTime") if old.get("status") == Truth.FALSE else None
    new = Condition(type=VALID, status=Truth.FALSE, reason=UNREADABLE, message=broken.error, last_transition_time=store.clock())
    return new.to_data() | {"lastTransitionTime": since or format_time(store.clock())}
