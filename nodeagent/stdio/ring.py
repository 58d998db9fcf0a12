"""The last bytes of a stream, by their offsets."""

from __future__ import annotations


class Ring:
    """Keeps the last ``capacity`` bytes; ``start`` and ``end`` are offsets since the stream's beginning."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept = bytearray()
        self.end = 0

    @property
    def start(self) -> int:
        """Offset of the oldest byte that is kept."""
        return self.end - len(self._kept)

    def append(self, data: bytes) -> None:
        """Adds at the end; drops the oldest beyond the capacity."""
        self._kept += data
        self.end += len(data)
        if len(self._kept) > self._capacity:
            del self._kept[: len(self._kept) - self._capacity]

    def read(self, offset: int, most: int) -> bytes:
        """Up to ``most`` bytes from ``offset`` on, which must be kept."""
        at = offset - self.start
        return bytes(self._kept[at : at + most])
