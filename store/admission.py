"""What every object must pass before it is written: defaults, rules beyond its fields' types, size, uniqueness.

Two Nodes never share a MAC or an address, also when two people create them at the same moment: each is reserved under
/mx/addresses/ in the very transaction that writes the Node; and so are those that the reconciler gives to Jobs. A reservation
whose owner is gone, or says something else by now, is taken over, so nothing has to clean up after a crash. Nodes put into etcd
behind our back reserve nothing; ``validate_all`` (apply.py) sees those too.
"""

from collections.abc import Iterator

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from crds import keys
from crds.checkpoint import FILES_FINALIZER, Checkpoint, CheckpointSpec
from crds.document import Path, Problem, find_problems
from crds.event import Event
from crds.job import STOP_FINALIZER, Job
from crds.meta import DEFAULT_NAMESPACE, LAST_APPLIED, Resource
from crds.migration import Migration, MigrationSpec
from crds.network import Reservation
from crds.node import Node
from crds.rollout import ROLLOUT_FINALIZER, Rollout
from store.errors import Invalid
from store.kv import KV, MAX_VALUE, Delete, KeyValue, Put, absent, unchanged
from store.objects import T, decode, encode, identify
from store.transaction import Prepared

_UNCHANGEABLE: dict[type[Resource], tuple[str, ...]] = {
    Job: ("command", "env", "workdir", "network"),
    Migration: tuple(name for name in MigrationSpec.model_fields if name != "cancelled"),
    Checkpoint: tuple(CheckpointSpec.model_fields),
    Rollout: ("image", "nodes", "revision"),
}


class Refused(Invalid):
    """An object that may not be written as it is: Invalid, with the problems one by one."""

    def __init__(self, label: str, *problems: Problem) -> None:
        super().__init__(f"{label}: " + "; ".join(map(str, problems)))
        self.problems = problems


def with_defaults(obj: T) -> T:
    """A copy as the store would create it: with namespace and finalizers."""
    new = obj.model_copy(deep=True)
    if new.NAMESPACED and new.metadata.namespace is None:
        new.metadata.namespace = DEFAULT_NAMESPACE
    if isinstance(new, Job) and STOP_FINALIZER not in new.metadata.finalizers:
        new.metadata.finalizers.append(STOP_FINALIZER)
    if isinstance(new, Rollout) and ROLLOUT_FINALIZER not in new.metadata.finalizers:
        new.metadata.finalizers.append(ROLLOUT_FINALIZER)
    if isinstance(new, Checkpoint) and FILES_FINALIZER not in new.metadata.finalizers:
        new.metadata.finalizers.append(FILES_FINALIZER)
    return new


def admit(new: T, old: T | None = None) -> tuple[T, bytes]:
    """The object as it will be read back, and its bytes. Raises Refused.

    Reading back also catches what was assigned to fields in Python, where nothing is checked.
    """
    raw = encode(new)
    problems = [*_scope(new), *(_fixed(old, new) if old else ()), *_size(new, raw)]
    if problems:
        raise Refused(new.label, *problems)
    return reread(new, raw), raw


def reread(obj: T, raw: bytes) -> T:
    """What the bytes say. Raises Refused: nothing is ever written that cannot be read."""
    try:
        return type(obj).model_validate_json(raw)
    except ValidationError as error:
        raise Refused(obj.label, *find_problems(error, type(obj))) from error


def addresses(obj: Resource) -> Iterator[tuple[Path, str]]:
    """What no two objects may share, with the field that says it."""
    if isinstance(obj, Node):
        if obj.spec.mac:
            yield ("spec", "mac"), obj.spec.mac
        if obj.spec.address:
            yield ("spec", "address"), obj.spec.address


def taken(path: Path, value: str, owner: str) -> Problem:
    """Somebody else has it."""
    return Problem(path, f"{value} belongs to {owner} already: give one of the two another")


async def reserve(kv: KV, old: Resource | None, new: Resource | None) -> Prepared:
    """What to add to the transaction that turns ``old`` into ``new`` (None: absent). Raises Refused when another node has it."""
    part = Prepared()
    had = {value for _, value in addresses(old)} if old else set()
    wanted = {value: path for path, value in addresses(new)} if new else {}
    for value, path in wanted.items():
        if new and value not in had:
            await _take(kv, new, path, value, part)
    for value in sorted(had - wanted.keys()):
        entry = await kv.get(keys.address(value))
        if old and entry and entry.value.decode() == old.name:
            part.compares.append(unchanged(entry.key, entry.mod_revision))
            part.operations.append(Delete(entry.key))
    return part


async def _take(kv: KV, new: Resource, path: Path, value: str, part: Prepared) -> None:
    key = keys.address(value)
    entry = await kv.get(key)
    if entry and entry.value.decode() != new.name:
        owner = await kv.get(_key_of_owner(Reservation(owner=entry.value.decode())))
        if owner and _may_have(owner, value):
            raise Refused(new.label, taken(path, value, identify(owner.key).label))
    part.compares.append(unchanged(key, entry.mod_revision) if entry else absent(key))
    part.operations.append(Put(key, new.name.encode()))


def _key_of_owner(reservation: Reservation) -> str:
    if not reservation.is_of_job:
        return keys.object_key(Node, reservation.owner)
    namespace, _, name = reservation.owner.partition("/")
    return keys.object_key(Job, name, namespace)


def _may_have(owner: KeyValue, value: str) -> bool:
    """A node or job that cannot be read keeps what is reserved for it."""
    try:
        if identify(owner.key).kind == Job.KIND:
            status = decode(Job, owner).status
            return value in (status.address, status.mac)
        return value in (had for _, had in addresses(decode(Node, owner)))
    except Invalid:
        return True


def _scope(obj: Resource) -> Iterator[Problem]:
    if isinstance(obj, Event):
        yield Problem(("kind",), "events are recorded by mx and cannot be written")
    if not obj.NAMESPACED and obj.metadata.namespace is not None:
        yield Problem(("metadata", "namespace"), f"{obj.KIND} belongs to the whole cluster and has no namespace: remove it")


def _fixed(old: Resource, new: Resource) -> Iterator[Problem]:
    if old.metadata.deletion_timestamp and set(new.metadata.finalizers) - set(old.metadata.finalizers):
        yield Problem(("metadata", "finalizers"), "none can be added: the object is being deleted")
    for name in _UNCHANGEABLE.get(type(new), ()):
        before, after = getattr(old, "spec", None), getattr(new, "spec", None)
        if getattr(before, name) != getattr(after, name):
            yield Problem(("spec", to_camel(name)), f"cannot be changed: delete {new.label} and create it again")
    if isinstance(old, Migration) and isinstance(new, Migration) and old.spec.cancelled and not new.spec.cancelled:
        yield Problem(("spec", "cancelled"), "cannot be taken back: ask for the move anew")


def _size(obj: Resource, raw: bytes) -> Iterator[Problem]:
    if len(raw) > MAX_VALUE:
        data = obj.to_data()
        copied = data["metadata"]["annotations"].pop(LAST_APPLIED, None) is not None
        note = ", the copy that apply keeps included" if copied else ""
        yield Problem(largest(data), f"too large: with it the object takes {len(raw)} bytes{note}; {MAX_VALUE} are allowed")


def largest(data: object, path: Path = ()) -> Path:
    """The field that holds most of the text: down from the whole as long as one part outweighs all others together."""
    parts: list[tuple[str | int, object]] = []
    if isinstance(data, dict):
        parts = list(data.items())
    elif isinstance(data, list):
        parts = list(enumerate(data))
    weights = [len(str(value)) for _, value in parts]
    if not weights or max(weights) * 2 < sum(weights):
        return path
    step, value = parts[weights.index(max(weights))]
    return largest(value, (*path, step))
