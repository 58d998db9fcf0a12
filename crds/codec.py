"""YAML files to objects and back.

A source is checked as a whole: all errors of all its documents are collected, each in one line ``file:line: field.path: message``,
so that nobody mends a file error by error. Types are strict (``"2"`` is no number), names are camelCase only.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from crds.document import Document, Path, Problem, find_problems, format_path, nearest_line
from crds.meta import API_VERSION, Resource
from crds.registry import BY_KIND, DECLARABLE
from crds.wording import did_you_mean, shorten, what_is
from crds.yamltext import BrokenText, Parsed, parse, resolve

MAX_DOCUMENT = 1 << 20  # bytes of one object: what the store takes

WRITTEN_BY_STORE = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "finalizers", "ownerReferences"}
)
"""Metadata that people do not write."""


@dataclass(frozen=True, slots=True)
class Located:
    """One error with its place."""

    source: str
    line: int
    path: Path
    message: str

    def __str__(self) -> str:
        where = f"{format_path(self.path)}: " if self.path else ""
        return f"{self.source}:{self.line}: {where}{self.message}"


class CodecErrors(ValueError):  # noqa: N818 - it holds several
    """All that is wrong with the text, by line."""

    def __init__(self, problems: Iterable[Located]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, format_path(problem.path))))
        super().__init__("\n".join(map(str, self.problems)))


def parse_documents(text: str, source: str) -> list[Document]:
    """The objects the text declares; empty documents are left out. Raises CodecErrors with all there is to say."""
    documents: list[Document] = []
    problems: list[Located] = []
    try:
        for parsed in parse(text):
            problems += [Located(source, fault.line, fault.path, fault.message) for fault in parsed.faults]
            found = _check(parsed, source)
            if isinstance(found, Document):
                documents.append(found)
            else:
                problems += found
    except BrokenText as broken:
        problems.append(Located(source, broken.line, (), str(broken)))
    if problems:
        raise CodecErrors(problems)
    return documents


def dump_documents(objects: Iterable[Resource]) -> str:
    """Multi-document YAML; apiVersion, kind, metadata, spec, status in this order, texts of several lines as such."""
    return "---\n".join(dump_data(obj.to_data()) for obj in objects)


def dump_data(data: Any) -> str:
    """Plain data as YAML, in the order it has."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _check(parsed: Parsed, source: str) -> Document | list[Located]:
    """The document, or all that is wrong with it; no errors for an empty one."""
    found = _read(parsed, source)
    if isinstance(found, Document):
        return found
    return [Located(source, nearest_line(parsed.lines, p.path, parsed.line), p.path, p.message) for p in found]


def _read(parsed: Parsed, source: str) -> Document | list[Problem]:
    if parsed.data is None:
        return []
    wrong = _shape(parsed.data, parsed.size)
    if wrong:
        return [wrong]
    kind, data = BY_KIND[parsed.data["kind"]], parsed.data
    problems = list(_not_for_people(kind, data))
    try:
        obj = _validate(kind, data)
    except ValidationError as error:
        return problems + list(find_problems(error, kind))
    return problems or Document(obj, data, source, parsed.line, parsed.lines)


def _shape(data: Any, size: int) -> Problem | None:
    """What has to be right before the fields can be looked at."""
    if not isinstance(data, dict):
        return Problem((), f"a document must be a mapping with apiVersion, kind, metadata and spec, not {what_is(data)}")
    if size > MAX_DOCUMENT:
        return Problem(
            (), f"the object is {size / 2**20:.1f} MiB large, aliases unfolded; 1 MiB is allowed: keep large data in files"
        )
    known = [kind.KIND for kind in DECLARABLE]
    kind = data.get("kind")
    if kind is None:
        return Problem(("kind",), f"is missing; there are: {', '.join(known)}")
    if not isinstance(kind, str):
        return Problem(("kind",), f"must be text, not {what_is(kind)}")
    if kind not in known:
        hint = "; events are only read" if kind == "Event" else did_you_mean(kind, known)
        return Problem(("kind",), f'unknown kind "{shorten(kind)}"{hint}')
    return None


def _validate(kind: type[Resource], data: dict[str, Any]) -> Resource:
    """Through JSON, because only there strict types let names of enums pass as text."""
    declared = {name: value for name, value in data.items() if name != "status"}
    return kind.model_validate_json(json.dumps(declared), strict=True, by_alias=True, by_name=False)


def _not_for_people(kind: type[Resource], data: dict[str, Any]) -> Iterator[Problem]:
    if "apiVersion" not in data:
        yield Problem(("apiVersion",), f"is missing; write {API_VERSION}")
    if "status" in data:
        yield Problem(("status",), "status is observed, not declared: remove it")
    metadata = data.get("metadata")
    if not isinstance(metadata, dict):
        return
    for name in WRITTEN_BY_STORE & metadata.keys():
        yield Problem(("metadata", name), "is written by the store, not declared: remove it")
    if not kind.NAMESPACED and metadata.get("namespace") is not None:
        yield Problem(("metadata", "namespace"), f"a {kind.KIND} belongs to the whole cluster and has no namespace: remove it")


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc] # chosen when this runs
    """Writes texts of several lines as blocks, and quotes what our reader, which knows more numbers, would not read as text."""


def _text(dumper: Any, value: str) -> Any:
    style = "|" if "\n" in value.strip("\n") else "'" if not isinstance(resolve(value), str) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
