"""Programs and libraries of jobs, compared between nodes that may have different ones: by another image, or joined by hand.

A process that moves goes on in the middle of its program, so a node with another file under that name must not get it.
"""

from pydantic import Field

from crds.meta import Model


class WantedFiles(Model):
    """/mx/public/files, written by the reconciler. As long as it is there, agents tell which files their jobs have mapped."""

    paths: list[str] = Field(default_factory=list)
    """All files that jobs have mapped, sorted: each agent tells what it has there."""


class NodeFiles(Model):
    """/mx/nodes/<node>/files, written by that agent."""

    boot_id: str
    """Of the boot in which it looked: after the next one the node may have others."""
    digests: dict[str, str] = Field(default_factory=dict)
    """By path; empty where there is no such file."""
