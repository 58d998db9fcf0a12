"""Validity: tells people about values in etcd that cannot be read. It repairs and deletes nothing.

Whatever lies under our keys came past admission, so somebody wrote it with other tools. A broken object gets the condition
Valid=False, as far as its text has a place for it, and a Warning event; a broken report, placement or load gets the event only.
When it can be read again the condition says so.
"""

from collections.abc import Iterable

from crds import keys
from crds.meta import Resource, Truth, find_condition, set_condition
from crds.registry import DECLARABLE
from reconciler.context import Context
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.status import status_of
from reconciler.world import Delta, World, work_key
from store.broken import VALID, mark_broken
from store.objects import Broken

READABLE = "Readable"


def _suspects(world: World) -> Iterable[str]:
    marked = [World.object_key(type(obj), work_key(obj)) for kind in DECLARABLE for obj in world.all(kind) if _is_marked(obj)]
    return [*world.broken, *marked]


def _changed(delta: Delta, _: World) -> Iterable[str]:
    suspicious = isinstance(delta.new, Broken) or (isinstance(delta.new, Resource) and _is_marked(delta.new))
    return [delta.key] if suspicious else []


@controller("validity", start=_suspects, watches=[Watch(part, _changed) for part in ("kinds/", "nodes/", "placements/", "public/")])
async def reconcile_validity(context: Context, key: str) -> Again:
    """``key`` is a key in etcd."""
    broken = context.world.broken.get(key)
    if broken is None:
        await _clear(context, key)
        return DONE
    if key.startswith(keys.OBJECTS):
        await mark_broken(context.store, broken)
    if context.stopwatch.passed(("told", key, broken.error)) == float("inf"):
        context.stopwatch.restart(("told", key, broken.error))
        await context.recorder.record(broken, "Warning", "Invalid", broken.error)
    return DONE


async def _clear(context: Context, key: str) -> None:
    """The object can be read and still says that it cannot."""
    for kind in DECLARABLE:
        if not key.startswith(keys.kind_prefix(kind)):
            continue
        namespace, name = keys.parts(key)[2:]
        found = context.world.find(kind, f"{namespace}/{name}" if kind.NAMESPACED else name)
        if found is None or not _is_marked(found):
            return
        new = found.model_copy(deep=True)
        status = status_of(new)
        status.conditions = set_condition(status.conditions, VALID, True, READABLE, "can be read again", context.now())
        await context.store.update_status(new)


def _is_marked(obj: Resource) -> bool:
    condition = find_condition(status_of(obj).conditions, VALID)
    return condition is not None and condition.status == Truth.FALSE
