"""Event: something that happened to an object, for people; gone after a while (TTL lease in the store)."""

from typing import ClassVar, Literal

from crds.meta import Column, Model, Resource, Time


class ObjectReference(Model):
    """The object an event is about."""

    kind: str
    """Its kind."""
    name: str
    """Its name."""
    namespace: str | None = None
    """Its namespace."""
    uid: str | None = None
    """Its uid."""


class Event(Resource):
    """Something that happened to an object."""

    KIND: ClassVar[str] = "Event"
    PLURAL: ClassVar[str] = "events"
    SHORT: ClassVar[tuple[str, ...]] = ("ev",)
    NAMESPACED: ClassVar[bool] = True
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("TYPE", lambda e: e.type),
        Column("REASON", lambda e: e.reason),
        Column("OBJECT", lambda e: f"{e.regarding.kind.lower()}/{e.regarding.name}"),
        Column("COUNT", lambda e: str(e.count), wide=True),
        Column("SOURCE", lambda e: e.source, wide=True),
        Column("MESSAGE", lambda e: e.message),
    )

    kind: Literal["Event"] = "Event"
    """Kind of the resource."""
    regarding: ObjectReference
    """What it happened to."""
    type: Literal["Normal", "Warning"] = "Normal"
    """Warning: somebody may have to act."""
    reason: str
    """One CamelCase word for machines."""
    message: str
    """One line for people."""
    source: str = ""
    """Who reports it."""
    count: int = 1
    """How often it happened."""
    first_seen: Time
    """First time."""
    last_seen: Time
    """Latest time."""
