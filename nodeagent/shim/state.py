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
from nodeagent.shim.pages import copy_userfaultfds, start_fetching
from nodeagent.shim.program import launch
from nodeagent.shim.repair import end_repair

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any, NoReturn

    from nodeagent.shim.answers import Answer
    from nodeagent.shim.wire import Wire

CLEAR_SECONDS = 5.0
"""Killed processes are gone in milliseconds unless they hang in the kernel."""

EMPTY, RUNNING, DUMPING, FROZEN, RESTORING = "empty", "running", "dumping", "frozen", "restoring"
SERVING, SEVERED = "serving", "severed"
"""Frozen, and criu hands out its pages; the same after the job itself was killed here."""


class Shim:
    """The state of pid 1 and what it does on request."""

    def __init__(self, run_dir: str, wire: Wire | None = None) -> None:
        self.run_dir = run_dir
        self.wire = wire
        """Of a job with a network of its own."""
        self.phase = EMPTY
        self.job: int | None = None
        self.beside: set[int] = set()
        """Programs that somebody runs beside the job."""
        self.criu: int | None = None
        self.dumped = False
        """A criu was at it and it did not go on since."""
        self.stopped: list[int] = []
        self.groups: list[str] = []
        """Those the restored processes still have to enter."""
        self.waiting: socket.socket | None = None
        """Connection to answer when criu has ended."""
        self.starter: Starter | None = None
        self.watch: Callable[[int, Callable[[], None]], None] = lambda descriptor, then: None
        """Calls ``then`` once, when the descriptor can be read. The main loop gives us its own."""
        self.fetching: int | None = None
        """lazy-pages, while pages come in."""
        self.faults: list[int] = []
        """Copies of its userfaultfds."""
        self.stream_code = 0
        """How criu ended that handed out or fetched pages."""
        self.served = False
        """A SIGSTOP was sent to the job, which may not have come to it yet."""
        self.listeners: list[socket.socket] = []
        """Connections to answer when pages have ceased to go out or come in."""

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
        self.job = launch(command, env, workdir, log, groups, run_as or {}, stdio or {})
        self.phase = RUNNING
        return {"pid": self.job}

    def start_beside(
        self,
        command: list[str],
        env: dict[str, str],
        workdir: str,
        groups: list[str],
        run_as: dict[str, Any],
        stdio: dict[str, Any],
    ) -> Answer:
        """In the job's namespaces, but no part of it: it cannot move, and ends with this sandbox at the latest."""
        self.must_be(RUNNING)
        pid = launch(command, env, workdir, "", groups, run_as, stdio)
        self.beside.add(pid)
        return {"pid": pid}

    def status(self) -> Answer:
        found = list(processes())
        return {
            "phase": self.phase,
            "job": self.job,
            "criu": self.criu,
            "last_pid": clear_of({number for _, _, numbers in found for number in numbers}, read_int("/proc/sys/kernel/pid_max")),
            "stopped": self.stopped,
            "beside": sorted(self.beside),
            "streaming": self.streaming,
        }

    @property
    def streaming(self) -> bool:
        """Whether pages go out or come in."""
        return self.fetching is not None or (self.criu is not None and self.phase in (SERVING, SEVERED))

    def pre_dump(self, connection: socket.socket, argv: list[str]) -> None:
        """The job runs on, so the phase does not change; while criu is there nothing else is done."""
        self.must_be(RUNNING)
        if self.fetching is not None:
            raise Refused("a part of its memory is still on its way from the node it was on before")
        argv = argv_as(dump_as(pid for pid, _, _ in processes()), argv)
        pid = os.fork()
        if pid == 0:
            become_criu(self.run_dir, argv)
        self.criu, self.waiting = pid, connection

    def dump(self, connection: socket.socket, argv: list[str], pages: int | None = None) -> None:
        self.must_be(RUNNING)
        if self.fetching is not None:
            raise Refused("a part of its memory is still on its way from the node it was on before")
        if self.wire is not None:
            self.wire.deafen()
        argv = argv_as(dump_as(pid for pid, _, _ in processes()), argv)
        self.stopped = [pid for pid, state, _ in processes() if state == "T"]
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            become_criu(self.run_dir, argv, () if pages is None else (pages, tell))
        os.close(tell)
        self.criu, self.phase, self.waiting = pid, DUMPING, connection
        self.watch(told, lambda: self.serves(told))

    def expect(self, groups: list[str]) -> Answer:
        self.must_be(EMPTY)
        if self.starter is not None:
            raise Refused("a restore is expected already")
        self.starter = Starter(self.run_dir, groups)
        return {}

    def restore(
        self,
        connection: socket.socket,
        argv: list[str],
        last_pid: int,
        fetch: list[str] | None = None,
        meeting: str = "",
        pages: int = -1,
    ) -> None:
        self.must_be(EMPTY)
        starter, self.starter = self.starter, None
        if starter is None:
            raise Refused("no restore was expected")
        write("/proc/sys/kernel/ns_last_pid", str(last_pid))
        if fetch is not None:
            self.fetching = start_fetching(self.run_dir, fetch, pages, meeting)
        self.criu, self.phase, self.waiting = starter.start(argv), RESTORING, connection

    def abort(self, force: bool = False) -> Answer:
        """With its file size limit at 0 criu's next write fails, and it detaches from the job as after any error.

        A signal kills it in the middle, with its own code still inside the job's processes; that is what ``force`` is.
        """
        if self.criu is not None and force:
            os.kill(self.criu, signal.SIGKILL)
        elif self.criu is not None and self.phase == SERVING:
            os.kill(self.criu, signal.SIGTERM)  # nothing of it is in the job any more
        elif self.criu is not None:
            stop_writing(self.criu)
        return {}

    def restored(self, groups: list[str], stopped: list[int]) -> Answer:
        self.must_be(RESTORING)
        children = [pid for pid in self.children() if pid != self.fetching]
        if self.criu is not None or len(children) != 1:
            raise Refused(f"criu left {len(children)} children behind, not 1")
        if self.fetching is not None:
            self.faults = copy_userfaultfds(self.fetching)
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
        if self.phase == SEVERED:
            raise Refused("the job was killed here, because it runs elsewhere")
        if self.criu is not None or self.phase == RESTORING:
            raise Refused(f"criu is still {self.phase}")
        self.open_wire()
        if self.phase == RUNNING:
            return {}
        self.end_repair()
        self.phase = RUNNING
        for pid, state in children_first():  # a shell that runs before its children takes them for stopped by somebody
            if (state in "Tt" or self.served) and pid not in self.stopped:
                os.kill(pid, signal.SIGCONT)
        self.served = False
        return {}

    def open_wire(self) -> None:
        """Also of a job that runs: whoever blocked it may have failed before it was frozen."""
        try:
            if self.wire is not None:
                self.wire.open()
        except OSError as error:  # better a job without a network than one that stands still
            print(f"no network: {error}", file=sys.stderr, flush=True)

    def sever(self) -> Answer:
        """The job runs elsewhere: kills it here, without keeping criu from handing out what it holds of the job's memory."""
        if self.phase not in (SERVING, FROZEN, SEVERED):
            raise Refused(f"the sandbox is {self.phase}, not frozen")
        self.job, self.phase = None, SEVERED
        for pid, _, _ in processes():
            if pid != self.criu:
                os.kill(pid, signal.SIGKILL)
        return {}

    def streamed(self, connection: socket.socket) -> None:
        """Answers when no pages go out or come in any more."""
        self.listeners.append(connection)
        if not self.streaming:
            self.stream_ended(self.stream_code)

    def reconnect(self) -> Answer:
        """Whoever fenced the job has blocked its wire. One that is blocked because it stands frozen stays so."""
        if self.phase == RUNNING:
            self.open_wire()
        return {}

    def end_repair(self) -> None:
        """Nothing to do for what was restored: only a dump leaves its connections half-way."""
        dumped, self.dumped = self.dumped, False
        try:
            if dumped:
                end_repair(pid for pid, _, _ in processes())
        except OSError as error:  # better a connection that is broken than a job that stands still
            print(f"connections are not whole: {error}", file=sys.stderr, flush=True)

    def block_wire(self) -> None:
        """It was deafened before, so a port that stays open does no harm but that switches may learn a place that is over."""
        try:
            if self.wire is not None:
                self.wire.block()
        except OSError as error:  # nothing may end pid 1, and the job with it
            print(f"still heard: {error}", file=sys.stderr, flush=True)

    def clear(self) -> Answer:
        if os.getpid() != 1:
            raise Refused("not pid 1 of a namespace: this would kill everything on the machine")
        self.job, self.phase, self.stopped, self.starter, self.fetching = None, EMPTY, [], None, None
        self.served = False
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
            self.beside.discard(pid)
            if pid == self.job:
                self.job_ended(status)
            if pid == self.criu:
                self.criu_ended(exit_code(status))
            if pid == self.fetching:
                self.fetch_ended(exit_code(status))

    def job_ended(self, status: int) -> NoReturn:
        write_atomically(self.run_dir + "/exit.json", {"code": exit_code(status), "time": time.time()})
        os._exit(0)

    def children(self) -> list[int]:
        """Ours; the job's first process keeps its own orphans."""
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]

    def criu_ended(self, code: int) -> None:
        self.criu = None
        if self.phase == DUMPING:
            self.block_wire()
            self.dumped = True
            self.phase = FROZEN  # whether it is frozen or was left running by a failed criu, thaw puts it right
            for pid in self.children():
                if (
                    pid != self.job and pid not in self.beside
                ):  # a criu that was killed leaves those it tries the kernel with; they would sleep for ever
                    os.kill(pid, signal.SIGKILL)
        if self.phase in (SERVING, SEVERED):
            self.phase = FROZEN if self.phase == SERVING else SEVERED
            self.stream_ended(code)
        self.tell_waiting(code)

    def tell_waiting(self, code: int) -> None:
        connection, self.waiting = self.waiting, None
        if connection is not None:
            answer(connection, {"ok": True, "rc": code})

    def serves(self, told: int) -> None:
        """criu has said that it will hand out pages from now on, or it has closed its end without saying that.

        It holds the processes by ptrace. Should it die, they would run; with a SIGSTOP that waits for them they come to the same
        state as after any other dump, without one instruction.
        """
        data = os.read(told, 1)
        os.close(told)
        if data and self.criu is not None and self.phase == DUMPING:
            for pid, _, _ in processes():
                if pid != self.criu:
                    os.kill(pid, signal.SIGSTOP)
            self.block_wire()
            self.phase, self.served, self.dumped = SERVING, True, True
            self.tell_waiting(0)

    def fetch_ended(self, code: int) -> None:
        """Pages do not come any more. Unless all have come the job must not run on: it would read zeros."""
        self.fetching = None
        if code and self.criu is not None:
            os.kill(self.criu, signal.SIGKILL)  # a restore in the middle of which they were lost
        elif code and self.job is not None:
            pid, status = os.waitpid(self.job, os.WNOHANG)
            if pid:
                self.job_ended(status)  # that is why
            write_atomically(self.run_dir + "/lost.json", {"code": code, "time": time.time()})
            self.clear()
            os._exit(1)
        for descriptor in self.faults:
            os.close(descriptor)
        self.faults = []
        self.stream_ended(code)

    def stream_ended(self, code: int) -> None:
        self.stream_code = code
        listeners, self.listeners = self.listeners, []
        for connection in listeners:
            answer(connection, {"ok": True, "rc": code})


def exit_code(status: int) -> int:
    """Of a wait status: 128 + signal when a signal ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
