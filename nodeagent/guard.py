"""mx-guard RUN: the process beside an agent that makes its jobs stand still when nobody has kept the node's lease alive in time.

The agent writes a deadline to RUN/lease with each renewal: until then etcd cannot have told anybody that this node is lost. When
the deadline passes, whatever the reason (no network, no etcd, an agent that hangs, is stopped or dead), every copy of a job here is
frozen, killed or kept, as the file "fencing" in its directory below RUN/copies says; a copy without one is frozen. So nobody who
starts a job elsewhere a lease later ever makes it run twice.

The guard never lets anything go on again: only the agent does, when it has a new session and its placements. While the deadline
stays in the past it looks again every second, for what was made meanwhile. Without a deadline it does nothing. The agent does the
same by the same functions, so that either may be dead. Clock: CLOCK_BOOTTIME, which goes on while the machine is suspended.

Standard library only, and little of it: it has to stay small, and to run when nothing else does.
"""

# ruff: noqa: PTH103, PTH105, PTH110, PTH112, PTH118, PTH123, PTH208
# importing pathlib takes more memory than all the rest
from __future__ import annotations

import errno
import os
import sys
import time

from nodeagent.freezer import ROOT, Freezer, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

LEASE, COPIES, POLICY, KILLED, PORT, PROCESS = "lease", "copies", "fencing", "fenced", "port", "guard"
"""RUN/lease; RUN/copies/<copy>/fencing, RUN/copies/<copy>/fenced (the guard killed it), RUN/copies/<copy>/port (of the bridge, of a
job with a network of its own); RUN/guard (who the guard is)."""
FREEZE, KILL, KEEP = "freeze", "kill", "keep"
AGAIN = 1.0
"""Seconds between two looks when there is no deadline, or it has passed."""
OOM_SCORE = "-900"
PRIORITY = 10
NICE = -15


def clock() -> float:
    """Seconds since boot, suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def write_deadline(run: str, deadline: float) -> None:
    """Readers see the old one or the new one."""
    write_whole(os.path.join(run, LEASE), f"{deadline:.6f}\n")


def read_deadline(run: str) -> float | None:
    """None when the agent never had a session since the machine was started."""
    try:
        with open(os.path.join(run, LEASE), encoding="utf-8") as file:
            return float(file.read())
    except FileNotFoundError:
        return None


def write_policy(directory: str, policy: str) -> None:
    """For the copy whose directory that is. FileNotFoundError when it is gone."""
    write_whole(os.path.join(directory, POLICY), policy)


def read_policy(directory: str) -> str:
    """What to do with that copy; freeze when nobody said."""
    try:
        with open(os.path.join(directory, POLICY), encoding="utf-8") as file:
            text = file.read().strip()
    except FileNotFoundError:
        return FREEZE
    return text if text in (KILL, KEEP) else FREEZE


def was_killed(directory: str) -> bool:
    """Whether the copy was killed because the node had lost touch."""
    return os.path.exists(os.path.join(directory, KILLED))


def write_whole(path: str, text: str) -> None:
    """On a tmpfs; there is nothing to sync."""
    fresh = f"{path}.{os.getpid()}.new"
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(fresh, path)


def directories(run: str) -> dict[str, str]:
    """From the name of a control group to the directory of its copy."""
    parent = os.path.join(run, COPIES)
    names = os.listdir(parent) if os.path.isdir(parent) else []
    return {name.rpartition("_")[0]: os.path.join(parent, name) for name in names}


def silence(directory: str) -> None:
    """A job with an address of its own must not be heard while it stands still: by then another copy may have that address."""
    path = os.path.join(directory, PORT)
    if not directory or not os.path.exists(path):
        return
    from nodeagent.shim.netlink import DISABLED, Netlink  # late: sockets take memory, and few nodes have such jobs

    with open(path, encoding="utf-8") as file:
        port = file.read()
    netlink = Netlink()
    try:
        netlink.set_port(netlink.index_of(port), DISABLED)
    except OSError as error:
        if error.errno != errno.ENODEV:  # the copy has ended, and its network with it
            raise
    finally:
        netlink.close()


def fence(run: str, freezer: Freezer, passed: Callable[[], bool] = lambda: True) -> list[str]:
    """What the deadline's passing means for every copy here; what was done, a line each. ``passed`` is asked before each."""
    done, of_copies = [], directories(run)
    for name in freezer.names():
        if not passed():
            break
        directory = of_copies.get(name, "")
        policy = read_policy(directory) if directory else FREEZE
        try:
            if policy == KILL and freezer.pids(name):
                write_whole(os.path.join(directory, KILLED), KILL)
                freezer.kill(name)
                done.append(f"{name}: killed")
            elif policy == FREEZE:
                if not freezer.frozen(name) and freezer.freeze(name):
                    done.append(f"{name}: frozen")
                silence(directory)
        except OSError as error:
            done.append(f"{name}: NOT stopped: {error}")
    return done


def start_time(pid: int) -> str:
    """Together with the PID it names the process for good."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[19].decode()


def absent(run: str) -> str:
    """Why no guard would act on this node; "" when one would."""
    try:
        pid, start = read_file(os.path.join(run, PROCESS)).split()
        fields = read_file(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "no guard runs beside the agent: start mx-guard"
    except ValueError:
        return f"{run}/{PROCESS} cannot be read: start mx-guard again"
    if fields[19] != start or fields[0] in ("Z", "X"):
        return "the guard beside the agent has ended: start mx-guard"
    return f"the guard beside the agent is stopped: kill -CONT {pid}" if fields[0] in ("T", "t") else ""


def say(message: str) -> None:
    """To our log."""
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), message, file=sys.stderr, flush=True)


def go_first() -> None:
    """So that neither a busy nor a full node keeps us from our work, as far as the kernel lets us."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
            file.write(OOM_SCORE)
    except OSError as error:
        say(f"may be killed when memory runs out: {error}")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        return
    except OSError as error:
        say(f"no real-time priority: {error}")
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except OSError as error:
        say(f"no priority at all: {error}")


def sleep_until(deadline: float) -> None:
    """By the clock that goes on while the machine is suspended, where Python can; else in short naps."""
    if sys.version_info >= (3, 13):
        timer = os.timerfd_create(time.CLOCK_BOOTTIME, flags=os.TFD_CLOEXEC)
        try:
            os.timerfd_settime(timer, flags=os.TFD_TIMER_ABSTIME, initial=deadline)
            os.read(timer, 8)
        finally:
            os.close(timer)
    else:
        time.sleep(min(AGAIN, max(0.0, deadline - clock())))


def watch(run: str, freezer: Freezer) -> NoReturn:
    """For ever."""
    while True:
        deadline = read_deadline(run)
        if deadline is None:
            time.sleep(AGAIN)
        elif deadline > clock():
            sleep_until(deadline)
        else:
            for line in fence(run, freezer, lambda: (read_deadline(run) or 0.0) <= clock()):
                say(f"the lease of this node has run out: {line}")
            time.sleep(AGAIN)


def main(run: str = "/run/mx", root: str = ROOT) -> NoReturn:
    """Until it is killed."""
    go_first()
    os.makedirs(run, exist_ok=True)
    write_whole(os.path.join(run, PROCESS), f"{os.getpid()} {start_time(os.getpid())}\n")
    say(f"watching {run}")
    watch(run, Freezer(root))


if __name__ == "__main__":
    main(*sys.argv[1:])
