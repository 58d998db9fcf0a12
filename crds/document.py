"""Document: one object as somebody wrote it, with the place of every field, so that later errors can still name file and line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crds.meta import Resource

Path = tuple[str | int, ...]
"""Where a field is: ``("spec", "taints", 0, "key")``; names as they are written (camelCase)."""


@dataclass(frozen=True, slots=True)
class Document:
    """``data`` is what was written and nothing else (no defaults): the base of apply's three-way merge."""

    obj: Resource
    data: dict[str, Any]
    source: str
    line: int
    lines: Mapping[Path, int] = field(default_factory=dict, repr=False)

    @property
    def location(self) -> str:
        """``file:line`` of its first line."""
        return f"{self.source}:{self.line}"

    def line_of(self, path: Path) -> int:
        """Line of the field, or of the nearest field around it that was written."""
        return nearest_line(self.lines, path, self.line)


def nearest_line(lines: Mapping[Path, int], path: Path, start: int) -> int:
    """Line of the longest beginning of the path that was written; ``start`` if none was."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), start)


def dotted(path: Path) -> str:
    """``spec.taints[0].key``; names that hold dots or slashes stand in brackets: ``metadata.labels['a.b/c']``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("-", "").replace("_", "").isalnum():
            text += f".{part}" if text else part
        else:
            text += f"['{part}']"
    return text
