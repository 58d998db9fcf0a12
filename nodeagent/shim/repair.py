"""Puts TCP connections right after a dump whose job goes on where it was.

criu dumps a connection in the kernel's repair mode, in which nothing is sent and nothing can be read. When it leaves the job
stopped it leaves its connections so, too: it believes that this copy is over. A program that went on like that would get EPERM.
"""

# ruff: noqa: PTH115, PTH208
# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import contextlib
import ctypes
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PIDFD_GETFD = 438
"""The same number on all architectures; libc has no function for it everywhere."""
TCP_REPAIR = 19
OFF, ON = 0, 1


def end_repair(pids: Iterable[int]) -> int:
    """Of all connections of these processes; how many there were. Says by a probe to the other ends that they go on."""
    ended = 0
    seen: set[str] = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            ended += sum(_end(sock) for sock in _sockets(pid, seen))
    return ended


def _sockets(pid: int, seen: set[str]) -> Iterator[socket.socket]:
    """Each of the process's sockets that is not in ``seen`` yet, for as long as the caller looks at it."""
    pidfd = os.pidfd_open(pid)
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
            if not name.startswith("socket:") or name in seen:
                continue
            seen.add(name)
            copy = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, int(fd), 0)
            if copy < 0:
                raise OSError(ctypes.get_errno(), f"socket {fd} of process {pid}: {os.strerror(ctypes.get_errno())}")
            with socket.socket(fileno=copy) as sock:
                yield sock
    finally:
        os.close(pidfd)


def _end(sock: socket.socket) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.proto != socket.IPPROTO_TCP:
        return False
    if sock.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR) != ON:
        return False
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the mode has cleared it; what it was is not known any more
    return True
