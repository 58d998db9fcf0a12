"""Archives as the kernel unpacks them for its first root: cpio, "newc" form. Pure: the same entries give the same bytes."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"
_MAGIC = "070701"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file; ``mode`` with its type, ``data`` a link's target, ``device`` major and minor of a device."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """A directory of root's."""
    return Entry(name, stat.S_IFDIR | 0o755)


def regular(name: str, data: bytes, *, executable: bool = False) -> Entry:
    """A file of root's."""
    return Entry(name, stat.S_IFREG | (0o755 if executable else 0o644), data)


def link(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def terminal(name: str, major: int, minor: int) -> Entry:
    """A character device, for root alone."""
    return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive. Directories have to come before what is in them; times are 0 and all belongs to root."""
    parts = [_record(number, entry) for number, entry in enumerate(entries, start=1)]
    return b"".join([*parts, _record(0, Entry(_TRAILER, 0))])


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 0 if entry.name == _TRAILER else 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = (_MAGIC + "".join(f"{field:08x}" for field in fields)).encode()
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
