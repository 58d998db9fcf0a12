"""What is in a layer: a digest over its whole tree, its size, the Debian packages. Measured once, and written beside the tree.

Dates do not count: a tree that was built again from the same packages has the same digest. Extended attributes do (a program's
capabilities are there).
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

NOTE = "content.json"
_STATUS = "var/lib/dpkg/status"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """``digest`` has 64 hexadecimal digits; ``size`` in bytes; ``packages`` name -> version."""

    digest: str
    size: int
    packages: dict[str, str] = field(default_factory=dict)


def measured(layer: Path) -> Content:
    """The content of the layer in this directory. Takes a second or two the first time."""
    note = layer / NOTE
    try:
        return Content(**json.loads(note.read_text(encoding="utf-8")))
    except FileNotFoundError:
        content = measure(layer / "root")
    fresh = note.with_name(f".{NOTE}-{os.getpid()}")
    fresh.write_text(json.dumps(asdict(content)), encoding="utf-8")
    fresh.rename(note)
    return content


def measure(root: Path) -> Content:
    """Reads the whole tree."""
    total, size, seen = hashlib.sha256(), 0, set[tuple[int, int]]()
    for path in (root, *_walk(root)):
        status = path.lstat()
        words = [path.relative_to(root).as_posix(), oct(status.st_mode), str(status.st_uid), str(status.st_gid)]
        if stat.S_ISLNK(status.st_mode):
            words.append(str(path.readlink()))
        elif stat.S_ISREG(status.st_mode):
            words.append(_hash(path))
            if (status.st_dev, status.st_ino) not in seen:  # a hard link's bytes are there once
                size += status.st_size
                seen.add((status.st_dev, status.st_ino))
        elif not stat.S_ISDIR(status.st_mode):
            words.append(str(status.st_rdev))
        words += [f"{name}={os.getxattr(path, name, follow_symlinks=False).hex()}" for name in _attributes(path)]
        total.update("\0".join(words).encode("utf-8", "surrogateescape") + b"\n")
    status_file = root / _STATUS
    text = status_file.read_text(encoding="utf-8") if status_file.exists() else ""
    return Content(total.hexdigest(), size, packages(text))


def packages(status: str) -> dict[str, str]:
    """Installed packages and their versions, from the text of dpkg's status."""
    found = {}
    for entry in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields["Version"]
    return dict(sorted(found.items()))


def _walk(directory: Path) -> Iterator[Path]:
    """All below, sorted, not through links."""
    for path in sorted(directory.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _attributes(path: Path) -> list[str]:
    """Those that belong to the tree; an overlay's own marks and the building machine's labels do not."""
    return sorted(n for n in os.listxattr(path, follow_symlinks=False) if not n.startswith(("trusted.", "security.selinux")))


def _hash(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(_CHUNK):
            total.update(part)
    return total.hexdigest()
