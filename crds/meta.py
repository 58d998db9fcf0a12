"""What every resource has: metadata, conditions, and the shape apiVersion, kind, metadata, spec, status.

Strict: an unknown field is an error, because a misspelt one that is silently dropped is found a week later.
Field names are snake_case in Python and camelCase outside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints
from pydantic.alias_generators import to_camel

API_VERSION: Literal["mx/v1"] = "mx/v1"
DEFAULT_NAMESPACE = "default"
CLUSTER_SCOPE = "_"
"""Stands for the namespace in the keys of kinds that have none."""

LAST_APPLIED = "mx/last-applied"
"""Annotation with the JSON that `apply` wrote last: the base of its three-way merge."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$", strip_whitespace=False, max_length=63)]
"""Lower-case letters, digits, '-' and '.'; safe in keys, file names and host names."""


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(format_time, return_type=str)]


class Model(BaseModel):
    """Base of everything that is written: strict about unknown fields, camelCase outside.

    A validator is built when a model is first used: an agent uses few of them, and starts in half the time.
    """

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, defer_build=True)

    def to_data(self) -> dict[str, Any]:
        """JSON-ready, camelCase, without what is unset (None)."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json(self) -> bytes:
        """What is stored in etcd."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class OwnerReference(Model):
    """Who this object belongs to; it goes when its owner has gone."""

    kind: str
    """The owner's kind."""
    name: Name
    """The owner's name."""
    uid: str
    """The owner's uid: another object of its name is no owner."""


class Metadata(Model):
    """Name and bookkeeping. People write name, namespace, labels and annotations; the store writes the rest."""

    name: Name
    """Unique among the objects of its kind and namespace."""
    namespace: Name | None = None
    """The user or project it belongs to; empty for kinds of the whole cluster."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Chosen freely; selected with -l."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Notes for people and tools; never selected by."""
    uid: str | None = None
    """Given once by the store; two objects of one name have different uids."""
    resource_version: int | None = None
    """etcd's mod_revision of the object: what compare-and-set compares."""
    generation: int = 0
    """Rises with every change of the spec."""
    creation_timestamp: Time | None = None
    """When the store first wrote it."""
    deletion_timestamp: Time | None = None
    """Set by delete while finalizers are left."""
    finalizers: list[str] = Field(default_factory=list)
    """Who has to clean up before the object may go."""
    owner_references: list[OwnerReference] = Field(default_factory=list)
    """Objects this one belongs to."""


class Truth(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


RECONCILED = "Reconciled"
"""Condition of any object; False: nothing is decided about it until it, or what its message names, is repaired."""


class Condition(Model):
    """One observed aspect of an object, with a reason for machines and a message for people."""

    type: str
    """CamelCase name, e.g. Ready."""
    status: Truth
    """True, False or Unknown."""
    reason: str = ""
    """One CamelCase word for machines."""
    message: str = ""
    """One line for people."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: int = 0
    """The generation of the spec this was observed for."""


def set_condition(
    conditions: list[Condition],
    kind: str,
    status: bool | Truth,
    reason: str,
    message: str,
    now: datetime,
    generation: int = 0,
) -> list[Condition]:
    """The conditions with one of them set; its transition time moves only when its status changes."""
    truth = status if isinstance(status, Truth) else Truth.TRUE if status else Truth.FALSE
    old = find_condition(conditions, kind)
    since = old.last_transition_time if old and old.status == truth else now
    new = Condition(
        type=kind,
        status=truth,
        reason=reason,
        message=message,
        last_transition_time=since,
        observed_generation=generation,
    )
    return sorted([c for c in conditions if c.type != kind] + [new], key=lambda c: c.type)


def find_condition(conditions: list[Condition], kind: str) -> Condition | None:
    """The condition of that type, if it was ever set."""
    return next((c for c in conditions if c.type == kind), None)


def is_true(conditions: list[Condition], kind: str) -> bool:
    """Whether the condition is there and True."""
    found = find_condition(conditions, kind)
    return found is not None and found.status == Truth.TRUE


class Status(Model):
    """Base of all statuses."""

    observed_generation: int = 0
    """The generation of the spec that this status answers to."""
    conditions: list[Condition] = Field(default_factory=list)
    """What was observed, each with a reason."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `mxctl get`: its title and how to read its text out of the object. ``wide`` shows with -o wide only."""

    title: str
    text: Callable[[Any], str]
    wide: bool = False


class Resource(Model):
    """Base of all kinds. Class variables describe the kind; columns exclude NAME and AGE, which every kind has."""

    KIND: ClassVar[str]
    PLURAL: ClassVar[str]
    SHORT: ClassVar[tuple[str, ...]] = ()
    NAMESPACED: ClassVar[bool] = False
    COLUMNS: ClassVar[tuple[Column, ...]] = ()

    api_version: Literal["mx/v1"] = API_VERSION
    """Version of this description."""
    kind: str
    """Kind of the resource."""
    metadata: Metadata
    """Name, labels and bookkeeping."""

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace, or the word that stands for none."""
        return (self.metadata.namespace or DEFAULT_NAMESPACE) if self.NAMESPACED else CLUSTER_SCOPE

    @property
    def label(self) -> str:
        """For messages: ``job/w`` or, outside the default namespace, ``job/alice/w``."""
        where = f"{self.namespace}/" if self.NAMESPACED and self.namespace != DEFAULT_NAMESPACE else ""
        return f"{self.KIND.lower()}/{where}{self.name}"

    @classmethod
    def from_json(cls, raw: bytes, resource_version: int = 0) -> Self:
        """Read back what ``to_json`` wrote; the revision comes from the key, not from the text."""
        found = cls.model_validate_json(raw)
        if resource_version:
            found.metadata.resource_version = resource_version
        return found
