"""What a job has open for writing, by criu's image and by the file system."""

import os
import stat
import struct
from pathlib import Path

import pytest

from nodeagent.errors import CheckpointDamaged
from nodeagent.openfiles import FILES, LENGTHS, MAGICS, read_lengths, write_lengths, written_files

REG, DIR = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def regular(path: str, flags: int, mode: int = REG) -> bytes:
    """As criu 4.2 writes it, with what we do not look at."""
    inner = field(1, 7) + field(2, flags) + field(3, 300) + field(5, b"\x08\x00") + field(6, path.encode()) + field(10, mode)
    message = field(1, 1) + field(2, 7) + field(3, inner)
    return struct.pack("<I", len(message)) + message


def image(*messages: bytes) -> bytes:
    return MAGICS + b"".join(messages)


PIPE = struct.pack("<I", 8) + field(1, 3) + field(2, 9) + field(15, b"ab")


def test_only_what_is_written_on_the_shared_file_system() -> None:
    raw = image(
        regular("/shared/appended", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC),
        PIPE,
        regular("/shared/both", os.O_RDWR),
        regular("/shared/read", os.O_RDONLY),
        regular("/tmp/own", os.O_RDWR),
        regular("/var/log/local", os.O_WRONLY),
        regular("/shared", os.O_RDONLY, DIR),
        regular("/shared/both", os.O_RDONLY),
    )
    assert written_files(raw) == {"/shared/appended", "/shared/both"}


@pytest.mark.parametrize("raw", [b"", b"garbage garbage", image(PIPE)[:-1], image(b"\xff" * 9)])
def test_what_is_no_image(raw: bytes) -> None:
    with pytest.raises(CheckpointDamaged):
        written_files(raw)


def test_lengths_there_and_back(tmp_path: Path) -> None:
    images, shared = tmp_path / "images", tmp_path / "elsewhere"
    for directory in (images, shared):
        directory.mkdir()
    assert read_lengths(images, shared) == []
    write_lengths(images, shared)
    assert not (images / LENGTHS).exists()
    (shared / "a").write_text("12345")
    (shared / "link").symlink_to("a")
    names = ("/shared/a", "/shared/link", "/shared/deleted")
    (images / FILES).write_bytes(image(*(regular(name, os.O_WRONLY) for name in names)))
    write_lengths(images, shared)
    assert read_lengths(images, shared) == [(str(shared / "a"), 5)]
