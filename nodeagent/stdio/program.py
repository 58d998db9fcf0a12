"""The command: its terminal or its pipes, its start, its end.

What is to be run is an Order, as JSON: {command, env, tty, stdin, hold, socket, rows, columns, own}.
``tty``: a pty, otherwise pipes. ``stdin``: clients write to it. ``hold``: output waits for the first client.
``socket``: where to listen. ``own``: it is a session beside the job (mxctl exec), which ends when its client stays away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Order = dict[str, Any]

PROBLEM = 3
"""The descriptor on which whoever started us wants to read why the command cannot be started; it closes when it runs."""
LINE_ENDS = (termios.VEOF, termios.VEOL, termios.VINTR, termios.VQUIT, termios.VSUSP)
"""Characters after which nothing of the line is left in the terminal, beside the obvious."""
IUTF8 = 0o40000
"""Of asm-generic/termbits.h: so that erasing a character erases all its bytes. Python has no name for it."""


class Command:
    """The running command. ``outputs`` maps descriptors to streams; ``stdin`` is -1 when there is none (any more)."""

    def __init__(self, order: Order) -> None:
        self.tty: bool = order["tty"]
        self.rows, self.columns = order["rows"], order["columns"]
        self._line = b""
        self._paused_on = (0, 0)
        self.outputs: dict[int, int] = {}
        self.stdin = -1
        self._ends = self._open_pty() if self.tty else self._open_pipes()
        if not order["stdin"]:
            if not self.tty:
                self.close_input()
            self.stdin = -1
        self.pid = self._start(order)

    def _open_pty(self) -> tuple[int, int, int]:
        master, slave = os.openpty()
        self._terminal = os.ttyname(slave)
        attributes = termios.tcgetattr(slave)
        attributes[0] |= IUTF8
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        os.set_blocking(master, False)
        self.outputs[master] = 1
        self.stdin = self._master = master
        self.resize(self.rows, self.columns)
        return slave, slave, slave

    def _open_pipes(self) -> tuple[int, int, int]:
        theirs, self.stdin = os.pipe()
        os.set_blocking(self.stdin, False)
        ends = [theirs]
        for stream in (1, 2):
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            self.outputs[reading] = stream
            ends.append(writing)
        return ends[0], ends[1], ends[2]

    def _start(self, order: Order) -> int:
        pid = os.fork()
        if pid == 0:
            self._become(order["command"], order["env"])
        for descriptor in {*self._ends, PROBLEM}:
            os.close(descriptor)
        return pid

    def _become(self, command: list[str], env: dict[str, str]) -> NoReturn:
        """In the child: never returns."""
        try:
            os.setsid()
            if self.tty:
                fcntl.ioctl(self._ends[0], termios.TIOCSCTTY, 0)
            for target, source in enumerate(self._ends):
                os.dup2(source, target)
            os.set_inheritable(PROBLEM, False)
            os.closerange(PROBLEM + 1, 65536)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
                signal.signal(number, signal.SIG_DFL)
            os.execvpe(command[0], command, env)
        except OSError as error:
            code = 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126
            os.write(PROBLEM, f"{code} {command[0]}: {os.strerror(error.errno or 0)}".encode())
        except ValueError as error:
            os.write(PROBLEM, f"126 {command[0]}: {error}".encode())
        finally:
            os._exit(127)

    # --- before a freeze, and after it ---

    def pause(self) -> None:
        """A terminal takes no more output: whoever writes waits.

        criu would give what lies between terminal and us to the terminal once more, which would make two ends of every line's.
        """
        if self.tty:
            self._paused_on = self._device()
            self._flow(termios.TCOOFF)

    def go_on(self) -> None:
        """It does again. A terminal on another node gets the line that was being typed, which criu cannot see: without echo."""
        if self.tty:
            self._flow(termios.TCOON)
            if self.outputs and self._device() != self._paused_on:
                self._type_again()

    def typed(self, data: bytes) -> None:
        """This was given to the command. What the terminal keeps until the line ends is remembered."""
        if self.tty:
            attributes = termios.tcgetattr(self._master)
            characters = attributes[6]
            ends = b"\r\n" + b"".join(characters[each] for each in LINE_ENDS if characters[each] != b"\0")
            line = self._line + data
            self._line = line[max(line.rfind(bytes([end])) for end in ends) + 1 :] if attributes[3] & termios.ICANON else b""

    def _type_again(self) -> None:
        attributes = termios.tcgetattr(self._master)
        if self._line and attributes[3] & termios.ICANON:
            silent = [*attributes[:3], attributes[3] & ~(termios.ECHO | termios.ECHONL), *attributes[4:]]
            termios.tcsetattr(self._master, termios.TCSANOW, silent)
            with contextlib.suppress(BlockingIOError):  # then more was typed than any line can hold
                os.write(self._master, self._line)
                self._settle()
            termios.tcsetattr(self._master, termios.TCSANOW, attributes)

    def _settle(self) -> None:
        """Until the terminal has looked at what was typed: the kernel does that later, but a poll makes it do so at once."""
        terminal = os.open(self._terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            looking = select.poll()
            looking.register(terminal, select.POLLIN)
            looking.poll(0)
        finally:
            os.close(terminal)

    def _device(self) -> tuple[int, int]:
        """Another one after a move."""
        found = os.stat(self._terminal)  # noqa: PTH116 - importing pathlib takes as long as all the rest
        return found.st_dev, found.st_ctime_ns

    def _flow(self, action: int) -> None:
        if self.tty and self.outputs:
            with contextlib.suppress(OSError):  # nobody has it open any more
                terminal = os.open(self._terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
                try:
                    termios.tcflow(terminal, action)
                finally:
                    os.close(terminal)

    # --- what clients want ---

    def resize(self, rows: int, columns: int) -> None:
        """The window's size; the kernel sends SIGWINCH if it is another."""
        if self.tty and rows and columns and self.outputs:
            self.rows, self.columns = rows, columns
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def redraw(self) -> None:
        """Makes full-screen programs and shells draw anew for a client that saw nothing of it yet."""
        rows, columns = self.rows, self.columns
        self.resize(rows + 1, columns)
        self.resize(rows, columns)

    def signal(self, number: int) -> None:
        """To the command and what belongs to it."""
        if number in signal.valid_signals():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def terminate(self, number: int) -> None:
        """Somebody wants us to end: the same for the command. Shells on a terminal take no notice of SIGTERM, but of hanging up."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            if self.tty and number == signal.SIGTERM:
                os.kill(self.pid, signal.SIGHUP)
                os.kill(self.pid, signal.SIGCONT)

    def close_input(self) -> None:
        """The command reads the end of its input. A terminal has none."""
        if self.stdin != -1 and not self.tty:
            os.close(self.stdin)
        self.stdin = -1

    def close_output(self, descriptor: int) -> None:
        """Nothing more will come from it."""
        del self.outputs[descriptor]
        if descriptor == self.stdin:
            self.stdin = -1
        os.close(descriptor)


def kill_descendants() -> None:
    """SIGKILL to all that is below us, so that nobody writes to the terminal or the pipes any more. We are a subreaper."""
    for _ in range(100):  # what forks faster than this ends with the sandbox
        found = list(_descendants(os.getpid()))
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - importing pathlib takes as long as all the rest
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:  # noqa: PTH123
                children += [int(word) for word in file.read().split()]
    return [*children, *(below for child in children for below in _descendants(child))]
