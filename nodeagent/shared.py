"""What a job wrote on the shared file system has to be there before the job goes on elsewhere.

A network file system keeps written pages in the memory of the node where they were written until the file is closed, or half a
minute. A job that has moved would read the old content, and would append where the file ended for the server; what the source
writes back later would overwrite that. On a file system of this machine nothing is done: all see the same pages.
"""

import ctypes
import os
from pathlib import Path

from nodeagent.facts import mount_of

OF_THIS_MACHINE = frozenset({"ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "f2fs", "ext3", "ext2", ""})
"""Everything else is taken for one whose other users may not see what lies in our memory."""

_libc = ctypes.CDLL(None, use_errno=True)


def write_back(shared: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> bool:
    """Returns when the server has all that was written here; False when that needs nothing. Blocks. Raises OSError.

    It is for all that this node writes there, as the kernel has no call for one job's files, mapped ones included.
    """
    if mount_of(shared, mountinfo.read_text(encoding="utf-8")).type in OF_THIS_MACHINE:
        return False
    descriptor = os.open(shared, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, f"{os.strerror(number)}: what was written there is not all on its server", str(shared))
    finally:
        os.close(descriptor)
    return True
