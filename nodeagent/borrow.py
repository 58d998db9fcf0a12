"""The open files of other processes, as our own for a moment."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

PIDFD_GETFD = 438


@contextmanager
def borrowed(pid: int, descriptor: int) -> Iterator[int]:
    """A descriptor of ours for what that of the process is open on. OSError when either is gone."""
    process = os.pidfd_open(pid)
    try:
        number = int(ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, descriptor, 0))
        error = ctypes.get_errno()
    finally:
        os.close(process)
    if number < 0:
        raise OSError(error, f"descriptor {descriptor} of process {pid}: {os.strerror(error)}")
    try:
        yield number
    finally:
        os.close(number)
