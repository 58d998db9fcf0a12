"""A job's memory as it is while the job runs, copied so that it can go ahead of the freeze.

Nothing relies on it: what it says of a page that is written later is simply wrong, and what cannot be read is left out. After the
freeze the dump is compared with it byte by byte (likeness.py), and only what differs has to cross the wire then. So every kernel
will do; where written pages are tracked, pre-copy does better, for it need not look at the others again.
"""

import logging
import mmap
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)

AHEAD = "pages-ahead.img"
"""Among the images; criu knows no such file."""
PAGE = 4096
_ENTRY = 8  # bytes of /proc/PID/pagemap for a page
_LOOK = 1 << 16  # pages looked up at once
_READ = 1 << 20  # bytes read at once
_OURS = frozenset((4, 2))  # bits 63..61 of an entry: present, swapped, or of a file or shared: neither file nor both
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)
_NOT_DUMPED = ("[vsyscall]", "[vvar]", "[vvar_vclock]", "[vdso]")


class Reading:
    """Copies the private memory of processes to a file, in the order in which criu dumps them."""

    def __init__(self, pids: Iterable[int], file: Path, most: int, proc: Path = Path("/proc")) -> None:
        self._pids = list(pids)
        self._file = file
        self._left = most
        self._proc = proc
        self._stopped = False
        self._buffer = memoryview(bytearray(_READ))

    def stop(self) -> None:
        """Makes ``work`` end soon."""
        self._stopped = True

    def work(self) -> None:
        """Blocks. Ends early when ``most`` bytes are there, or no more can be written. Raises OSError when nothing can be."""
        with self._file.open("wb", buffering=0) as out:
            for pid in self._pids:
                try:
                    self._process(pid, out.fileno())
                except (OSError, ValueError) as error:  # it ended, or there is no more room
                    log.info("memory of process %d does not go ahead: %s", pid, error)

    def _process(self, pid: int, out: int) -> None:
        directory = self._proc / str(pid)
        areas = list(private_areas((directory / "maps").read_text(errors="replace")))
        with (directory / "mem").open("rb", buffering=0) as memory, (directory / "pagemap").open("rb", buffering=0) as pagemap:
            for begin, end in areas:
                for first, last in _present(pagemap.fileno(), begin, end):
                    self._copy(memory.fileno(), first, last, out)

    def _copy(self, memory: int, begin: int, end: int, out: int) -> None:
        while begin < end and self._left > 0 and not self._stopped:
            count = os.preadv(memory, [self._buffer[: min(_READ, end - begin, self._left)]], begin)
            if count <= 0:
                return
            piece = self._buffer[:count]
            while piece:
                piece = piece[os.write(out, piece) :]
            begin += count
            self._left -= count


def private_areas(maps: str) -> Iterator[tuple[int, int]]:
    """Addresses (from, to) of the private mappings in the text of /proc/PID/maps. ValueError for what is no such text."""
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if fields[1][3:4] == "p" and fields[-1] not in _NOT_DUMPED:
            begin, _, end = fields[0].partition("-")
            yield int(begin, 16), int(end, 16)


def _present(pagemap: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Addresses (from, to) of what the mapping has in memory of its own."""
    for at in range(begin, end, _LOOK * PAGE):
        count = min(_LOOK, (end - at) // PAGE)
        entries = array("Q", os.pread(pagemap, count * _ENTRY, at // PAGE * _ENTRY))
        yield from ((at + first * PAGE, at + last * PAGE) for first, last in runs(entries))


def runs(entries: "array[int]") -> Iterator[tuple[int, int]]:
    """Stretches (from, to) of pages that are the process's own."""
    first = -1
    for number, entry in enumerate(entries):
        ours = entry >> 61 in _OURS
        if ours and first < 0:
            first = number
        elif not ours and first >= 0:
            yield first, number
            first = -1
    if first >= 0:
        yield first, len(entries)


def map_whole(file: Path) -> memoryview:
    """A file of memory; empty when it is. To be looked at by C it has to be writable. Raises OSError."""
    if not file.stat().st_size:
        return memoryview(bytearray())
    with file.open("r+b") as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_SHARED | _POPULATE))
