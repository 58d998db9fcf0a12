"""Image: the root file system that nodes run, and its revisions.

People write the spec; whoever builds (clip) turns it into a *revision*: immutable layers on the shelf of the head, named for good.
A revision is never changed. Another spec, or a newer agent, makes another one; going back makes a new one with an older content.
What a node runs is the revision of a *digest*, so revisions of one digest are the same to it.
"""

import posixpath
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from crds.meta import Column, Model, Resource, Status, Time, find_condition
from crds.quantity import human_memory

BUILT = "Built"
"""Condition. True: the current revision is what the spec asks for. False: building failed, the reason says how."""
COMPLETE = "Complete"
BUILDING = "Building"
LAYERS_FINALIZER = "mx/layers"
"""Held while there are revisions: an image that nodes run does not go, and its layers go with it."""

KERNEL = "linux-image-amd64"
RESERVED_ARGUMENTS = ("ip=", "mx.", "initrd=")
"""What clip itself puts on the kernel line."""
ACCOUNT_FILES = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")
RESERVED_PATHS = ("/boot", "/dev", "/etc/mx", "/proc", "/run", "/shared", "/sys", "/tmp", "/usr/lib/modules", "/usr/lib/mx")

Package = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
Argument = Annotated[str, StringConstraints(pattern=r"^[!-~]+$")]
Account = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,30}$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^(ssh-|ecdsa-|sk-)[^\n]+$")]
Mode = Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3,4}$")]
Owner = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_][a-z0-9_-]*(:[a-z0-9_][a-z0-9_-]*)?$")]


class Init(StrEnum):
    """The first process of a machine."""

    MINIMAL = "minimal"
    """A script of ours that starts the agent and its guard: up in a third of the time."""
    SYSTEMD = "systemd"


def _plain_path(value: str) -> str:
    if not value.startswith("/") or posixpath.normpath(value) != value or value == "/" or any(c in value for c in "\n\0:"):
        raise ValueError('is no path of a file; write it from the root on and without "..", e.g. /etc/motd')
    return value


class ImageFile(Model):
    """A file that every node of the image has. Not for secrets: what is here, everybody who may read the cluster reads."""

    path: str
    """Where, e.g. /etc/motd. Directories on the way are made."""
    content: str = ""
    """Its text."""
    mode: Mode = "0644"
    """Its permissions, octal, in quotes."""
    owner: Owner = "root:root"
    """USER or USER:GROUP, by name or number, of the image."""

    @field_validator("path")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        value = _plain_path(value)
        if value in ACCOUNT_FILES:
            raise ValueError(f"{value} is made from spec.users; declare the users there")
        for reserved in RESERVED_PATHS:
            if value == reserved or value.startswith(f"{reserved}/"):
                raise ValueError(f"what is below {reserved} is made by mx itself; choose another path")
        return value

    @field_validator("mode", mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        if isinstance(value, int):  # YAML reads 0644 as 420, and 644 as 644: no telling what was meant
            raise ValueError('has to be in quotes, e.g. "0644"')
        return value


class ImageUser(Model):
    """A user that every node of the image knows. There are no passwords: people come in with keys, jobs run by number."""

    name: Account
    """Log-in name."""
    uid: int = Field(ge=1, le=0xFFFFFFFD)
    """Number; files on /shared belong to it, so it has to be the same everywhere."""
    gid: int | None = Field(default=None, ge=1, le=0xFFFFFFFD)
    """Number of the primary group; a group of the user's own name and number where it is not said."""
    groups: list[Account] = Field(default_factory=list)
    """Further groups, which the image has or other users bring."""
    shell: str = "/bin/bash"
    """Log-in shell."""
    home: str | None = None
    """Home directory, /home/<name> where it is not said. Made only for a user with keys."""
    ssh_keys: list[PublicKey] = Field(default_factory=list)
    """Public keys to log in with, one a line as in authorized_keys."""

    @field_validator("shell", "home")
    @classmethod
    def _is_plain(cls, value: str | None) -> str | None:
        return value if value is None else _plain_path(value)

    @property
    def directory(self) -> str:
        """The home directory."""
        return self.home or f"/home/{self.name}"


class ImageSpec(Model):
    """Desired content of a root file system."""

    suite: Literal["trixie"] = "trixie"
    """Debian release the tree is built from."""
    packages: list[Package] = Field(default_factory=list)
    """Debian packages beside what a node needs anyway."""
    kernel: Package = KERNEL
    """Debian package of the kernel that machines boot; linux-image-cloud-amd64 is smaller, and for virtual machines only."""
    kernel_arguments: list[Argument] = Field(default_factory=list)
    """Added to the kernel line, one word each, e.g. console=ttyS0."""
    files: list[ImageFile] = Field(default_factory=list)
    """Files beside those of the packages, or in place of them."""
    users: list[ImageUser] = Field(default_factory=list)
    """Users beside those of Debian."""
    init: Init = Init.MINIMAL
    """The first process of a machine: minimal or systemd."""

    @field_validator("kernel_arguments")
    @classmethod
    def _is_free(cls, value: list[str]) -> list[str]:
        for argument in value:
            if argument.startswith(RESERVED_ARGUMENTS):
                raise ValueError(f"{argument} is given to each node by mx itself; remove it")
        return value

    @model_validator(mode="after")
    def _each_once(self) -> "ImageSpec":
        for what, values in (
            ("path", [file.path for file in self.files]),
            ("user", [user.name for user in self.users]),
            ("uid", [str(user.uid) for user in self.users]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"the {what} {twice[0]} is there twice: keep one of the two")
        return self


class Revision(Model):
    """One built image, which never changes. Status.assigned of a node names it by its digest."""

    number: int
    """1, 2, 3, … of this image; what people name it by."""
    digest: str
    """12 hexadecimal digits over the content of its layers, kernel arguments and init. What /etc/mx/image of a node says."""
    layers: list[str]
    """Names of the layers on the shelf, topmost first; each is a directory with the tree in ``root``."""
    boot: str
    """Directory on the shelf with vmlinuz and initrd.img."""
    kernel: str
    """Release of the kernel in it."""
    kernel_arguments: list[str] = Field(default_factory=list)
    """As the spec had them."""
    init: Init = Init.MINIMAL
    """As the spec had it."""
    agent: str = ""
    """Version of the agent in it."""
    built: Time
    """When it was recorded."""
    size: int = 0
    """Bytes of all layers; layers that other revisions share are counted in each."""
    recipe: str
    """12 hexadecimal digits over what was asked for: a spec and an agent with the same ones need no other revision."""
    rollback_of: int | None = None
    """The revision whose content it has again."""


class Building(Model):
    """A build on its way."""

    phase: str
    """What it does now."""
    fraction: float = 0.0
    """How much of it is done, 0 to 1."""
    since: Time
    """When it began."""


class ImageStatus(Status):
    """Observed state of an image."""

    nodes: list[str] = Field(default_factory=list)
    """Nodes declared to run it."""
    revisions: list[Revision] = Field(default_factory=list)
    """Those there are, oldest first. A node may be assigned one of these only."""
    current: int | None = None
    """Number of the one that new nodes get, and that a rollout brings to all."""
    building: Building | None = None
    """Progress, while a build is on its way."""
    message: str = ""
    """Why it is still there while it is being deleted."""

    @property
    def current_revision(self) -> Revision | None:
        """The current one; None before the first build."""
        return self.numbered(self.current) if self.current is not None else None

    def numbered(self, number: int) -> Revision | None:
        """The revision of this number."""
        return next((revision for revision in self.revisions if revision.number == number), None)

    def of_digest(self, digest: str) -> Revision | None:
        """The newest revision of this digest: what a node that reports it runs."""
        return next((revision for revision in reversed(self.revisions) if revision.digest == digest), None)


def _state(image: "Image") -> str:
    building, condition = image.status.building, find_condition(image.status.conditions, BUILT)
    if building is not None:
        return f"Building {building.fraction:.0%}"
    return condition.reason if condition else "-"


def _current(image: "Image") -> Revision | None:
    return image.status.current_revision


class Image(Resource):
    """A root file system that nodes run."""

    KIND: ClassVar[str] = "Image"
    PLURAL: ClassVar[str] = "images"
    SHORT: ClassVar[tuple[str, ...]] = ("img",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("SUITE", lambda i: i.spec.suite),
        Column("REVISION", lambda i: str(i.status.current or "-")),
        Column("STATE", _state),
        Column("NODES", lambda i: str(len(i.status.nodes))),
        Column("DIGEST", lambda i: r.digest if (r := _current(i)) else "-", wide=True),
        Column("KERNEL", lambda i: r.kernel if (r := _current(i)) else i.spec.kernel, wide=True),
        Column("SIZE", lambda i: human_memory(r.size) if (r := _current(i)) else "-", wide=True),
        Column("PACKAGES", lambda i: ",".join(i.spec.packages) or "-", wide=True),
    )

    kind: Literal["Image"] = "Image"
    """Kind of the resource."""
    spec: ImageSpec = Field(default_factory=ImageSpec)
    """Desired state."""
    status: ImageStatus = Field(default_factory=ImageStatus)
    """Observed state."""
