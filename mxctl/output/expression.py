"""kubectl's JSONPath templates: ``{.status.node}``, ``{range .items[*]}{.metadata.name}{"\\n"}{end}``.

The paths inside the braces are python-jsonpath's business; this file does what kubectl puts around them: text between
braces, quoted text in braces, range, values joined by blanks, and dots escaped in names (``.metadata.labels.a\\.b/c``).
A path that leads nowhere gives nothing, as with kubectl.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mxctl.core.failures import Failure

if TYPE_CHECKING:
    from jsonpath import JSONPath

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Values:
    path: "JSONPath"


@dataclass(frozen=True, slots=True)
class Range:
    path: "JSONPath"
    body: "tuple[Part, ...]"


Part = Text | Values | Range


class Template:
    """A template, checked when it is made. Raises Failure."""

    def __init__(self, text: str) -> None:
        tokens = _tokens(text if "{" in text else f"{{{text}}}")
        self._parts, rest = _parse(tokens, 0, text, inside=False)
        assert rest == len(tokens)

    def render(self, data: Any) -> str:
        """The text for this data."""
        return "".join(_render(part, data) for part in self._parts)


class Expression:
    """One path with or without braces, for columns, sorting and waiting. Raises Failure."""

    def __init__(self, text: str) -> None:
        self._path = _path(re.sub(r"^\{(.*)\}$", r"\1", text.strip(), flags=re.DOTALL), text)

    def find(self, data: Any) -> list[Any]:
        """All values the path leads to."""
        return list(self._path.findall(data))


def as_text(value: Any) -> str:
    """Text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _tokens(text: str) -> list[tuple[bool, str]]:
    """(inside braces?, text) for each stretch; quoted braces do not count."""
    found = []
    pattern = re.compile(r"""\{((?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^{}"'])*)\}|([^{}]+)""")
    position = 0
    while position < len(text):
        match = pattern.match(text, position)
        if not match:
            raise Failure(f'jsonpath "{text}": braces or quotes do not match at character {position + 1}')
        found.append((match[1] is not None, (match[1] if match[1] is not None else match[2])))
        position = match.end()
    return found


def _parse(tokens: Sequence[tuple[bool, str]], at: int, whole: str, inside: bool) -> tuple[tuple[Part, ...], int]:
    """The parts up to the end, or up to {end} when ``inside`` a range; and where to go on."""
    parts: list[Part] = []
    while at < len(tokens):
        braced, text = tokens[at]
        at += 1
        words = text.strip()
        if not braced:
            parts.append(Text(text))
        elif words == "end":
            if not inside:
                raise Failure(f'jsonpath "{whole}": {{end}} without {{range}}')
            return tuple(parts), at
        elif words.startswith("range "):
            body, at = _parse(tokens, at, whole, inside=True)
            parts.append(Range(_path(words.removeprefix("range "), whole), body))
        elif words[:1] in ("'", '"'):
            parts.append(Text(re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), words[1:-1])))
        else:
            parts.append(Values(_path(words, whole)))
    if inside:
        raise Failure(f'jsonpath "{whole}": {{range}} without {{end}}')
    return tuple(parts), at


def _path(words: str, whole: str) -> "JSONPath":
    """Raises Failure. python-jsonpath is imported only here: most commands do without."""
    from jsonpath import JSONPath, compile  # noqa: A004 - the library's name
    from jsonpath.exceptions import JSONPathError

    words = re.sub(
        r"\.((?:[^.\[\]\\'\"]|\\.)*\\\.(?:[^.\[\]\\'\"]|\\.)*)", lambda found: f"['{found[1].replace(chr(92), '')}']", words.strip()
    )
    words = re.sub(r"\.([A-Za-z_][\w]*-[-\w]*)", r"['\1']", words)
    rooted = "$" + words.removeprefix("$").removeprefix("@")
    if rooted[1:2] not in ("", ".", "["):
        rooted = f"$.{rooted[1:]}"
    try:
        found = compile(rooted.removesuffix(".") if rooted != "$." else "$")
    except JSONPathError as error:
        raise Failure(f'jsonpath "{whole}": {str(error).splitlines()[0]}') from error
    if not isinstance(found, JSONPath):
        raise Failure(f'jsonpath "{whole}": one path at a time')
    return found


def _render(part: Part, data: Any) -> str:
    if isinstance(part, Text):
        return part.text
    values = part.path.findall(data)
    if isinstance(part, Values):
        return " ".join(map(as_text, values))
    return "".join(_render(inner, value) for value in values for inner in part.body)
