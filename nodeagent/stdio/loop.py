"""The system calls around a session: one poll over the command, the log, the listening socket and all connections."""

# ruff: noqa: PTH108
# importing pathlib takes as long as all the rest

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time

from nodeagent.stdio import frames
from nodeagent.stdio.frames import BadFrame
from nodeagent.stdio.program import Command, kill_descendants
from nodeagent.stdio.session import Connection, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nodeagent.stdio.program import Order

BLOCK = 1 << 16
LOG = 1
DRAIN_SECONDS = 5.0
"""For the output of a command that has ended; only something that cannot be killed makes it last."""
SURELY_EMPTY, ON_ITS_WAY = 3, 0.001
"""So many looks, so many seconds between them."""
HUNG_UP = 0.05
"""Seconds between two looks at a terminal that nobody has open."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Loop:
    """Runs until the command has ended and its clients have all."""

    def __init__(self, order: Order) -> None:
        self._wake, wakeup = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, *PASSED_ON):
            signal.signal(number, lambda number, frame: None)
        self._path: str = order["socket"]
        self._listener = listen(self._path)
        self._own: bool = order["own"]
        self._command = Command(order)
        self._session = Session(self._command, os.urandom(16), time.monotonic(), hold=order["hold"])
        self._connections: dict[int, tuple[socket.socket, Connection]] = {}
        self._unlogged = 0
        self._status: int | None = None
        self._drain_until = 0.0
        self._paused_until: float | None = None

    def run(self) -> int:
        """The exit code."""
        while not self._session.finished(time.monotonic()):
            for descriptor, events in self._wait():
                self._handle(descriptor, events)
            self._look_at_end()
            self._look_at_pause()
            self._write_all()
        if self._own:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        return self._session.code or 0

    # --- what there is to wait for ---

    def _wait(self) -> list[tuple[int, int]]:
        poll, now = select.poll(), time.monotonic()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        for descriptor, stream in self._command.outputs.items():
            if self._session.room(stream, now):
                poll.register(descriptor, select.POLLIN)
        if self._command.stdin != -1 and self._session.input():
            also = select.POLLIN if self._command.stdin in self._command.outputs and self._session.room(1, now) else 0
            poll.register(self._command.stdin, select.POLLOUT | also)
        for descriptor, (_, connection) in self._connections.items():
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if connection.outgoing else 0))
        return poll.poll(self._timeout(now))

    def _timeout(self, now: float) -> float | None:
        """Milliseconds until time itself changes something: output flows again, or nothing is waited for any more."""
        until = self._session.deadline(now)
        if self._status is not None and self._session.code is None:
            until = min(until or self._drain_until, self._drain_until)
        if self._paused_until is not None:
            until = min(until or self._paused_until, self._paused_until)
        return None if until is None else max(1.0, 1000 * (until - now))

    def _handle(self, descriptor: int, events: int) -> None:
        if descriptor == self._wake:
            self._woken(os.read(self._wake, 512))
        elif descriptor == self._listener.fileno():
            self._accept()
        elif descriptor in self._connections:
            self._hear(descriptor)
        else:
            if events & select.POLLOUT or (descriptor == self._command.stdin and events & select.POLLERR):
                self._feed()
            if descriptor in self._command.outputs and events & ~select.POLLOUT:
                self._read(descriptor)

    # --- the command ---

    def _read(self, descriptor: int, *, always: bool = False) -> bool:
        """True when there was something."""
        stream = self._command.outputs[descriptor]
        room = BLOCK if always else self._session.room(stream, time.monotonic())
        try:
            data = os.read(descriptor, min(BLOCK, room)) if room else None
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that nobody has open any more
                raise
            data = b""
        if data:
            self._log(data)
            self._session.printed(stream, data)
        elif data is not None and (not self._command.tty or self._status is not None):
            self._command.close_output(descriptor)
        elif data is not None:
            time.sleep(HUNG_UP)  # nobody has the terminal open, but the command lives and may open it again
        return bool(data)

    def _log(self, data: bytes) -> None:
        """A disk that is full must not cost the session; what is missing is said when there is room again."""
        if self._unlogged:
            note = f"\n[mx: {self._unlogged} bytes of output could not be written here]\n".encode()
            data, missing = note + data, len(data)
        else:
            missing = len(data)
        try:
            while data:
                count = os.write(LOG, data)
                data = data[count:]
                missing = min(missing, len(data))
            self._unlogged = 0
        except OSError:
            self._unlogged += missing

    def _feed(self) -> None:
        try:
            data = self._session.input()
            count = os.write(self._command.stdin, data)
            self._command.typed(data[:count])
            self._session.took(count)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self._command.close_input()  # the command reads no more

    def _woken(self, numbers: bytes) -> None:
        for number in numbers:
            if number != signal.SIGCHLD:
                self._command.terminate(number)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._command.pid:
                self._status = status
                self._drain_until = time.monotonic() + DRAIN_SECONDS
                kill_descendants()

    def _look_at_end(self) -> None:
        """The input's end, and the command's when all it wrote was read."""
        session, command = self._session, self._command
        if command.stdin == -1:
            while data := session.input():
                session.took(len(data))  # nobody will ever read it
        elif session.input_ended and not session.input():
            command.close_input()
        now = time.monotonic()
        if any(session.room(stream, now) == 0 for stream in command.outputs.values()):
            self._drain_until = now + DRAIN_SECONDS  # it is us who do not read
        if self._status is not None and session.code is None and (not command.outputs or now > self._drain_until):
            code = os.waitstatus_to_exitcode(self._status)
            session.ended(code if code >= 0 else 128 - code)
        if self._own and session.code is None and not session.waited_for(now):
            command.signal(signal.SIGHUP)  # its person went away
            command.signal(signal.SIGCONT)
            kill_descendants()

    # --- freezes ---

    def _look_at_pause(self) -> None:
        if self._session.pause_wanted:
            self._session.pause_wanted = False
            self._command.pause()
            self._paused_until = time.monotonic() + frames.PAUSE_SECONDS
            empty = 0
            while empty < SURELY_EMPTY and self._command.tty:  # what was written last may still be on its way through the kernel
                found = [self._read(descriptor, always=True) for descriptor in list(self._command.outputs)]
                empty = 0 if any(found) else empty + 1
                time.sleep(ON_ITS_WAY)
        elif self._paused_until is not None and time.monotonic() > self._paused_until:
            self._go_on()

    def _go_on(self) -> None:
        self._paused_until = None
        self._command.go_on()

    # --- connections ---

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # it has hung up already, or we have too many files
        sock.setblocking(False)
        if self._paused_until is not None:
            self._go_on()
        self._connections[sock.fileno()] = (sock, Connection())

    def _hear(self, descriptor: int) -> None:
        sock, connection = self._connections[descriptor]
        try:
            data = sock.recv(BLOCK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        with contextlib.suppress(BadFrame):  # the other end says that it speaks something else
            if data:
                self._session.receive(connection, data)
                return
        self._drop(descriptor)

    def _write_all(self) -> None:
        for descriptor, (sock, connection) in list(self._connections.items()):
            self._session.fill(connection)
            while connection.outgoing and not connection.closed:
                try:
                    del connection.outgoing[: sock.send(connection.outgoing)]
                except BlockingIOError:
                    break
                except OSError:
                    connection.closed = True
                self._session.fill(connection)
            if connection.closed:
                self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        sock, connection = self._connections.pop(descriptor)
        self._session.lost(connection, time.monotonic())
        sock.close()


def listen(path: str) -> socket.socket:
    """Listens there; only who may search its directory comes in."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener.bind(path)
    listener.listen(64)
    listener.setblocking(False)
    return listener
