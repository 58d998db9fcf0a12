"""Processes by number *and* start time, so that a number that was given away again never hits the wrong one."""

import os
import signal
import time
from pathlib import Path

from lab.model import ProcessId

_POLL_SECONDS = 0.02
_STATE, _START_TIME = 0, 19  # in /proc/PID/stat, counted after the name in brackets


def identify(pid: int) -> ProcessId | None:
    """The identity of a live process; None when there is none, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[_STATE] in "ZX":
        return None
    return ProcessId(pid=pid, start_time=int(fields[_START_TIME]))


def is_alive(process: ProcessId | None) -> bool:
    """This very process runs."""
    return process is not None and identify(process.pid) == process


def send(process: ProcessId, number: signal.Signals) -> None:
    """Signals this very process; nothing happens when it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(process):
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass  # it ended by itself in between
    finally:
        os.close(descriptor)


def wait_gone(process: ProcessId, timeout: float) -> bool:
    """True when it ended within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
