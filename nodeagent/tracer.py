"""Has a stopped process make one system call itself: what belongs to a process nobody else can ask for.

It is what a debugger does for "call": the process is traced, its registers are set to a ``syscall`` instruction that it has anyway
(in the vdso), one step is taken, and everything is put back as it was. It stays stopped all the time. x86-64 only.
"""

import ctypes
import os
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nodeagent.errors import EngineFailed

SUPPORTED = os.uname().machine == "x86_64"
CALLS = {"fcntl": 72}
SEIZE, INTERRUPT, GETREGS, SETREGS, SINGLESTEP, DETACH = 0x4206, 0x4207, 12, 13, 9, 17
GETSIGMASK, SETSIGMASK, MASK = 0x420A, 0x420B, 8
EVENT_STOP = 128
STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTRAP)
WALL = 0x40000000
REGISTERS = struct.Struct("27Q")
RAX, RDX, RSI, RDI, ORIG_RAX, RIP, CS, RSP = 10, 12, 13, 14, 15, 16, 17, 19
USER_64 = 0x33
"""Code segment of 64-bit programs."""
NO_CALL = 2**64 - 1
INSTRUCTION = b"\x0f\x05"
BELOW_STACK = 1024
"""Bytes below the stack pointer that no program counts on."""
SECONDS = 5.0
PAUSE = 0.0005


def call_in(pid: int, name: str, first: int, second: int, data: bytes) -> None:
    """Makes the stopped process call ``name(first, second, data)``. OSError with what the kernel answers, EngineFailed."""
    if not SUPPORTED:
        raise EngineFailed(f"process {pid}: {name} in another process works on x86-64 only")
    with _traced(pid), Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        before = _registers(pid)
        if before[CS] != USER_64:
            raise EngineFailed(f"process {pid} is a 32-bit program: {name} cannot be called in it")
        place = (before[RSP] - BELOW_STACK) & ~0xF
        saved = os.pread(memory.fileno(), len(data), place)
        os.pwrite(memory.fileno(), data, place)
        try:
            changes = {
                RAX: CALLS[name],
                RDI: first,
                RSI: second,
                RDX: place,
                RIP: _instruction(pid, memory.fileno()),
                ORIG_RAX: NO_CALL,
            }
            _set_registers(pid, [changes.get(index, value) for index, value in enumerate(before)])
            _step(pid)
            result = ctypes.c_int64(_registers(pid)[RAX]).value
        finally:
            _set_registers(pid, before)
            os.pwrite(memory.fileno(), saved, place)
    if result < 0:
        raise OSError(-result, f"{name} in process {pid}: {os.strerror(-result)}")


@contextmanager
def _traced(pid: int) -> Iterator[None]:
    """Stopped it was, and stopped it is again afterwards. Signals wait meanwhile: a handler must not run in our registers."""
    _ptrace(SEIZE, pid)
    try:
        _ptrace(INTERRUPT, pid)
        status = _wait(pid)
        mask = ctypes.create_string_buffer(MASK)
        _ptrace(GETSIGMASK, pid, ctypes.addressof(mask), MASK)
        _ptrace(SETSIGMASK, pid, ctypes.addressof(ctypes.create_string_buffer(b"\xff" * MASK, MASK)), MASK)
        try:
            if status >> 16 != EVENT_STOP and os.WSTOPSIG(status) not in STOPS:
                os.kill(pid, os.WSTOPSIG(status))  # it was just being delivered: once more, later
            yield
        finally:
            _ptrace(SETSIGMASK, pid, ctypes.addressof(mask), MASK)
    finally:
        _ptrace(DETACH, pid, signal.SIGSTOP)


def _step(pid: int) -> None:
    """One instruction. The kernel may first tell again that the process is stopped, or that it is to stop, which it does later."""
    while True:
        _ptrace(SINGLESTEP, pid)
        status = _wait(pid)
        if status >> 16 == EVENT_STOP or os.WSTOPSIG(status) == signal.SIGSTOP:
            continue
        if os.WSTOPSIG(status) != signal.SIGTRAP:
            raise EngineFailed(f"process {pid} stopped with signal {os.WSTOPSIG(status)} instead of making its call")
        return


def _wait(pid: int) -> int:
    """Until it is stopped; its wait status."""
    end = time.monotonic() + SECONDS
    while True:
        found, status = os.waitpid(pid, WALL | os.WNOHANG)
        if found:
            if not os.WIFSTOPPED(status):
                raise EngineFailed(f"process {pid} ended while it was looked at")
            return status
        if time.monotonic() > end:
            raise EngineFailed(f"process {pid} does not stop within {SECONDS:g} s")
        time.sleep(PAUSE)


def _instruction(pid: int, memory: int) -> int:
    """Where it has a ``syscall`` instruction."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            at = os.pread(memory, end - start, start).find(INSTRUCTION)
            if at >= 0:
                return start + at
    raise EngineFailed(f"process {pid} has no vdso with a system call in it")


def _registers(pid: int) -> list[int]:
    buffer = ctypes.create_string_buffer(REGISTERS.size)
    _ptrace(GETREGS, pid, ctypes.addressof(buffer))
    return list(REGISTERS.unpack(buffer.raw))


def _set_registers(pid: int, values: list[int]) -> None:
    buffer = ctypes.create_string_buffer(REGISTERS.pack(*values), REGISTERS.size)
    _ptrace(SETREGS, pid, ctypes.addressof(buffer))


def _ptrace(request: int, pid: int, data: int = 0, address: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, pid, address or None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"process {pid} cannot be traced: {os.strerror(number)}")
