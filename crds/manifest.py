"""Manifest: what is in a revision of an image, so that people and controllers can tell two of them apart without their trees."""

from collections.abc import Iterator, Mapping

from pydantic import Field

from crds.image import Init
from crds.meta import Model


class Manifest(Model):
    """/mx/manifests/<image>/<digest>, written together with the revision by whoever built it."""

    digest: str
    """Of the revision."""
    kernel: str = ""
    """Release of the kernel."""
    kernel_arguments: list[str] = Field(default_factory=list)
    """Added to the kernel line."""
    init: Init = Init.MINIMAL
    """The first process."""
    agent: str = ""
    """Version of the agent."""
    agent_source: str = ""
    """Name of the agent's layer: two of one version differ in it."""
    packages: dict[str, str] = Field(default_factory=dict)
    """Debian packages and their versions."""
    files: dict[str, str] = Field(default_factory=dict)
    """Files that the spec adds: path -> digits over content, mode and owner."""
    users: dict[str, int] = Field(default_factory=dict)
    """Users that the spec adds: name -> uid."""


def differences(old: Manifest, new: Manifest) -> list[str]:
    """What changes from one to the other, a line each, what matters most first; empty when nothing does. Pure."""
    lines = []
    for what, before, after in (
        ("kernel", old.kernel, new.kernel),
        ("kernel arguments", " ".join(old.kernel_arguments), " ".join(new.kernel_arguments)),
        ("init", old.init, new.init),
        ("agent", old.agent, new.agent),
    ):
        if before != after:
            lines.append(f"{what} {before or 'none'} -> {after or 'none'}")
    if old.agent == new.agent and old.agent_source != new.agent_source:
        lines.append(f"agent {new.agent} of other source ({old.agent_source} -> {new.agent_source})")
    lines += _changed("package", old.packages, new.packages, versions=True)
    lines += _changed("file", old.files, new.files, versions=False)
    lines += _changed("user", old.users, new.users, versions=True)
    if not lines and old.digest != new.digest:
        lines.append("content of the same packages, files and users: built from another state of the mirror")
    return lines


def _changed(what: str, old: Mapping[str, object], new: Mapping[str, object], *, versions: bool) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if name not in old:
            yield f"{what} {name} added" + (f" ({new[name]})" if versions else "")
        elif name not in new:
            yield f"{what} {name} removed"
        elif old[name] != new[name]:
            yield f"{what} {name} {old[name]} -> {new[name]}" if versions else f"{what} {name} changed"
