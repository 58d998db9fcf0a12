"""Reading what -f names: a file, a directory (all *.yaml and *.yml below it), or "-" for standard input."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from crds.codec import CodecErrors, Located, parse_documents
from crds.document import Document
from mxctl.core.failures import Failure

STDIN = "-"


def read_documents(names: Sequence[str]) -> list[Document]:
    """All documents of all sources. Raises CodecErrors with everything that is wrong with any of them, Failure."""
    documents: list[Document] = []
    problems: list[Located] = []
    for source, raw in _sources(names):
        try:
            documents += parse_documents(_decode(raw, source), source)
        except CodecErrors as errors:
            problems += errors.problems
    if problems:
        raise CodecErrors(problems)
    if not documents:
        raise Failure(f"{', '.join(names)}: no objects in there")
    return documents


def read_text(names: Sequence[str]) -> list[tuple[str, str]]:
    """(source, text) of all sources. Raises CodecErrors, Failure."""
    return [(source, _decode(raw, source)) for source, raw in _sources(names)]


def _decode(raw: bytes, source: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise CodecErrors([Located(source, line, (), "broken YAML: not UTF-8 text")]) from error


def _sources(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        if name == STDIN:
            yield STDIN, sys.stdin.buffer.read()
            continue
        for path in _files(Path(name)):
            try:
                yield str(path), path.read_bytes()
            except OSError as error:
                raise Failure(f"{path}: cannot be read: {error.strerror}") from error


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(inner for inner in path.rglob("*") if inner.suffix in (".yaml", ".yml") and inner.is_file())
    if not found:
        raise Failure(f"{path}: no *.yaml or *.yml in this directory")
    return found
