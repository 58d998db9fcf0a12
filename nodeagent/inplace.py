"""Memory that came ahead of a job, at the destination, and the image that it becomes.

Most of a job's pages lie in the dump exactly where they lie in what came ahead. Copying them while the job stands frozen would cost
as much as restoring it, so the file that came ahead is taken over as the image: what is alike stays where it is, only what differs
is written. What is overwritten may still be wanted by pages that moved (``read``), so it is kept aside; when that grows beyond
``_ASIDE`` the two part again, and the image goes on in a file of its own.
"""

import os
from bisect import bisect_right
from collections.abc import Generator
from pathlib import Path

from nodeagent.ahead import map_whole

_WORTH = 1 << 18
"""Bytes in their place for which the file is taken over."""
_ASIDE = 32 << 20
"""Bytes kept aside at most."""
_PIECE = 1 << 20
"""Bytes copied at once."""


class MemoryAhead:
    """The file ``path`` of memory that came ahead. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._view = map_whole(path)
        self._image: Path | None = None
        self._descriptor = -1
        self._parted = False
        self._begins: list[int] = []
        self._aside: list[bytes] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._view)

    def fits(self, length: int, offset: int, count: int) -> bool:
        """Whether an image of ``length`` bytes, to go on with the ``count`` bytes at ``offset``, should take this file over."""
        free = not self._parted and self._image is None
        return free and length == offset <= _ASIDE and count >= _WORTH

    def become(self, image: Path, descriptor: int, length: int) -> int:
        """Takes the place of ``image``, open under ``descriptor``, whose ``length`` bytes are written in here. Returns the new
        descriptor."""
        own = self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            with image.open("rb", buffering=0) as old:
                for begin in range(0, length, _PIECE):
                    self.overwrite(begin, memoryview(os.pread(old.fileno(), min(_PIECE, length - begin), begin)))
            self._path.rename(image)
        except OSError:
            self._descriptor = -1
            os.close(own)
            raise
        self._image = image
        os.close(descriptor)
        return own

    def is_image(self, descriptor: int) -> bool:
        """Whether the image open under ``descriptor`` is this file."""
        return descriptor == self._descriptor

    def go_on(self, at: int, count: int) -> int:
        """Before ``count`` bytes are written there: the image's descriptor; that of a file of its own when too much would have to
        be kept aside."""
        if self._size + min(count, max(0, len(self) - at)) > _ASIDE:
            return self._part(at)
        return self._descriptor

    def overwrite(self, at: int, data: memoryview) -> None:
        """In the image that this file is. Images are written from beginning to end, so what is kept aside is in order."""
        with self._view[at : at + len(data)] as before:
            if len(before):
                self._begins.append(at)
                self._aside.append(bytes(before))
                self._size += len(before)
        write_at(self._descriptor, at, data)

    def read(self, offset: int, length: int) -> Generator[memoryview]:
        """What came ahead there, in pieces, also where it was overwritten; each is to be used before the next is asked for."""
        end = offset + length
        while offset < end:
            index = bisect_right(self._begins, offset) - 1
            begin, kept = (self._begins[index], self._aside[index]) if index >= 0 else (0, b"")
            if offset < begin + len(kept):
                piece = memoryview(kept)[offset - begin : end - begin]
            else:
                following = self._begins[index + 1] if index + 1 < len(self._begins) else end
                piece = self._view[offset : min(end, following, offset + _PIECE)]
            offset += len(piece)
            with piece:
                yield piece

    def close(self, length: int | None) -> None:
        """No more is wanted of it, and nothing of it stays mapped; the image that it is, if it is one, has ``length`` bytes."""
        if length is not None and length < len(self):
            os.ftruncate(self._descriptor, length)
        self._descriptor = -1
        self._view.release()

    def _part(self, length: int) -> int:
        """From now on the image, ``length`` bytes by now, is a file of its own, and this one is again what came ahead.

        Returns the image's descriptor."""
        assert self._image is not None
        self._image.rename(self._path)
        own = os.open(self._image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with self._view[:length] as begun:
                write_at(own, 0, begun)
        except OSError:
            os.close(own)
            raise
        for begin, kept in zip(self._begins, self._aside, strict=True):
            self._view[begin : begin + len(kept)] = kept
        os.close(self._descriptor)
        self._descriptor, self._image, self._parted = -1, None, True
        self._begins, self._aside, self._size = [], [], 0
        return own


def write_at(descriptor: int, at: int, data: memoryview) -> None:
    """All of it."""
    while data:
        count = os.pwrite(descriptor, data, at)
        data, at = data[count:], at + count
