"""Finds in memory that went ahead what a dump says, so that it need not be sent again.

Both have much the same pages in much the same order; in between pages were written, came and went. So the pages that are expected
next are compared, all bytes of them; where they differ, one page is passed over, and a page that is known (every 16th is, by its
checksum) sets the expectation right when pages came or went. What is said to be alike was compared: a checksum only says where to
look.
"""

import ctypes
from collections.abc import Iterator
from typing import NamedTuple

from nodeagent.ahead import PAGE
from nodeagent.checksum import crc32

_ANCHOR = 16  # pages
_PATIENCE = 64  # pages that are unlike, one after the other, before the rest of a piece is given up
_TRIAL = 8192  # pages after which it is plain whether comparing is worth it
_WORTH = 0.1

_memcmp = ctypes.CDLL(None).memcmp  # lets other threads run, as all calls by ctypes do
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class Part(NamedTuple):
    """Bytes ``begin`` to ``end`` of a piece."""

    begin: int
    end: int
    known: int | None
    """Where in the memory ahead the same bytes are; None when that is not known."""


class Likeness:
    """Compares pieces of a dump with ``ahead``. Both are buffers that may be written to (so that C may look at them)."""

    def __init__(self, ahead: memoryview) -> None:
        self._ahead = ahead
        self._address = _address(ahead)
        self._pages = len(ahead) // PAGE
        self._next = 0
        self._seen = self._found = 0
        self._anchors: dict[int, int] = {}
        for page in range(0, self._pages, _ANCHOR):
            self._anchors.setdefault(crc32(ahead[page * PAGE : (page + 1) * PAGE], 0), page)

    def close(self) -> None:
        """Nothing is compared any more."""
        self._ahead.release()

    def parts(self, data: memoryview) -> Iterator[Part]:
        """The whole of ``data`` in order; bytes after the last whole page are never known."""
        pages = len(data) // PAGE
        at = unlike = 0
        while at < pages and unlike < _PATIENCE and self._worth:
            address = _address(data)
            same = self._same(address + at * PAGE, pages - at)
            if not same and self._find(data[at * PAGE : (at + 1) * PAGE]):
                same = self._same(address + at * PAGE, pages - at)
            if same:
                if unlike:
                    yield Part((at - unlike) * PAGE, at * PAGE, None)
                yield Part(at * PAGE, (at + same) * PAGE, self._next * PAGE)
            at, unlike = at + (same or 1), 0 if same else unlike + 1
            self._count(same or 1, same)
        self._count(pages - at, 0)
        if at - unlike < pages or len(data) % PAGE:
            yield Part((at - unlike) * PAGE, len(data), None)

    @property
    def _worth(self) -> bool:
        return self._seen < _TRIAL or self._found >= _WORTH * self._seen

    def _count(self, passed: int, found: int) -> None:
        self._next += passed
        self._seen += passed
        self._found += found

    def _same(self, address: int, pages: int) -> int:
        """How many pages from there on are as expected."""
        pages = min(pages, self._pages - self._next)
        if pages <= 0:
            return 0
        expected = self._address + self._next * PAGE
        if not _memcmp(address, expected, pages * PAGE):
            return pages
        alike = 0  # this many are known to be alike, and ``pages`` are not
        while pages - alike > 1:
            middle = (alike + pages) // 2
            if _memcmp(address + alike * PAGE, expected + alike * PAGE, (middle - alike) * PAGE):
                pages = middle
            else:
                alike = middle
        return alike

    def _find(self, page: memoryview) -> bool:
        """Sets the expectation to where this page is known to have been."""
        anchor = self._anchors.get(crc32(page, 0))
        if anchor is None or anchor == self._next:
            return False
        self._next = anchor
        return True


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) if len(view) else 0
