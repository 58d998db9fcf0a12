"""The job's first process: from a fork of the shim to the program's exec."""

# ruff: noqa: PTH123

# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import errno
import json
import os
import signal

from nodeagent.shim.answers import Refused
from nodeagent.shim.identity import take_on
from nodeagent.shim.kernel import enter_groups, libc_call
from nodeagent.shim.seccomp import refuse_io_uring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

PR_SET_CHILD_SUBREAPER = 36


def reset_signals() -> None:
    """A job starts with all signals at their defaults; Python itself ignores some."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_DFL)
            except OSError:
                continue  # those the C library keeps for itself
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def launch(
    command: list[str],
    env: dict[str, str],
    workdir: str,
    log: str,
    groups: list[str],
    run_as: dict[str, Any],
    stdio: dict[str, Any],
) -> int:
    """The PID of the started program; Refused, with the code a shell would give, when it cannot be started. See ``become_job``."""
    problem_end, child_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        become_job(child_end, command, env, workdir, log, groups, run_as, stdio)
    os.close(child_end)
    with open(problem_end, encoding="utf-8") as file:
        problem = file.read()  # empty: the descriptor was closed by a successful exec
    if problem:
        os.kill(pid, signal.SIGKILL)  # mx-stdio would wait for a client
        os.waitpid(pid, 0)
        code, _, text = problem.partition(" ")
        raise Refused(text, code=int(code))
    return pid


def become_job(
    problem: int,
    command: list[str],
    env: dict[str, str],
    workdir: str,
    log: str,
    groups: list[str],
    run_as: dict[str, Any],
    stdio: dict[str, Any],
) -> NoReturn:
    """In the child: never returns. A failure is written to ``problem`` as "<exit code> <text>".

    ``run_as`` has uid, gid, groups, limits, nice, umask and io_uring (whether it may use that); empty: as we are. What needs root
    is done before the user is taken on; the working directory is entered as the user, who may have to be kept out of it. With
    ``stdio`` (how mx-stdio is started, and its order) it is that which starts the command. ``log`` "": its output goes nowhere.
    """
    what = "control groups"
    try:
        os.setsid()
        reset_signals()
        enter_groups(groups)
        libc_call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        what = f"output file {log}"
        null = os.open("/dev/null", os.O_RDONLY)
        output = os.open(log or "/dev/null", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        if run_as and log:
            os.fchown(output, run_as["uid"], run_as["gid"])
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        problem = os.dup2(problem, 3, inheritable=False) if problem != 3 else problem
        os.closerange(4, 65536)
        what = "filter against io_uring"
        if not run_as.pop("io_uring", True):
            refuse_io_uring()
        what = "user"
        if run_as:
            take_on(**run_as)
        what = f"working directory {workdir}"
        os.chdir(workdir)
        what = command[0]
        if stdio:
            become_stdio(stdio["program"], {**stdio["order"], "command": command, "env": env})
        os.execvpe(command[0], command, env)
    except OSError as error:
        code = 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) and what == command[0] else 126
        os.write(problem, f"{code} {what}: {os.strerror(error.errno or 0)}".encode())
    except Refused as error:
        os.write(problem, f"126 {error}".encode())
    except ValueError as error:
        os.write(problem, f"126 {what}: {error}".encode())
    finally:
        os._exit(127)


def become_stdio(program: list[str], order: dict[str, Any]) -> NoReturn:
    """Its order comes on its standard input; the job's environment must not be its own. Descriptor 3 is for problems. OSError."""
    file = os.memfd_create("order")
    with open(file, "w", encoding="utf-8", closefd=False) as text:
        json.dump(order, text)
    os.lseek(file, 0, os.SEEK_SET)
    os.dup2(file, 0)
    os.set_inheritable(3, True)
    os.execve(program[0], [*program, order["command"][0]], {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
