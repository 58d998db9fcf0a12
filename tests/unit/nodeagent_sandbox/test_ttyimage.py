"""Images of terminals whose foreground group is gone."""

import struct
from pathlib import Path

import pytest

from nodeagent.errors import EngineFailed
from nodeagent.ttyimage import mend_terminals

MAGIC = b"\x19\x43\x56\x54abcd"


def message(**fields: int) -> bytes:
    """A protobuf message with small numbers; the names are f<number>."""
    return b"".join(bytes([int(name[1:]) << 3, value]) for name, value in fields.items())


def image(*entries: bytes) -> bytes:
    return MAGIC + b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)


def write(directory: Path, terminals: list[bytes], *groups: int) -> Path:
    (directory / "pstree.img").write_bytes(image(*(message(f1=group, f2=0, f3=group, f4=2) for group in groups)))
    (directory / "tty-info.img").write_bytes(image(*terminals))
    return directory / "tty-info.img"


def test_a_foreground_group_that_is_gone_becomes_the_sessions(tmp_path: Path) -> None:
    tail = bytes([9 << 3 | 2, 3]) + b"abc" + bytes([10 << 3 | 1]) + bytes(8) + bytes([11 << 3 | 5]) + bytes(4)
    path = write(tmp_path, [message(f1=1, f6=2, f7=99, f8=7) + tail], 2, 5)
    assert mend_terminals(tmp_path) == 1
    assert path.read_bytes() == image(message(f1=1, f6=2, f7=2, f8=7) + tail)


@pytest.mark.parametrize(
    "terminal", [message(f6=2, f7=5), message(f6=0, f7=0), message(f6=8, f7=9)], ids=["lives", "none", "no session"]
)
def test_others_stay_as_they_are(tmp_path: Path, terminal: bytes) -> None:
    path = write(tmp_path, [terminal], 2, 5)
    assert mend_terminals(tmp_path) == 0
    assert path.read_bytes() == image(terminal)


def test_numbers_of_several_bytes(tmp_path: Path) -> None:
    big = b"\xac\x02"  # 300
    (tmp_path / "pstree.img").write_bytes(image(bytes([3 << 3]) + big))
    (tmp_path / "tty-info.img").write_bytes(image(bytes([6 << 3]) + big + message(f7=9)))
    assert mend_terminals(tmp_path) == 1
    assert (tmp_path / "tty-info.img").read_bytes() == image(bytes([6 << 3]) + big + bytes([7 << 3]) + big)


def test_a_job_without_terminals(tmp_path: Path) -> None:
    assert mend_terminals(tmp_path) == 0


def test_broken_images_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, [message(f7=9)], 2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineFailed, match="tty-info"):
        mend_terminals(tmp_path)
