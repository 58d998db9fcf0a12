"""A small daemon: an agent is on every node, and a node may be small.

What only the start needed goes back: holes in the heap, and the text of libraries that nobody has called since. Both are fetched
again when somebody does; the text from the page cache, without reading a disk.
"""

import asyncio
import ctypes
import gc
import re
from pathlib import Path

_ARENA_MAX, _MMAP_THRESHOLD = -8, -3
"""Of mallopt(3)."""
_DONTNEED = 4
"""Of madvise(2)."""
_TEXT = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ [1-9]\d* +/.*\n((?:[A-Z]\w+:.*\n)+)", re.MULTILINE)
"""In smaps, code that is mapped from a file."""
_UNTOUCHED = re.compile(r"^Anonymous: +0 kB", re.MULTILINE)
"""Nobody wrote into the mapping (a debugger does), so nothing is lost with it."""

FIRST, AGAIN = 20.0, 60.0
"""Seconds after the start, and from then on."""


def keep_small() -> None:
    """At the start: two arenas for all threads, and large buffers go back to the kernel at once."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_ARENA_MAX, 2)
    libc.mallopt(_MMAP_THRESHOLD, 256 << 10)
    gc.enable()  # see bundle.py
    gc.collect()
    libc.malloc_trim(0)  # imports left holes


async def let_go() -> None:
    """Again and again, until cancelled."""
    await asyncio.sleep(FIRST)
    while True:
        shrink()
        await asyncio.sleep(AGAIN)


def shrink() -> None:
    """Takes milliseconds."""
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    for start, end in idle_text(Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)


def idle_text(smaps: str) -> list[tuple[int, int]]:
    """From and to address of each mapping that can be let go."""
    return [(int(text[1], 16), int(text[2], 16)) for text in _TEXT.finditer(smaps) if _UNTOUCHED.search(text[3])]
