"""criu as a child of the shim: it dies with the shim, not with the agent."""

# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import fcntl
import json
import os
import signal
import socket

from nodeagent.shim.answers import Refused
from nodeagent.shim.kernel import enter_groups
from nodeagent.shim.program import reset_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

HIGH = 64
"""Above all numbers that descriptors are given, and far below the limit of open files, which is 1024 on machines of their own."""
STARTER_SECONDS = 5.0
"""For a fork; it is a millisecond unless the machine is drowning."""


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


def become_criu(run_dir: str, argv: list[str], descriptors: Iterable[int] = (), output: str = "criu.out") -> NoReturn:
    """In the child: never returns. What criu says before it has opened its log goes to RUN_DIR/``output``.

    It has the ``descriptors`` as 3, 4, …
    """
    try:
        os.setsid()
        reset_signals()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that abort makes writes fail instead of killing it
        said = os.open(f"{run_dir}/{output}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        kept = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGH) for descriptor in descriptors]  # out of the way of each other
        os.closerange(3, HIGH)
        for number, descriptor in enumerate(kept, 3):
            os.dup2(descriptor, number)
        os.closerange(3 + len(kept), 65536)
        os.execvp(argv[0], argv)
    finally:
        os._exit(127)
