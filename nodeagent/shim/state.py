"""The state of pid 1 and what it does on request."""

# ruff: noqa: PTH123
# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import contextlib
import os
import signal
import sys
import time

from nodeagent.shim.answers import Refused, answer
from nodeagent.shim.criu import Starter, become_criu
from nodeagent.shim.identity import argv_as, dump_as, stop_writing
from nodeagent.shim.kernel import children_first, clear_of, processes, read_int, write, write_atomically
from nodeagent.shim.program import become_job

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from nodeagent.shim.answers import Answer
    from nodeagent.shim.wire import Wire

CLEAR_SECONDS = 5.0
"""Killed processes are gone in milliseconds unless they hang in the kernel."""

EMPTY, RUNNING, DUMPING, FROZEN, RESTORING = "empty", "running", "dumping", "frozen", "restoring"


class Shim:
    """The state of pid 1 and what it does on request."""

    def __init__(self, run_dir: str, wire: Wire | None = None) -> None:
        self.run_dir = run_dir
        self.wire = wire
        """Of a job with a network of its own."""
        self.phase = EMPTY
        self.job: int | None = None
        self.criu: int | None = None
        self.stopped: list[int] = []
        self.groups: list[str] = []
        """Those the restored processes still have to enter."""
        self.waiting: socket.socket | None = None
        """Connection to answer when criu has ended."""
        self.starter: Starter | None = None

    # requests

    def start(
        self,
        command: list[str],
        env: dict[str, str],
        workdir: str,
        log: str,
        groups: list[str],
        run_as: dict[str, Any] | None = None,
        stdio: dict[str, Any] | None = None,
    ) -> Answer:
        self.must_be(EMPTY)
        if self.wire is not None:
            self.wire.open()
        problem_end, child_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            become_job(child_end, command, env, workdir, log, groups, run_as or {}, stdio or {})
        os.close(child_end)
        with open(problem_end, encoding="utf-8") as file:
            problem = file.read()  # empty: the descriptor was closed by a successful exec
        if problem:
            os.kill(pid, signal.SIGKILL)  # mx-stdio would wait for a client
            os.waitpid(pid, 0)
            code, _, text = problem.partition(" ")
            raise Refused(text, code=int(code))
        self.job, self.phase = pid, RUNNING
        return {"pid": pid}

    def status(self) -> Answer:
        found = list(processes())
        return {
            "phase": self.phase,
            "job": self.job,
            "criu": self.criu,
            "last_pid": clear_of({number for _, _, numbers in found for number in numbers}, read_int("/proc/sys/kernel/pid_max")),
            "stopped": self.stopped,
        }

    def dump(self, connection: socket.socket, argv: list[str]) -> None:
        self.must_be(RUNNING)
        if self.wire is not None:
            self.wire.block()
            self.wire.drain()
        argv = argv_as(dump_as(pid for pid, _, _ in processes()), argv)
        self.stopped = [pid for pid, state, _ in processes() if state == "T"]
        pid = os.fork()
        if pid == 0:
            become_criu(self.run_dir, argv)
        self.criu, self.phase, self.waiting = pid, DUMPING, connection

    def expect(self, groups: list[str]) -> Answer:
        self.must_be(EMPTY)
        if self.starter is not None:
            raise Refused("a restore is expected already")
        self.starter = Starter(self.run_dir, groups)
        return {}

    def restore(self, connection: socket.socket, argv: list[str], last_pid: int) -> None:
        self.must_be(EMPTY)
        starter, self.starter = self.starter, None
        if starter is None:
            raise Refused("no restore was expected")
        write("/proc/sys/kernel/ns_last_pid", str(last_pid))
        self.criu, self.phase, self.waiting = starter.start(argv), RESTORING, connection

    def abort(self, force: bool = False) -> Answer:
        """With its file size limit at 0 criu's next write fails, and it detaches from the job as after any error.

        A signal kills it in the middle, with its own code still inside the job's processes; that is what ``force`` is.
        """
        if self.criu is not None and force:
            os.kill(self.criu, signal.SIGKILL)
        elif self.criu is not None:
            stop_writing(self.criu)
        return {}

    def restored(self, groups: list[str], stopped: list[int]) -> Answer:
        self.must_be(RESTORING)
        children = self.children()
        if self.criu is not None or len(children) != 1:
            raise Refused(f"criu left {len(children)} children behind, not 1")
        self.job, self.phase, self.stopped, self.groups = children[0], FROZEN, stopped, groups
        return {"pid": self.job}

    def enter_late(self) -> None:
        """The restored processes enter the groups they were kept out of while they were restored."""
        groups, self.groups = self.groups, []
        for pid, _, _ in processes() if groups else ():
            for group in groups:
                try:
                    write(group + "/cgroup.procs", str(pid))
                except OSError as error:  # better a job outside its quota than no job
                    print(f"process {pid} stays out of {group}: {error}", file=sys.stderr, flush=True)

    def thaw(self) -> Answer:
        if self.phase == EMPTY:
            return {}
        if self.criu is not None or self.phase == RESTORING:
            raise Refused(f"criu is still {self.phase}")
        self.open_wire()
        if self.phase == RUNNING:
            return {}
        self.phase = RUNNING
        for pid, state in children_first():  # a shell that runs before its children takes them for stopped by somebody
            if state in "Tt" and pid not in self.stopped:
                os.kill(pid, signal.SIGCONT)
        return {}

    def open_wire(self) -> None:
        """Also of a job that runs: whoever blocked it may have failed before it was frozen."""
        try:
            if self.wire is not None:
                self.wire.open()
        except OSError as error:  # better a job without a network than one that stands still
            print(f"no network: {error}", file=sys.stderr, flush=True)

    def clear(self) -> Answer:
        if os.getpid() != 1:
            raise Refused("not pid 1 of a namespace: this would kill everything on the machine")
        self.job, self.phase, self.stopped, self.starter = None, EMPTY, [], None
        deadline = time.monotonic() + CLEAR_SECONDS
        while list(processes()):
            if time.monotonic() > deadline:
                raise Refused("processes do not die within 5 s of SIGKILL")
            with contextlib.suppress(ProcessLookupError):  # only what we have not waited for yet is left
                os.kill(-1, signal.SIGKILL)
            self.reap()
            time.sleep(0.001)
        return {}

    def send_signal(self, number: int) -> Answer:
        if self.job is None:
            raise Refused("no job was started")
        os.kill(self.job, number)
        return {}

    def must_be(self, phase: str) -> None:
        if self.phase != phase or self.criu is not None:
            raise Refused(f"the sandbox is {self.phase}, not {phase}")

    # what happens by itself

    def reap(self) -> None:
        """Waits for all that have ended; the first process's end is recorded and ends us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.job:
                write_atomically(self.run_dir + "/exit.json", {"code": exit_code(status), "time": time.time()})
                os._exit(0)
            if pid == self.criu:
                self.criu_ended(exit_code(status))

    def children(self) -> list[int]:
        """Ours; the job's first process keeps its own orphans."""
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]

    def criu_ended(self, code: int) -> None:
        self.criu = None
        if self.phase == DUMPING:
            self.phase = FROZEN  # whether it is frozen or was left running by a failed criu, thaw puts it right
            for pid in self.children():
                if pid != self.job:  # a criu that was killed leaves those it tries the kernel with; they would sleep for ever
                    os.kill(pid, signal.SIGKILL)
        connection, self.waiting = self.waiting, None
        if connection is not None:
            answer(connection, {"ok": True, "rc": code})


def exit_code(status: int) -> int:
    """Of a wait status: 128 + signal when a signal ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
