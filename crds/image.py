"""Image: the root file system that nodes run."""

from typing import ClassVar, Literal

from pydantic import Field

from crds.meta import Column, Model, Resource, Status


class ImageSpec(Model):
    """Desired content of a root file system."""

    suite: Literal["trixie"] = "trixie"
    """Debian release the tree is built from."""
    packages: list[str] = Field(default_factory=list)
    """Debian packages beside what a node needs anyway."""


class ImageStatus(Status):
    """Observed state of an image."""

    nodes: list[str] = Field(default_factory=list)
    """Nodes declared to run it."""


class Image(Resource):
    """A root file system that nodes run."""

    KIND: ClassVar[str] = "Image"
    PLURAL: ClassVar[str] = "images"
    SHORT: ClassVar[tuple[str, ...]] = ("img",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("SUITE", lambda i: i.spec.suite),
        Column("NODES", lambda i: str(len(i.status.nodes))),
        Column("PACKAGES", lambda i: ",".join(i.spec.packages) or "-", wide=True),
    )

    kind: Literal["Image"] = "Image"
    """Kind of the resource."""
    spec: ImageSpec = Field(default_factory=ImageSpec)
    """Desired state."""
    status: ImageStatus = Field(default_factory=ImageStatus)
    """Observed state."""
