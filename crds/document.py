"""Document: one object as somebody wrote it, and where: so that every error can name the file, the line and the field."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from crds.meta import Resource
from crds.wording import explain

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
        return nearest_line(self.lines, path, self.line)


def nearest_line(lines: Mapping[Path, int], path: Path, start: int) -> int:
    """The line of the longest beginning of the path that was written; ``start`` if none was."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), start)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a field cannot stay as it is."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{format_path(self.path)}: {self.message}" if self.path else self.message


def find_problems(error: ValidationError, model: type[BaseModel] | None = None) -> Iterator[Problem]:
    """What pydantic found, each in one line of plain words; with ``model``, what was validated, they name the fields there are."""
    for found in error.errors(include_url=False):
        yield Problem(tuple(found["loc"]), explain(found, model))
