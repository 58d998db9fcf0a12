"""Which files a dumped job has open for writing, and how long they are: what it writes after a checkpoint it will write again.

criu's files.img names them, but tells the length only of those that are not appended to; so the lengths are looked up while the job
stands still. The image is a sequence of protocol buffers (criu's images/fdinfo.proto and regfile.proto) of which we need three
fields, so the few lines of wire format are here: criu's own reader is not packaged for pip.
"""

import json
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from nodeagent.errors import CheckpointDamaged

FILES = "files.img"
LENGTHS = "mx-lengths.json"
"""Lies among the images: [path, bytes] of each file."""
SHARED = "/shared/"
"""Elsewhere are the files of one machine, and what is restored as a whole."""
MAGICS = struct.pack("<II", 0x54564319, 0x56303138)
"""Of an image, and of files.img."""
REGULAR = 3
"""Field of file_entry that holds a reg_file_entry."""
FLAGS, NAME, MODE = 2, 6, 10
"""Fields of reg_file_entry."""

Value = int | bytes


def write_lengths(images: Path, shared: Path) -> None:
    """Puts the lengths among the images; ``shared`` is the shared file system here. While the job stands still.

    Nothing when there is no files.img. Raises CheckpointDamaged when it cannot be understood; OSError.
    """
    if not (images / FILES).exists():
        return
    found = []
    for path in sorted(written_files((images / FILES).read_bytes())):
        try:
            here = os.lstat(shared / path.removeprefix(SHARED))
        except FileNotFoundError:
            continue  # it was deleted while open: criu keeps all of it
        if stat.S_ISREG(here.st_mode):
            found.append((path, here.st_size))
    (images / LENGTHS).write_text(json.dumps(found))


def read_lengths(images: Path, shared: Path) -> list[tuple[str, int]]:
    """Paths as they are here, and the lengths; none when none were kept."""
    if not (images / LENGTHS).exists():
        return []
    return [(str(shared / path.removeprefix(SHARED)), size) for path, size in json.loads((images / LENGTHS).read_text())]


def written_files(raw: bytes) -> set[str]:
    """Regular files below /shared that are open for writing, of a files.img. Raises CheckpointDamaged."""
    if not raw.startswith(MAGICS):
        raise CheckpointDamaged(f"{FILES}: not an image of this version of criu")
    found = set()
    try:
        for message in _messages(raw[len(MAGICS) :]):
            inner = dict(_fields(message)).get(REGULAR)
            path = _written(dict(_fields(inner))) if isinstance(inner, bytes) else None
            if path is not None:
                found.add(path)
    except (IndexError, struct.error) as error:
        raise CheckpointDamaged(f"{FILES}: ends in the middle") from error
    return found


def _written(fields: dict[int, Value]) -> str | None:
    name, mode, flags = (fields.get(number, 0) for number in (NAME, MODE, FLAGS))
    if not isinstance(name, bytes) or not isinstance(mode, int) or not isinstance(flags, int):
        return None
    path = os.fsdecode(name)
    writes = stat.S_ISREG(mode) and flags & os.O_ACCMODE != os.O_RDONLY
    return path if writes and path.startswith(SHARED) else None


def _messages(raw: bytes) -> Iterator[bytes]:
    """Each is preceded by its length."""
    at = 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4 + length
        if at > len(raw):
            raise IndexError(at)
        yield raw[at - length : at]


def _fields(raw: bytes) -> Iterator[tuple[int, Value]]:
    """(number, value) of one message."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value: Value
            value, at = _varint(raw, at)
        elif kind == 2:
            length, at = _varint(raw, at)
            value, at = raw[at : at + length], at + length
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            value, at = raw[at : at + width], at + width
        else:
            raise IndexError(kind)
        yield number, value


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not byte & 0x80:
            return value, at
