"""Between bytes and objects: what lies under a key is read strictly, and what cannot be read is ``Broken``, never a crash.

Anybody with etcdctl can put anything under our keys. So who reads one object gets Invalid, and who reads many gets the good
ones and the broken ones apart. An object whose name differs from its key's is broken too: it would be written back elsewhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from crds import keys
from crds.document import find_problems
from crds.event import Event, ObjectReference
from crds.meta import CLUSTER_SCOPE, DEFAULT_NAMESPACE, Model, Resource
from store.errors import Invalid
from store.kv import KeyValue

T = TypeVar("T", bound=Resource)
M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a key says of the object below it: ``kind`` is its word for people's eyes, ``namespace`` CLUSTER_SCOPE for none."""

    kind: str
    namespace: str
    name: str

    @property
    def label(self) -> str:
        """``job/w``, ``job/alice/w``, ``node/n1``: as ``Resource.label``."""
        where = "" if self.namespace in (DEFAULT_NAMESPACE, CLUSTER_SCOPE) else f"{self.namespace}/"
        return f"{self.kind.lower()}/{where}{self.name}"


@dataclass(frozen=True, slots=True)
class Broken:
    """A stored value that cannot be read as what its key promises. ``error`` is one line with the field path."""

    key: str
    kind: str
    name: str
    namespace: str
    raw: bytes
    error: str
    resource_version: int = 0

    @property
    def label(self) -> str:
        return Identity(self.kind, self.namespace, self.name).label


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """Objects of one kind as they stood together at ``revision``, sorted by key; those that cannot be read apart."""

    items: tuple[T, ...]
    broken: tuple[Broken, ...] = ()
    revision: int = 0


def utcnow() -> datetime:
    """The default clock."""
    return datetime.now(UTC)


def place(kind: type[Resource], name: str, namespace: str | None = None) -> Identity:
    """Where an object of that name belongs. Raises Invalid for events, whose keys say more."""
    if kind is Event:
        raise Invalid(f"event/{name}: events are not read or written one by one: list them")
    return Identity(kind.KIND, (namespace or DEFAULT_NAMESPACE) if kind.NAMESPACED else CLUSTER_SCOPE, name)


def key_of(obj: Resource) -> str:
    """The object's key in etcd."""
    if isinstance(obj, Event):
        return keys.event_key(obj.namespace, regarding_word(obj.regarding), obj.name)
    return keys.object_key(type(obj), obj.name, obj.namespace)


def prefix_of(kind: type[Resource], namespace: str | None = None) -> str:
    """All objects of the kind, or those in one namespace. The namespace of a kind that has none does not matter."""
    inside = namespace if kind.NAMESPACED else None
    if kind is Event:
        return keys.EVENTS + (f"{inside}/" if inside else "")
    return keys.kind_prefix(kind, inside)


def regarding_word(regarding: ObjectReference) -> str:
    """The word between namespace and id in an event's key. No kind has a dot in its name, so it is unambiguous."""
    return f"{regarding.kind.lower()}.{regarding.name}".replace("/", "_")


@cache
def _by_plural() -> dict[str, str]:
    """Names of kinds."""
    from crds.registry import KINDS  # late: agents do without most kinds, and a machine that boots waits for every import

    return {kind.PLURAL: kind.KIND for kind in KINDS}


def identify(key: str) -> Identity:
    """What a key stands for. Keys that fit nothing we know are named whole, so that a message can still say which."""
    match keys.parts(key):
        case ["kinds", plural, namespace, name]:
            return Identity(_by_plural().get(plural, plural), namespace, name)
        case ["events", namespace, _, name]:
            return Identity(Event.KIND, namespace, name)
        case ["placements", node, namespace, job]:
            return Identity("Placement", namespace, f"{job}@{node}")
        case ["nodes", node, "jobs" | "claims" as what, namespace, job]:
            return Identity("JobReport" if what == "jobs" else "Claim", namespace, f"{job}@{node}")
        case ["public", "hosts", namespace, job]:
            return Identity("HostEntry", namespace, job)
        case ["nodes", node, "alive" | "load" as what]:
            return Identity("Node" + what.capitalize(), CLUSTER_SCOPE, node)
    return Identity("Key", CLUSTER_SCOPE, key)


def encode(obj: Resource) -> bytes:
    """What is stored: the text never says which revision it is, because only etcd knows. Raises Invalid."""
    metadata = obj.metadata.model_copy(update={"resource_version": None})
    bare = obj.model_copy(update={"metadata": metadata})
    try:
        return bare.model_dump_json(by_alias=True, exclude_none=True, warnings=False).encode()
    except PydanticSerializationError as error:
        raise Invalid(f"{obj.label}: a field holds what cannot be written: {error}") from error


def decode(kind: type[T], kv: KeyValue) -> T:
    """The object under a key. Raises Invalid, naming the object, all wrong fields and what to do."""
    obj = _validate(kind, kv)
    identity = identify(kv.key)
    if (obj.namespace, obj.name) != (identity.namespace, identity.name):
        where = f"{obj.namespace}/{obj.name}"
        raise Invalid(f"{identity.label}: metadata.name: the stored object calls itself {where}: delete it and apply it again")
    obj.metadata.resource_version = kv.mod_revision
    return obj


def parse(model: type[M], kv: KeyValue) -> M:
    """What is stored under a key that holds no object: a placement, a report, ... Raises Invalid."""
    return _validate(model, kv)


def parse_or_broken(model: type[M], kv: KeyValue) -> M | Broken:
    """Like ``parse``, but what cannot be read is told apart instead of raised."""
    try:
        return parse(model, kv)
    except Invalid as error:
        return broken(kv, error)


def decode_or_broken(kind: type[T], kv: KeyValue) -> T | Broken:
    """Like ``decode``, but what cannot be read is told apart instead of raised."""
    try:
        return decode(kind, kv)
    except Invalid as error:
        return broken(kv, error)


def decode_all(kind: type[T], stored: Iterable[KeyValue], revision: int = 0) -> Listing[T]:
    """All objects of a kind; ``stored`` are the keys below its prefix."""
    items: list[T] = []
    unreadable: list[Broken] = []
    for kv in stored:
        obj = decode_or_broken(kind, kv)
        if isinstance(obj, Broken):
            unreadable.append(obj)
        else:
            items.append(obj)
    return Listing(tuple(items), tuple(unreadable), revision)


def broken(kv: KeyValue, error: Invalid) -> Broken:
    """Why a key cannot be read, with what it holds."""
    identity = identify(kv.key)
    return Broken(kv.key, identity.kind, identity.name, identity.namespace, kv.value, str(error), kv.mod_revision)


def _validate(model: type[M], kv: KeyValue) -> M:
    try:
        return model.model_validate_json(kv.value)
    except ValidationError as error:
        problems = "; ".join(map(str, find_problems(error, model)))
        raise Invalid(f"{identify(kv.key).label}: the stored value is broken: {problems}: delete it and apply it again") from error
