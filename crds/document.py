"""Document: one object as somebody wrote it, and where: so that every error can name the file, the line and the field."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from crds.meta import Resource

Path = tuple[str | int, ...]
"""A field as it is written outside: ``("spec", "taints", 0, "key")``."""


def format_path(path: Path) -> str:
    """``spec.taints[0].key``; a name that holds dots or slashes stands in brackets: ``metadata.labels['a.b/c']``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.replace("-", "").replace("_", "").isalnum():
            text += f".{step}" if text else step
        else:
            text += f"['{step}']"
    return text


@dataclass(frozen=True, slots=True)
class Document:
    """``obj`` is ``data`` validated; its ``model_fields_set`` tells what was written and what is a default."""

    obj: Resource
    data: Mapping[str, Any]
    source: str
    """File name, or "-" for standard input."""
    line: int
    """First line of the document in its source, from 1."""
    lines: Mapping[Path, int] = field(default_factory=dict)
    """Line of each field that was written."""

    @property
    def location(self) -> str:
        """``cluster.yaml:12``."""
        return f"{self.source}:{self.line}"

    def line_of(self, path: Path) -> int:
        """The line of a field or, if it was not written, of the nearest part around it that was."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return self.line


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a field cannot stay as it is."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{format_path(self.path)}: {self.message}" if self.path else self.message


def find_problems(error: ValidationError) -> Iterator[Problem]:
    """What pydantic found, each in one line of plain words."""
    for found in error.errors(include_url=False):
        yield Problem(tuple(found["loc"]), _plain(found["type"], found["msg"]))


def _plain(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field"
    if kind == "missing":
        return "is missing"
    return " ".join(message.removeprefix("Value error, ").split())
