"""Copying the memory of living processes: this very one."""

import ctypes
import mmap
import os
from array import array
from pathlib import Path

import pytest

from nodeagent.ahead import PAGE, Reading, private_areas, runs

MAPS = """\
00400000-00500000 r--p 00000000 fe:00 12 /usr/bin/prog ram
7f0000000000-7f0000001000 rw-p 00000000 00:00 0 
7f0000002000-7f0000003000 rw-s 00000000 00:01 99 /dev/zero (deleted)
7ffc00000000-7ffc00001000 r--p 00000000 00:00 0 [vvar]
7ffc00002000-7ffc00003000 rw-p 00000000 00:00 0 [stack]
"""  # noqa: W291 - as the kernel writes it


def test_private_areas() -> None:
    wanted = [(0x400000, 0x500000), (0x7F0000000000, 0x7F0000001000), (0x7FFC00002000, 0x7FFC00003000)]
    assert list(private_areas(MAPS)) == wanted


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([], []),
        ([4, 4, 0, 2, 0], [(0, 2), (3, 4)]),
        ([5, 4, 6, 4], [(1, 2), (3, 4)]),
        ([0, 4], [(1, 2)]),
    ],
)
def test_runs(kinds: list[int], expected: list[tuple[int, int]]) -> None:
    assert list(runs(array("Q", (kind << 61 | 77 for kind in kinds)))) == expected


def test_memory_of_a_process_is_copied(tmp_path: Path) -> None:
    with mmap.mmap(-1, 64 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        mark = os.urandom(PAGE)
        for page in range(0, 64, 2):
            area[page * PAGE : (page + 1) * PAGE] = mark[:-2] + page.to_bytes(2, "big")
        assert ctypes.addressof(ctypes.c_char.from_buffer(area)) % PAGE == 0
        Reading([os.getpid()], tmp_path / "ahead", 1 << 40).work()
        content = (tmp_path / "ahead").read_bytes()
        for page in range(0, 64, 2):
            assert area[page * PAGE : (page + 1) * PAGE] in content
        assert len(content) % PAGE == 0


def test_no_more_than_allowed(tmp_path: Path) -> None:
    Reading([os.getpid()], tmp_path / "ahead", 3 * PAGE).work()
    assert (tmp_path / "ahead").stat().st_size == 3 * PAGE


def test_a_process_that_has_ended_is_passed_over(tmp_path: Path) -> None:
    Reading([1 << 22, os.getpid()], tmp_path / "ahead", PAGE).work()
    assert (tmp_path / "ahead").stat().st_size == PAGE


def test_stopped(tmp_path: Path) -> None:
    reading = Reading([os.getpid()], tmp_path / "ahead", 1 << 40)
    reading.stop()
    reading.work()
    assert (tmp_path / "ahead").stat().st_size == 0
