"""Mends images of terminals that criu would not restore.

A shell's loop of short commands leaves its terminal, for a moment after each, with a foreground process group that no process is
in any more. criu writes that group down, and fails to give the terminal to it on the next node. The shell takes the terminal back
as soon as it runs; so it may as well have it already.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from nodeagent.errors import EngineFailed

_MAGIC = 8  # bytes at the beginning of an image
_SIZE = struct.Struct("<I")
_PSTREE_GROUP = 3  # field of criu's pstree_entry
_TTY_SESSION, _TTY_GROUP = 6, 7  # fields of tty_info_entry
_VARINT, _EIGHT_BYTES, _COUNTED, _FOUR_BYTES = 0, 1, 2, 5

Field = tuple[int, bytes, int]
"""Number, the whole field as it stands, its value if it is a number."""


def mend_terminals(images: Path) -> int:
    """Gives terminals whose foreground group is gone to the leader of their session; how many. EngineFailed for bad images."""
    path, tree = images / "tty-info.img", images / "pstree.img"
    if not path.exists():
        return 0
    try:
        groups = {value for fields in _entries(tree.read_bytes()) for number, _, value in fields if number == _PSTREE_GROUP}
        raw = path.read_bytes()
        mended, count = [raw[:_MAGIC]], 0
        for fields in _entries(raw):
            entry, changed = _mend(fields, groups)
            mended += [_SIZE.pack(len(entry)), entry]
            count += changed
    except (OSError, IndexError, KeyError, struct.error) as error:
        raise EngineFailed(f"{path.name}: bad images: {error}") from error
    if count:
        path.write_bytes(b"".join(mended))
    return count


def _mend(fields: list[Field], groups: set[int]) -> tuple[bytes, bool]:
    values = {number: value for number, _, value in fields}
    session, group = values.get(_TTY_SESSION, 0), values.get(_TTY_GROUP, 0)
    if group in groups or not group or session not in groups:
        return b"".join(raw for _, raw, _ in fields), False
    return b"".join(_varint(_TTY_GROUP << 3) + _varint(session) if n == _TTY_GROUP else raw for n, raw, _ in fields), True


def _entries(image: bytes) -> Iterator[list[Field]]:
    at = _MAGIC
    while at < len(image):
        (size,) = _SIZE.unpack_from(image, at)
        at += _SIZE.size
        yield list(_fields(image[at : at + size]))
        at += size


def _fields(entry: bytes) -> Iterator[Field]:
    """The fields of one protobuf message."""
    at = 0
    while at < len(entry):
        start = at
        key, at = _read_varint(entry, at)
        value = 0
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(entry, at)
        elif kind == _COUNTED:
            length, at = _read_varint(entry, at)
            at += length
        else:
            at += {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}[kind]
        yield key >> 3, entry[start:at], value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
