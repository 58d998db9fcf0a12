"""The person's end: a terminal in raw mode, the keys that detach from a job, standard input and output without blocking."""

import asyncio
import fcntl
import os
import select
import struct
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mxctl.core.failures import Failure

T = TypeVar("T")

STDIN, STDOUT = 0, 1
BLOCK = 1 << 16
DETACH_KEYS = "ctrl-p,ctrl-q"


@contextmanager
def raw(active: bool = True) -> Iterator[None]:
    """Every key goes to the job, Ctrl-C too. The terminal is put back whatever happens."""
    if not active:
        yield
        return
    before = termios.tcgetattr(STDIN)
    try:
        tty.setraw(STDIN, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


def window() -> tuple[int, int]:
    """Rows and columns of the terminal we run in; (0, 0) when there is none."""
    for descriptor in (STDIN, STDOUT):
        if os.isatty(descriptor):
            rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))
            return rows, columns
    return 0, 0


def parse_keys(text: str) -> bytes:
    """The bytes of "ctrl-p,ctrl-q"; empty for no keys at all. Raises Failure."""
    found = bytearray()
    for word in filter(None, text.split(",")):
        key = word.removeprefix("ctrl-")
        if len(key) != 1 or not key.isascii() or (key != word and not "@" <= key.upper() <= "_"):
            raise Failure(f'--detach-keys: "{word}" is no key; write e.g. ctrl-p,ctrl-q or ctrl-] or ctrl-a,d')
        found.append(ord(key) if key == word else ord(key.upper()) & 0x1F)
    return bytes(found)


class DetachKeys:
    """Looks for the keys in what is typed; what turns out to be something else goes to the job late, but whole."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What goes to the job, and whether the keys were pressed; what follows them is dropped then."""
        if not self._keys:
            return typed, False
        data = self._held + typed
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        kept = next(size for size in range(len(self._keys) - 1, -1, -1) if data.endswith(self._keys[:size]))
        self._held = data[len(data) - kept :]
        return data[: len(data) - kept], False


async def in_daemon(work: Callable[[], T]) -> T:
    """In a thread that nobody waits for at the end: what it waits for may never come."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if not future.done():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except OSError as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="terminal", daemon=True).start()
    return await future


class Keyboard:
    """Standard input, whatever it is: a terminal, a pipe, a file."""

    def __enter__(self) -> "Keyboard":
        self._wake, self._wakeup = os.pipe()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._wakeup)  # a thread that waits ends, and takes no key from whoever reads next

    async def read(self, most: int) -> bytes:
        """What there is, as soon as there is something; b"" at its end."""
        return await in_daemon(lambda: self._read(most))

    def _read(self, most: int) -> bytes:
        poll = select.poll()
        poll.register(STDIN, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll()]
        return b"" if self._wake in ready else os.read(STDIN, min(most, BLOCK))


async def show(descriptor: int, data: bytes) -> None:
    """Writes all of it. Raises OSError, BrokenPipeError when nobody reads it any more."""

    def write() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    await in_daemon(write)


def say(text: str) -> None:
    """A line of ours on stderr, on a terminal in raw mode too."""
    end = "\r\n" if os.isatty(2) else "\n"
    sys.stderr.write(text + end)
    sys.stderr.flush()
