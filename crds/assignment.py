"""Assignment: what a machine boots. The reconciler writes it, clip renders it, and it changes only when somebody wanted that.

A machine that crashes in the middle of a rollout comes up with what it is assigned, never with what happens to be newest.
"""

import hashlib
import json
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from crds.meta import Model, Name

KernelArgument = Annotated[str, StringConstraints(pattern=r"^[^\s\"']+$", max_length=200)]
"""One word of the kernel line."""
Path = Annotated[str, StringConstraints(pattern=r"^/[^\s:]*$")]
MX_ARGUMENTS = ("mx.", "ip=", "initrd=", "root=")
"""Beginnings of words that clip writes into the kernel line itself."""


def check_kernel_arguments(arguments: list[str]) -> list[str]:
    """The words, or ValueError for one that would break the boot."""
    for word in arguments:
        if word.startswith(MX_ARGUMENTS):
            raise ValueError(f'"{word}": words that begin with {", ".join(MX_ARGUMENTS)} are written by mx itself')
    return arguments


class Mount(Model):
    """A file system that every node mounts."""

    source: str
    """What mount is given: ADDRESS:/path, where nobody asks a name server yet."""
    target: Path
    """Where it appears on the nodes."""
    type: str = "nfs4"
    """Type of file system."""
    options: str = "vers=4.1"
    """Options, separated by commas."""


class Assignment(Model):
    """Everything that a machine gets to know at its boot, and that only another boot changes."""

    image: Name
    """Image it boots."""
    revision: str
    """Digest of the image's revision."""
    kernel_arguments: list[KernelArgument] = Field(default_factory=list)
    """Words for the kernel line: the Cluster's, then the Node's (the image's own belong to its revision)."""
    address: str | None = None
    """Its IPv4 address; None when whoever runs the DHCP server gives it one."""
    cidr: str = ""
    """The nodes' network."""
    gateway: str | None = None
    """Its router."""
    dns: list[str] = Field(default_factory=list)
    """Name servers."""
    domain: str = ""
    """DNS domain."""
    mounts: list[Mount] = Field(default_factory=list)
    """File systems it mounts beside its root."""

    @property
    def digest(self) -> str:
        """12 hexadecimal digits over all of it: the word ``mx.assigned=`` of the kernel line, which the agent reports."""
        text = json.dumps(self.to_data(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @field_validator("kernel_arguments")
    @classmethod
    def _are_words(cls, value: list[str]) -> list[str]:
        return check_kernel_arguments(value)


def differences(old: Assignment, new: Assignment) -> list[str]:
    """What a boot would change, one line each; empty when nothing."""
    found = []
    if (old.image, old.revision) != (new.image, new.revision):
        found.append(f"image: {old.image} {old.revision} -> {new.image} {new.revision}")
    for title, before, after in (
        ("kernel arguments", old.kernel_arguments, new.kernel_arguments),
        ("name servers", old.dns, new.dns),
        ("mounts", [_mount(m) for m in old.mounts], [_mount(m) for m in new.mounts]),
    ):
        found += [f"{title}: {change}" for change in _changes(before, after)]
    for title, was, will in (
        ("address", old.address, new.address),
        ("network", old.cidr, new.cidr),
        ("gateway", old.gateway, new.gateway),
        ("domain", old.domain, new.domain),
    ):
        if was != will:
            found.append(f"{title}: {was or 'none'} -> {will or 'none'}")
    return found


def _mount(mount: Mount) -> str:
    return f"{mount.source} on {mount.target} ({mount.type}, {mount.options})"


def _changes(before: list[str], after: list[str]) -> list[str]:
    gone, come = [w for w in before if w not in after], [w for w in after if w not in before]
    if not gone and not come and before != after:
        return [f"order {' '.join(before)} -> {' '.join(after)}"]
    return [f"-{word}" for word in gone] + [f"+{word}" for word in come]
