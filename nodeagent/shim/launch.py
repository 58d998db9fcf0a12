"""From the agent's command to pid 1 of fresh namespaces."""

# ruff: noqa: PTH103
# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import os
import socket

from nodeagent.shim.kernel import libc_call, mount, start_time, write_atomically
from nodeagent.shim.serve import listen, serve
from nodeagent.shim.state import Shim
from nodeagent.shim.wire import Wire
from nodeagent.stdio import SOCKETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18


def detach_from_agent(run_dir: str) -> None:
    """Nothing of the agent stays open; what Python says when it dies goes to RUN_DIR/shim.log."""
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(run_dir + "/shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, null), (1, null), (2, log)):
        os.dup2(source, target)


def enter_mounts(tmp: str, shm: str, stdio: str) -> None:
    """The job's own /proc, /tmp, /dev/shm and terminals, seen by nobody outside.

    Terminals have numbers, and on the next node those of the job must be free, as they are in a /dev/pts of its own.
    """
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount(tmp, "/tmp", "none", MS_BIND)
    mount(shm, "/dev/shm", "none", MS_BIND)
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    os.makedirs(SOCKETS, exist_ok=True)
    mount(stdio, SOCKETS, "none", MS_BIND)


def be_pid_1(run_dir: str, tmp: str, shm: str, wire: Wire | None, host: str, go: int, ready: int) -> NoReturn:
    """Never returns."""
    os.setsid()
    if os.read(go, 1) != b"g":
        os._exit(1)  # the launcher died before it wrote down who we are: nobody could ever find us
    enter_mounts(tmp, shm, run_dir + "/stdio")
    if wire is not None:
        socket.sethostname(host)
        wire.plug()
    listener = listen(run_dir)
    detach_from_agent(run_dir)
    os.write(ready, b"r")
    os.close(ready)
    os.close(go)
    serve(Shim(run_dir, wire), listener)


def main(run_dir: str, tmp: str, shm: str, host: str = "", *network: str) -> int:
    """The launcher: returns 0 when pid 1 listens. ``network`` as ``Wire`` takes it."""
    wire = Wire(*network) if host else None
    libc_call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | (CLONE_NEWNET if wire else 0))
    go, start = os.pipe()
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(start)
        os.close(ready)
        try:
            be_pid_1(run_dir, tmp, shm, wire, host, go, done)
        except BaseException as error:
            os.write(2, f"mx-shim: {type(error).__name__}: {error}\n".encode())
            raise
        finally:
            os._exit(1)
    os.close(go)
    os.close(done)
    write_atomically(run_dir + "/shim.json", {"pid": pid, "start": start_time(pid)})
    os.write(start, b"g")
    return 0 if os.read(ready, 1) == b"r" else 1
