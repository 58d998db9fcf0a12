"""mx-shim: pid 1 of the namespaces one copy of a job lives in. Never dumped; outlives the agent.

    mx-shim RUN_DIR TMP_DIR SHM_DIR

makes fresh pid, mount, ipc and uts namespaces, becomes their pid 1 in a session of its own, mounts /proc, binds TMP_DIR over /tmp
and SHM_DIR over /dev/shm, and then obeys JSON lines on the unix socket RUN_DIR/control. It exists because this gives PIDs that
cannot clash, a /proc of the job's own, a parent that learns the exit code, and a place where criu runs *inside* the namespaces.

What always holds:
- RUN_DIR/shim.json (pid and start time as the agent's PID namespace has them) is written before pid 1 does anything.
- When the job's first process ends, RUN_DIR/exit.json is on disk before anything else happens; then pid 1 ends, and with it the
  kernel kills everything that is left of the job. A job is its first process; what it leaves behind does not outlive it.
- The first process is a child subreaper: a daemon that loses its parent becomes *its* child, not ours. Otherwise it would be
  outside the tree criu dumps, and be lost by a move.
- At most one criu runs, and it is our child: it dies with us, not with the agent.

Requests, each answered by one line {"ok": true, …} or {"ok": false, "error": …}:
    start {command, env, workdir, log, groups}  -> {pid} | {code, error}: why it could not be started, as the shell would say
    status {}                                   -> {phase, job, criu, last_pid, stopped}
    dump {argv}                                 -> {rc}, when criu has ended; "frozen" from now on, if it succeeded or not
    expect {groups}                             a restore will follow: a child enters these groups now, which takes 15 ms, and
                                                   starts criu later; so that is not part of the freeze
    restore {argv, last_pid}                    -> {rc}, likewise; the namespace's last PID is set first, so that criu and its
                                                   children stay clear of the job's PIDs
    restored {groups, stopped}                  -> {pid}: takes the restored tree as the job; "frozen" from now on. It enters the
                                                   groups after the answer: that takes 12 ms, while the caller commits
    abort {force}                               makes criu give up; unless forced, so that it puts the job in order first
    thaw {}                                     SIGCONT to all but those that were stopped before the freeze: "running"
    clear {}                                    kills everything but ourselves: "empty"
    signal {number}                             to the job's first process

Standard library only, and little of it: this starts on the way into every move.
"""

# ruff: noqa: PTH101, PTH105, PTH109, PTH120, PTH123, PTH208
# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import contextlib
import ctypes
import errno
import itertools
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

    Answer = dict[str, Any]

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_CHILD_SUBREAPER = 36

MAX_LINE = 1 << 20
"""Bytes; the store takes no object above 1 MiB, so no command is longer."""
STARTER_SECONDS = 5.0
"""For a fork; it is a millisecond unless the machine is drowning."""
CLEAR_PIDS = 1000
"""More than a criu and its children take."""
FIRST_AGAIN = 300
"""Where the kernel goes on after the highest PID there is."""
CLEAR_SECONDS = 5.0
"""Killed processes are gone in milliseconds unless they hang in the kernel."""

EMPTY, RUNNING, DUMPING, FROZEN, RESTORING = "empty", "running", "dumping", "frozen", "restoring"


class Refused(Exception):  # noqa: N818 - as in errors.py, named after what happened
    """The request cannot be done; the text says why. ``fields`` go into the answer too."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields


def libc_call(name: str, *arguments: Any) -> None:
    """Calls libc; OSError with the call's name when it fails."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def write(path: str, text: str) -> None:
    """For files of /proc and of cgroups: one write."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read_int(path: str) -> int:
    """The number in a file of one line."""
    with open(path, encoding="utf-8") as file:
        return int(file.read())


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """mount(2)."""
    libc_call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None)


def write_atomically(path: str, data: dict[str, Any]) -> None:
    """A JSON file that is there whole, or not at all, also after a crash of the machine."""
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def start_time(pid: int) -> int:
    """Start of a process in clock ticks since boot: together with its PID it names the process for good."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def processes() -> Iterator[tuple[int, str, set[int]]]:
    """(pid, state, numbers that it, its threads, group and session use) of everything here but ourselves."""
    for name in os.listdir("/proc"):
        if not name.isdecimal() or name == "1":
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            threads = {int(thread) for thread in os.listdir(f"/proc/{name}/task")}
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        yield int(name), fields[0].decode(), {int(name), int(fields[2]), int(fields[3]), *threads}


def clear_of(used: set[int], limit: int) -> int:
    """A PID after which many are free, so that a criu that starts there takes none of those in use.

    The highest in use; when that is close to ``limit``, where numbers start again from 300, the one before the widest gap."""
    highest = max(used, default=1)
    if limit - highest >= CLEAR_PIDS:
        return highest
    numbers = sorted({FIRST_AGAIN - 1, *(number for number in used if number >= FIRST_AGAIN), limit})
    return max(itertools.pairwise(numbers), key=lambda gap: gap[1] - gap[0])[0]


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


def enter_groups(groups: list[str]) -> None:
    """Moves the calling process into these cgroup directories."""
    for group in groups:
        write(group + "/cgroup.procs", "0")


def exit_code(status: int) -> int:
    """Of a wait status: 128 + signal when a signal ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


class Shim:
    """The state of pid 1 and what it does on request."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir
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

    def start(self, command: list[str], env: dict[str, str], workdir: str, log: str, groups: list[str]) -> Answer:
        self.must_be(EMPTY)
        problem_end, child_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            become_job(child_end, command, env, workdir, log, groups)
        os.close(child_end)
        with open(problem_end, encoding="utf-8") as file:
            problem = file.read()  # empty: the descriptor was closed by a successful exec
        if problem:
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
            resource.prlimit(self.criu, resource.RLIMIT_FSIZE, (0, 0))
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
        if self.phase in (RUNNING, EMPTY):
            return {}
        if self.criu is not None or self.phase == RESTORING:
            raise Refused(f"criu is still {self.phase}")
        self.phase = RUNNING
        for pid, state, _ in processes():
            if state in "Tt" and pid not in self.stopped:
                os.kill(pid, signal.SIGCONT)
        return {}

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


def become_job(problem: int, command: list[str], env: dict[str, str], workdir: str, log: str, groups: list[str]) -> NoReturn:
    """In the child: never returns. A failure is written to ``problem`` as "<exit code> <text>"."""
    what = f"working directory {workdir}"
    try:
        os.setsid()
        reset_signals()
        enter_groups(groups)
        libc_call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        os.chdir(workdir)
        what = f"output file {log}"
        null = os.open("/dev/null", os.O_RDONLY)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        what = command[0]
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        problem = os.dup2(problem, 3, inheritable=False) if problem != 3 else problem
        os.closerange(4, 65536)
        os.umask(0o022)
        os.execvpe(command[0], command, env)
    except OSError as error:
        code = 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) and what == command[0] else 126
        os.write(problem, f"{code} {what}: {os.strerror(error.errno or 0)}".encode())
    except ValueError as error:
        os.write(problem, f"126 {what}: {error}".encode())
    finally:
        os._exit(127)


class Starter:
    """A child in its control groups, whose own child will be criu. It must be gone before criu needs its PID for the job."""

    def __init__(self, run_dir: str, groups: list[str]) -> None:
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(STARTER_SECONDS)
        self.pid = os.fork()
        if self.pid == 0:
            self._channel.close()
            become_starter(theirs, run_dir, groups)
        theirs.close()

    def start(self, argv: list[str]) -> int:
        """The PID of criu, which then is a child of ours, as we are pid 1. Refused when the starter is dead or stuck."""
        try:
            with self._channel as channel:
                channel.sendall(json.dumps(argv).encode() + b"\n")
                said = channel.recv(4096)
                if not said.isdigit():
                    raise Refused(f"criu was not started: {said.decode(errors='replace') or 'its starter is gone'}")
                os.waitpid(self.pid, 0)
                channel.sendall(b"g")
        except OSError as error:
            raise Refused(f"criu was not started: {error}") from error
        return int(said)


def become_starter(channel: socket.socket, run_dir: str, groups: list[str]) -> NoReturn:
    """In the child: never returns. Ends without a trace when the shim does."""
    try:
        reset_signals()
        try:
            enter_groups(groups)
        except OSError as error:
            channel.recv(1)
            channel.sendall(str(error).encode())
            raise
        line = bytearray()
        while not line.endswith(b"\n"):
            data = channel.recv(65536)
            if not data:
                os._exit(0)
            line += data
        pid = os.fork()
        if pid == 0:
            if channel.recv(1) == b"g":
                become_criu(run_dir, json.loads(line))
            os._exit(127)
        channel.sendall(str(pid).encode())
    finally:
        os._exit(0)


def become_criu(run_dir: str, argv: list[str]) -> NoReturn:
    """In the child: never returns. What criu says before it has opened its log goes to RUN_DIR/criu.out."""
    try:
        os.setsid()
        reset_signals()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that abort makes writes fail instead of killing it
        output = os.open(run_dir + "/criu.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 65536)
        os.execvp(argv[0], argv)
    finally:
        os._exit(127)


def answer(connection: socket.socket, data: Answer) -> None:
    """Sends one line and hangs up; an agent that died meanwhile does not matter."""
    try:
        connection.setblocking(True)
        connection.settimeout(1.0)
        connection.sendall(json.dumps(data).encode() + b"\n")
    except OSError:
        pass  # nobody listens any more: whoever comes next asks for the status
    finally:
        connection.close()


def obey(shim: Shim, connection: socket.socket, line: bytes) -> None:
    """One request, one answer; only criu's comes later."""
    try:
        request = json.loads(line)
        verb = request.pop("do")
        if verb in ("dump", "restore"):
            (shim.dump if verb == "dump" else shim.restore)(connection, **request)
            return
        verbs: dict[str, Any] = {
            "start": shim.start,
            "expect": shim.expect,
            "status": shim.status,
            "abort": shim.abort,
            "restored": shim.restored,
            "thaw": shim.thaw,
            "clear": shim.clear,
            "signal": shim.send_signal,
        }
        result = {"ok": True, **verbs[verb](**request)}
    except Refused as error:
        result = {"ok": False, "error": str(error), **error.fields}
    except (OSError, ValueError, KeyError, TypeError) as error:
        result = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    answer(connection, result)
    shim.enter_late()


def listen(run_dir: str) -> socket.socket:
    """The control socket. Bound from inside the directory, because a socket's path may not be longer than 107 bytes."""
    here = os.getcwd()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.chdir(run_dir)
    listener.bind("control")
    os.chmod("control", 0o600)
    os.chdir(here)
    listener.listen(16)
    listener.setblocking(False)
    return listener


def serve(shim: Shim, listener: socket.socket) -> NoReturn:
    """The main loop: requests and the ends of children."""
    wake_end, wakeup = os.pipe()
    os.set_blocking(wake_end, False)
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    selector = selectors.DefaultSelector()

    def ended() -> None:
        os.read(wake_end, 512)
        shim.reap()

    def called() -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        received = bytearray()
        selector.register(connection, selectors.EVENT_READ, lambda: heard(connection, received))

    def heard(connection: socket.socket, received: bytearray) -> None:
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        received += data
        if data and b"\n" not in data and len(received) <= MAX_LINE:
            return  # more is to come
        selector.unregister(connection)
        if b"\n" in data:
            obey(shim, connection, bytes(received))
        else:
            connection.close()

    selector.register(wake_end, selectors.EVENT_READ, ended)
    selector.register(listener, selectors.EVENT_READ, called)
    while True:
        for key, _ in selector.select():
            key.data()


def detach_from_agent(run_dir: str) -> None:
    """Nothing of the agent stays open; what Python says when it dies goes to RUN_DIR/shim.log."""
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(run_dir + "/shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target, source in ((0, null), (1, null), (2, log)):
        os.dup2(source, target)


def enter_mounts(tmp: str, shm: str) -> None:
    """The job's own /proc, /tmp and /dev/shm, seen by nobody outside."""
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount(tmp, "/tmp", "none", MS_BIND)
    mount(shm, "/dev/shm", "none", MS_BIND)


def be_pid_1(run_dir: str, tmp: str, shm: str, go: int, ready: int) -> NoReturn:
    """Never returns."""
    os.setsid()
    if os.read(go, 1) != b"g":
        os._exit(1)  # the launcher died before it wrote down who we are: nobody could ever find us
    enter_mounts(tmp, shm)
    listener = listen(run_dir)
    detach_from_agent(run_dir)
    os.write(ready, b"r")
    os.close(ready)
    os.close(go)
    serve(Shim(run_dir), listener)


def main(run_dir: str, tmp: str, shm: str) -> int:
    """The launcher: returns 0 when pid 1 listens."""
    libc_call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID)
    go, start = os.pipe()
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(start)
        os.close(ready)
        try:
            be_pid_1(run_dir, tmp, shm, go, done)
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


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
