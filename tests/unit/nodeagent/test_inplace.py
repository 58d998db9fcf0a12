"""Memory ahead that becomes the image: whatever is named and sent, the images are what a plain copy would have made."""

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent import inplace, stream
from nodeagent.ahead import AHEAD
from nodeagent.checksum import crc32
from nodeagent.frames import PLACE, End, File, FileSum
from nodeagent.stream import Inbox

PAGE = 8
PAGES = 12


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """(file, offset ahead or -1 for data that is sent, bytes), pages at a time; likely to go on where they are."""
    lengths, found = [0, 0], []
    for _ in range(draw(st.integers(0, 16))):
        file, count = draw(st.integers(0, 1)), draw(st.integers(1, 4))
        places = st.one_of(st.just(lengths[file]), st.integers(-1, PAGES - 1), st.just(-1))
        place = draw(places)
        count = count if place < 0 else max(0, min(count, PAGES - place))
        if count:
            found.append((file, place, count))
            lengths[file] += count
    return found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inplace, "_WORTH", 2 * PAGE)
    monkeypatch.setattr(inplace, "_ASIDE", 4 * PAGE)
    monkeypatch.setattr(inplace, "_PIECE", PAGE + 3)


@given(steps())
def test_images_are_what_was_meant(found: list[tuple[int, int, int]]) -> None:
    ahead = bytes(range(PAGE * PAGES))
    wanted = [b"", b""]
    with TemporaryDirectory() as name:
        there = Path(name)
        inbox = Inbox(there, most=1 << 20)
        inbox.take(File(number=9, name=AHEAD))
        inbox.allow(9, len(ahead))
        inbox.keep(9, memoryview(bytearray(ahead)))
        for number in range(2):
            inbox.take(File(number=number, name=f"pages-{number}.img"))
        for turn, (file, place, count) in enumerate(found):
            if place < 0:
                data = bytes([200 + turn]) * count * PAGE
                inbox.allow(file, len(data))
                inbox.keep(file, memoryview(bytearray(data)))
            else:
                data = ahead[place * PAGE : (place + count) * PAGE]
                inbox.copy(file, PLACE.pack(place * PAGE, len(data)))
            wanted[file] += data
        sums = [FileSum(name=AHEAD, length=len(ahead), crc32=crc32(memoryview(bytearray(ahead))))]
        sums += [
            FileSum(name=f"pages-{number}.img", length=len(each), crc32=crc32(memoryview(bytearray(each))))
            for number, each in enumerate(wanted)
        ]
        inbox.take(End(files=sums, last_pid=1, frozen_for=0.0, cpu_seconds=0.0))
        inbox.close()
        assert [(there / f"pages-{number}.img").read_bytes() for number in range(2)] == wanted


def test_what_lies_in_its_place_is_not_copied(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, most=1 << 20)
    inbox.take(File(number=0, name=AHEAD))
    inbox.keep(0, memoryview(bytearray(b"a" * 8 * PAGE)))
    inode = (tmp_path / AHEAD).stat().st_ino
    inbox.take(File(number=1, name="pages-1.img"))
    inbox.copy(1, PLACE.pack(0, 8 * PAGE))
    inbox.close()
    assert (tmp_path / "pages-1.img").stat().st_ino == inode
    assert not (tmp_path / AHEAD).exists()


def test_no_room_after_they_parted_closes_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A descriptor closed twice is by then somebody else's."""
    inbox = Inbox(tmp_path, most=1 << 20)
    inbox.take(File(number=0, name=AHEAD))
    inbox.keep(0, memoryview(bytearray(b"a" * 8 * PAGE)))
    inbox.take(File(number=1, name="pages-1.img"))
    inbox.copy(1, PLACE.pack(0, 2 * PAGE))

    def full(descriptor: int, at: int, data: memoryview) -> None:
        os.fstat(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    for module in (inplace, stream):
        with monkeypatch.context() as patched:
            patched.setattr(module, "write_at", full)
            with pytest.raises(OSError, match="No space left"):
                inbox.keep(1, memoryview(bytearray(b"b" * 5 * PAGE)))
    inbox.close()
