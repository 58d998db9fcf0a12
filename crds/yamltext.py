"""YAML text to plain data with the line of every field. Knows nothing of kinds.

Built on the parser's events, not on its loader, because the loader drops lines, keeps the last of two equal keys without a word,
and reads ``52:54:00:12:00:01`` as a number to base 60. Scalars follow YAML 1.2's core schema: only true and false are
booleans, dates stay text. Anchors, aliases and merge keys (``<<``) work; what they unfold to counts as size, so that a small file
cannot become a huge object.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml import events

MAX_DEPTH = 50
MAX_TEXT = 64 << 20  # characters of one source; what is declared for a whole cluster stays far below
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_KNOWN_TAGS = (None, "!", "tag:yaml.org,2002:str")

Path = tuple[str | int, ...]


class BrokenText(ValueError):  # noqa: N818 - it is the text that is broken
    """The text cannot be read on from this line (from 1)."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with one field; reading went on."""

    line: int
    path: Path
    message: str


@dataclass(slots=True)
class Parsed:
    """One document. ``size`` is about the bytes of its JSON with all aliases unfolded."""

    line: int
    data: Any = None
    size: int = 0
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def parse(text: str) -> Iterator[Parsed]:
    """The documents of the text one by one. Raises BrokenText where the text is no YAML."""
    if len(text) > MAX_TEXT:
        raise BrokenText(1, f"{len(text)} characters are too many for one source; {MAX_TEXT} are allowed")
    try:
        stream = yaml.parse(text, Loader=_PARSER)
        for event in stream:
            if isinstance(event, events.DocumentStartEvent):
                yield _Composer(stream).document()
    except yaml.MarkedYAMLError as error:
        raise _broken(error) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BrokenText(line, f"broken YAML: character #x{error.character:04x} is not allowed") from error


def _broken(error: yaml.MarkedYAMLError) -> BrokenText:
    mark = error.problem_mark or error.context_mark
    began = f", {error.context} from line {error.context_mark.line + 1}" if error.context and error.context_mark else ""
    return BrokenText(mark.line + 1 if mark else 1, f"broken YAML: {error.problem}{began}")


class _Composer:
    """Reads one document out of the stream of events."""

    def __init__(self, stream: Iterator[Any]) -> None:
        self._stream = stream
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._out = Parsed(line=1)

    def document(self) -> Parsed:
        first = next(self._stream)
        self._out.line = _line(first)
        self._out.data = self._value(first, ())
        next(self._stream)  # the end of the document
        return self._out

    def _value(self, event: Any, path: Path) -> Any:
        if len(path) > MAX_DEPTH:
            raise BrokenText(_line(event), f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, events.AliasEvent):
            return self._alias(event, path)
        if event.tag not in _KNOWN_TAGS:
            self._fault(_line(event), path, f'the tag "{event.tag}" is not supported')
        before = self._out.size
        if isinstance(event, events.MappingStartEvent):
            value: Any = self._mapping(path)
        elif isinstance(event, events.SequenceStartEvent):
            value = self._sequence(path)
        else:
            value = self._scalar(event, path)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._out.size - before)
        return value

    def _alias(self, event: Any, path: Path) -> Any:
        if event.anchor not in self._anchors:
            why = f"broken YAML: *{event.anchor} stands for nothing: no &{event.anchor} ends before it in its document"
            raise BrokenText(_line(event), why)
        value, size = self._anchors[event.anchor]
        self._out.size += size
        return value

    def _mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[Any] = []
        self._out.size += 2
        while not isinstance(event := next(self._stream), events.MappingEndEvent):
            key, here = self._key(event, path), _line(event)
            inner = (*path, key)
            if key == "<<" and not event.style:
                merged.append(self._value(next(self._stream), inner))
                continue
            if key in found:
                self._fault(here, inner, f"given twice, first in line {self._out.lines[inner]}")
            self._out.lines[inner] = here
            found[key] = self._value(next(self._stream), inner)
        for other in merged:
            self._merge(found, other, path)
        return found

    def _key(self, event: Any, path: Path) -> str:
        if not isinstance(event, events.ScalarEvent):
            raise BrokenText(_line(event), "a name of a field must be text")
        self._out.size += len(event.value.encode()) + 4
        if not event.style and not isinstance(resolve(event.value), str):
            self._fault(_line(event), (*path, event.value), "is not text: put the name in quotes")
        return str(event.value)

    def _merge(self, found: dict[str, Any], other: Any, path: Path) -> None:
        for source in other if isinstance(other, list) else [other]:
            if isinstance(source, dict):
                found |= source | found
            else:
                self._fault(self._out.line, (*path, "<<"), "must name a mapping, or a list of mappings")

    def _sequence(self, path: Path) -> list[Any]:
        found: list[Any] = []
        self._out.size += 2
        while not isinstance(event := next(self._stream), events.SequenceEndEvent):
            inner = (*path, len(found))
            self._out.lines[inner] = _line(event)
            found.append(self._value(event, inner))
        return found

    def _scalar(self, event: Any, path: Path) -> Any:
        self._out.size += len(event.value.encode()) + 1
        if event.tag is not None or event.style:
            return event.value
        value = resolve(event.value)
        if isinstance(value, int | float) and not abs(value) < 1 << 63:
            self._fault(_line(event), path, f"the number {event.value[:30]} is out of range")
            return 0
        return value

    def _fault(self, line: int, path: Path, message: str) -> None:
        self._out.faults.append(Fault(line, path, message))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def resolve(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means."""
    if text.lower() in _WORDS and text in (text.lower(), text.upper(), text.capitalize()):
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text) if len(text) < 100 else 1 << 63
    return float(text) if _FLOAT.fullmatch(text) and not text.isdigit() else text
