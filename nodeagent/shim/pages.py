"""Memory that follows a job which runs already (post-copy): criu's lazy-pages beside the job that came, userfaultfds kept open.

When the program that answers the faults of a userfaultfd is gone, the kernel gives *zeros* for every page that has not come. So we
hold the descriptors, too: a process that needs such a page then waits, until we have killed it.
"""

# ruff: noqa: PTH110, PTH115, PTH208
# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import ctypes
import errno
import os
import signal
import time

from nodeagent.shim.answers import Refused
from nodeagent.shim.criu import become_criu

PIDFD_GETFD = 438
"""Number of the system call, the same everywhere."""
START_SECONDS = 5.0
"""For lazy-pages to listen; it is some milliseconds unless the machine is drowning."""
POLL = 0.0005


def start_fetching(run_dir: str, argv: list[str], wire: int, meeting: str) -> int:
    """The PID of a lazy-pages that listens at ``meeting``, with ``wire`` as its descriptor 3. Refused if it does not come up."""
    pid = os.fork()
    if pid == 0:
        become_criu(run_dir, argv, [wire], "pages.out")
    end = time.monotonic() + START_SECONDS
    while not os.path.exists(meeting):
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise Refused("criu lazy-pages has ended before it listened")
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise Refused(f"criu lazy-pages did not listen within {START_SECONDS} s")
        time.sleep(POLL)
    return pid


def copy_userfaultfds(pid: int) -> list[int]:
    """Descriptors of our own for all userfaultfds of that process."""
    libc = ctypes.CDLL(None, use_errno=True)
    directory = f"/proc/{pid}/fd"
    numbers = [int(name) for name in os.listdir(directory) if "userfaultfd" in _target(f"{directory}/{name}")]
    pidfd = os.pidfd_open(pid)
    try:
        copies = []
        for number in numbers:
            copy = libc.syscall(PIDFD_GETFD, pidfd, number, 0)
            error = ctypes.get_errno()
            if copy < 0 and error != errno.EBADF:  # it closes that of a process whose memory has all come
                raise OSError(error, f"pidfd_getfd: {os.strerror(error)}")
            if copy >= 0:
                copies.append(copy)
        return copies
    finally:
        os.close(pidfd)


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""  # closed meanwhile
