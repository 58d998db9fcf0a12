"""NodeSet: many machines in one description. Its nodes are ordinary Nodes; removing a MAC removes its node like any other."""

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from crds.assignment import KernelArgument, check_kernel_arguments
from crds.cluster import address_range
from crds.machine import Mac, check_card
from crds.meta import Column, Model, Name, Resource, Status
from crds.node import Taint
from crds.power import PowerSpec

_PATTERN = re.compile(r"[a-z0-9.-]*\{(:0[1-9])?\}[a-z0-9.-]*")
MOST = 10_000


class NodeTemplate(Model):
    """What the nodes of a set have in common. In ``power`` the words {name}, {number} and {mac} are each node's own."""

    labels: dict[str, str] = Field(default_factory=dict)
    """Labels."""
    taints: list[Taint] = Field(default_factory=list)
    """Keep jobs away that do not tolerate them."""
    image: Name | None = None
    """Image they run."""
    kernel_arguments: list[KernelArgument] = Field(default_factory=list)
    """Words for their kernel lines."""
    power: PowerSpec | None = None
    """How they are switched on and off."""

    @field_validator("kernel_arguments")
    @classmethod
    def _are_words(cls, value: list[str]) -> list[str]:
        return check_kernel_arguments(value)


class NodeSetSpec(Model):
    """Which nodes there are."""

    names: str = "n{}"
    """Name of each, with its number in the place of {}; {:03} fills up with noughts."""
    first: int = Field(default=1, ge=0)
    """The lowest number."""
    macs: list[Mac] = Field(default_factory=list)
    """One node for each. A node keeps its number as long as its MAC is listed."""
    count: int | None = Field(default=None, ge=0, le=MOST)
    """So many nodes instead, whose MACs are not known yet."""
    addresses: str | None = None
    """Where their addresses are taken from, in the order of their numbers: 10.77.0.11-10.77.0.74, or 10.77.0.64/26. The Cluster's
    dynamic range when unset."""
    template: NodeTemplate = Field(default_factory=NodeTemplate)
    """What they have in common."""

    @field_validator("names")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        if not _PATTERN.fullmatch(value):
            raise ValueError(f'"{value}" has to hold {{}} or {{:03}} once, beside lower-case letters, digits, "-" and "."')
        return value

    @field_validator("macs")
    @classmethod
    def _are_different(cls, value: list[str]) -> list[str]:
        for mac in value:
            check_card(mac)
        twice = {mac for mac in value if value.count(mac) > 1} if len(set(value)) != len(value) else set()
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))} is listed twice: list each machine once")
        if len(value) > MOST:
            raise ValueError(f"{len(value)} machines, at most {MOST} are allowed in one set: make several sets")
        return value

    @field_validator("addresses")
    @classmethod
    def _is_range(cls, value: str | None) -> str | None:
        if value is not None:
            address_range(value)
        return value

    @model_validator(mode="after")
    def _fits(self) -> "NodeSetSpec":
        if self.count is not None and self.macs:
            raise ValueError("count and macs are both given: keep one of the two")
        size = len(self.macs) if self.count is None else self.count
        if self.addresses is not None:
            low, high = address_range(self.addresses)
            if size > high - low + 1:
                raise ValueError(f"addresses {self.addresses} are {high - low + 1}, but there are {size} nodes: widen the range")
        return self


class NodeSetStatus(Status):
    """What became of it."""

    nodes: int = 0
    """Its Nodes that are there."""
    ready_nodes: int = 0
    """Those that are Ready."""
    message: str = ""
    """What keeps it from having all."""


class NodeSet(Resource):
    """Many machines in one description."""

    KIND: ClassVar[str] = "NodeSet"
    PLURAL: ClassVar[str] = "nodesets"
    SHORT: ClassVar[tuple[str, ...]] = ("nset",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("NODES", lambda s: f"{s.status.nodes}/{len(s.spec.macs) if s.spec.count is None else s.spec.count}"),
        Column("READY", lambda s: str(s.status.ready_nodes)),
        Column("IMAGE", lambda s: s.spec.template.image or "-", wide=True),
        Column("ADDRESSES", lambda s: s.spec.addresses or "-", wide=True),
        Column("MESSAGE", lambda s: s.status.message or "-", wide=True),
    )

    kind: Literal["NodeSet"] = "NodeSet"
    """Kind of the resource."""
    spec: NodeSetSpec = Field(default_factory=NodeSetSpec)
    """Desired state."""
    status: NodeSetStatus = Field(default_factory=NodeSetStatus)
    """Observed state."""
