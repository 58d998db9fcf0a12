"""One writer at a time for a thing on disk, across processes.

flock, because the kernel lets go of it when the holder dies, however it dies. A lock file is removed by the last holder
when asked to, so that taking a lab down leaves nothing behind; that is why a lock counts only when the file that was
locked is still the one with this name.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clip.errors import Busy

_POLL_SECONDS = 0.1


@contextmanager
def locked(path: Path, *, timeout: float, what: str, remove: bool = False) -> Iterator[int]:
    """Holds ``path`` exclusively and yields its file descriptor; Busy after ``timeout`` seconds.

    ``what`` names the thing in the error. With ``remove`` the lock file is gone afterwards.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    while (descriptor := _try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise Busy(f"{what} is being changed by another process (lock {path}); wait for it to end, then try again")
        time.sleep(_POLL_SECONDS)
    try:
        yield descriptor
    finally:
        if remove:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass  # held by another process, or removed by its last holder between open and flock
    os.close(descriptor)
    return None
