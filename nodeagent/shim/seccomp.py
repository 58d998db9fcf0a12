"""Keeps a job from io_uring, which criu cannot move: programs find a kernel without it, and do with epoll or threads.

A filter on system calls that answers ENOSYS to io_uring_setup. It is inherited, stays for good, and criu restores it.
"""

from __future__ import annotations  # so that typing need not be imported either

import ctypes
import errno
import struct

from nodeagent.shim.kernel import libc_call

PR_SET_SECCOMP, MODE_FILTER = 22, 2
IO_URING_SETUP = 425
"""The same on all architectures that are not older than it."""
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERROR = 0x7FFF0000, 0x00050000
STATEMENT = struct.Struct("HBBI")
"""struct sock_filter: code, jump if true, jump if false, constant."""
PROGRAM = b"".join(
    STATEMENT.pack(*statement)
    for statement in (
        (LOAD, 0, 0, 0),  # the number of the call
        (JUMP_IF_EQUAL, 0, 1, IO_URING_SETUP),
        (RETURN, 0, 0, ERROR | errno.ENOSYS),
        (RETURN, 0, 0, ALLOW),
    )
)


class Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("statements", ctypes.c_char_p))


def refuse_io_uring() -> None:
    """For the calling process and all that come of it. Needs CAP_SYS_ADMIN; OSError."""
    program = Filter(len(PROGRAM) // STATEMENT.size, PROGRAM)
    libc_call("prctl", PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0)
