"""The first process of a node: keeps its services running and reaps orphans. Namespace nodes have a copy as /usr/sbin/mx-init.

Runs on the image's Python without any package. A service that ends is started again half a second later, whoever killed it;
nothing else on the node is touched then, so jobs survive the death of every daemon: their shims become children of this process.
SIGTERM ends the services, then this process, and with it the kernel ends everything on the node. On a machine (it has
/etc/mx/machine) the first process must never end: SIGTERM switches it off, SIGINT, which is Ctrl-Alt-Del, boots it again.

What runs is read from /etc/mx/services.json: ``[{"name": …, "command": [...]}]``. How it goes is written to
/run/mx/services.json: ``{name: {"pid": …, "starts": …, "since": unix seconds, "ended": wait status or null}}``.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

PLAN = Path("/etc/mx/services.json")
STATE = Path("/run/mx/services.json")
MACHINE = Path("/etc/mx/machine")
LOGS = Path("/var/log/mx")
PAUSE_SECONDS = 0.5
STOP_SECONDS = 4.0
# reboot(2): boot again, switch off, send us SIGINT at Ctrl-Alt-Del instead of booting again at once.
REBOOT, POWER_OFF, TELL_US = 0x1234567, 0x4321FEDC, 0
SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
# Python ignores these two, and what is ignored stays so in children.
RESET = {signal.SIGPIPE, signal.SIGXFSZ, *SIGNALS}


class Service:
    """One program and how it goes. Times are on the monotonic clock."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.command = command
        self.pid = 0  # 0: not running
        self.starts = 0
        self.since = 0.0  # unix time, for people
        self.ended: int | None = None
        self.start_at = 0.0

    def start(self) -> None:
        """Starts it in a session of its own, its output appended to its log. A program that is not there ends at once."""
        log = str(LOGS / f"{self.name}.log")
        files = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        self.starts += 1
        self.since = time.time()
        try:
            self.pid = os.posix_spawnp(
                self.command[0], self.command, os.environ, file_actions=files, setsid=True, setsigmask=[], setsigdef=RESET
            )
        except OSError as error:
            say(f"{self.name} cannot start: {error}")
            self.end(127 << 8)

    def end(self, status: int) -> None:
        """It ended; it will be started again after a pause."""
        self.pid, self.ended = 0, status
        self.start_at = time.monotonic() + PAUSE_SECONDS

    def describe(self) -> dict[str, object]:
        """For the state file."""
        return {"pid": self.pid, "starts": self.starts, "since": self.since, "ended": self.ended}


def say(message: str) -> None:
    """To our own log."""
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), message, file=sys.stderr, flush=True)


def read_plan() -> list[Service]:
    """What to run."""
    return [Service(entry["name"], entry["command"]) for entry in json.loads(PLAN.read_text(encoding="utf-8"))]


def write_state(services: list[Service]) -> None:
    """Replaces the state file as a whole."""
    fresh = STATE.with_suffix(".new")
    fresh.write_text(json.dumps({service.name: service.describe() for service in services}), encoding="utf-8")
    fresh.rename(STATE)


def reap(services: list[Service]) -> bool:
    """Takes the status of every child that ended, ours or an orphan; True when one was a service."""
    by_pid = {service.pid: service for service in services if service.pid}
    changed = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return changed
        if pid == 0:
            return changed
        if pid in by_pid:
            say(f"{by_pid[pid].name} ended with {os.waitstatus_to_exitcode(status)}, starts again in {PAUSE_SECONDS} s")
            by_pid[pid].end(status)
            changed = True


def start_due(services: list[Service]) -> bool:
    """Starts what does not run and has waited long enough."""
    due = [service for service in services if not service.pid and service.start_at <= time.monotonic()]
    for service in due:
        service.start()
    return bool(due)


def wait_time(services: list[Service]) -> float:
    """Seconds until the next service is due; long when all run."""
    waiting = [service.start_at - time.monotonic() for service in services if not service.pid]
    return max(0.0, min(waiting, default=60.0))


def supervise(services: list[Service]) -> int:
    """Until somebody says stop; returns the signal."""
    while True:
        changed = reap(services)
        changed |= start_due(services)
        if changed:
            write_state(services)
        told = signal.sigtimedwait(SIGNALS, wait_time(services))
        if told is not None and told.si_signo != signal.SIGCHLD:
            return told.si_signo


def stop(services: list[Service]) -> None:
    """Asks all services to end and gives them a moment."""
    deadline = time.monotonic() + STOP_SECONDS
    for service in services:
        if service.pid:
            os.kill(service.pid, signal.SIGTERM)  # our own child, not reaped yet: the number cannot be somebody else's
    while any(service.pid for service in services) and time.monotonic() < deadline:
        signal.sigtimedwait(SIGNALS, 0.1)
        reap(services)


def leave_machine(told: int) -> None:
    """Ends the machine itself: off, or again."""
    os.sync()
    say("booting again" if told == signal.SIGINT else "switching off")
    reboot(REBOOT if told == signal.SIGINT else POWER_OFF)


def reboot(command: int) -> None:
    """reboot(2)."""
    import ctypes  # late: most nodes never need it

    ctypes.CDLL(None).reboot(command)


def main() -> None:
    """Runs the node until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    STATE.parent.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    services = read_plan()
    if MACHINE.exists():
        reboot(TELL_US)
    told = supervise(services)
    stop(services)
    if MACHINE.exists():
        leave_machine(told)


if __name__ == "__main__":
    main()
