"""A person at a terminal: mxctl on a pty, with a window, typing and reading."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence

PATIENCE = 60.0


class Person:
    """Starts the command on a terminal of its own. Everything it showed is in ``seen``."""

    def __init__(self, command: Sequence[str], env: dict[str, str], rows: int = 40, columns: int = 120) -> None:
        self.master, slave = pty.openpty()
        self._size(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True, preexec_fn=_own_terminal
        )
        self.slave = slave
        self.seen = b""

    def _size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        """The window gets another size; the kernel tells mxctl."""
        self._size(rows, columns)

    def types(self, text: str | bytes) -> None:
        """Presses keys."""
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def sees(self, words: str | bytes, after: int = 0, patience: float = PATIENCE) -> int:
        """Waits until they are on the screen; where they end."""
        wanted = words.encode() if isinstance(words, str) else words
        end = time.monotonic() + patience
        while (at := self.seen.find(wanted, after)) < 0:
            assert time.monotonic() < end, f"{wanted!r} was never seen, only {self.seen[after:][-600:]!r}"
            self.looks(0.2)
        return at + len(wanted)

    def looks(self, seconds: float) -> bool:
        """At what comes next, if it comes within that time."""
        if select.select([self.master], [], [], seconds)[0]:
            self.seen += os.read(self.master, 1 << 16)
            return True
        return False

    def ends(self, patience: float = PATIENCE) -> int:
        """Waits for the command's end; its exit code. The terminal must be as it was before."""
        end = time.monotonic() + patience
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end: {self.seen[-600:]!r}"
            self.looks(0.05)
        while self.looks(0.0):
            pass
        assert termios.tcgetattr(self.slave) == self.before, "the terminal was left changed"
        self.close()
        return self.process.returncode

    def close(self) -> None:
        """Ends it if it has not ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for descriptor in (self.master, self.slave):
            try:
                os.close(descriptor)
            except OSError:
                continue  # it was closed before


def _own_terminal() -> None:
    """In the child: the pty is its controlling terminal, as of a shell, so that it hears of resizing."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
