"""Cuts files back to the length they had at a checkpoint, and keeps what is cut off. Run as a program, as root or the job's user:

    python3 -ISE rollback.py < {"user": [UID, GID, GROUPS], "keep": DIRECTORY, "files": [[PATH, SIZE], …]}
                             > {"cut": [[PATH, BYTES, KEPT], …]} or {"error": …}

It becomes the user, because the paths are that user's: it must not be possible to have root cut another's file. Standard library
only. Repeating it does no harm: a file that has its length is left alone.
"""

# ruff: noqa: PTH118, PTH119, PTH123
import json
import os
import stat
import sys
from typing import Any

CHUNK = 1 << 20


def cut(path: str, size: int, kept: str) -> int:
    """The bytes that were cut off, now in ``kept``; 0 when there were none. OSError, ValueError when it is shorter or no file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is no file any more")
        if found.st_size < size:
            raise ValueError(f"is shorter than at the checkpoint: {found.st_size} bytes instead of {size}")
        if found.st_size == size:
            return 0
        with open(kept, "wb") as file:
            os.chmod(kept, 0o600)  # noqa: PTH101
            at = size
            while data := os.pread(descriptor, CHUNK, at):
                at += file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
        return at - size
    finally:
        os.close(descriptor)


def become(uid: int, gid: int, groups: list[int]) -> None:
    """For good: real, effective and saved."""
    if (uid, gid) == (os.geteuid(), os.getegid()):
        return
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def roll_back(keep: str, files: list[tuple[str, int]]) -> dict[str, Any]:
    """The answer."""
    done = []
    for number, (path, size) in enumerate(files, 1):
        kept = os.path.join(keep, f"{number}-{os.path.basename(path)[:100]}")
        try:
            length = cut(path, size, kept)
        except (OSError, ValueError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            return {"error": f"{path}: {reason}"}
        if length:
            done.append([path, length, kept])
    return {"cut": done}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    become(*request.pop("user"))
    print(json.dumps(roll_back(**request)))
