"""The agent's side of a shim: starting it, knowing it again after a restart, talking to it.

A shim is known by PID *and* start time, so that another process that got its PID is never mistaken for it; what waits for its
end, and what kills it, goes through a pidfd for the same reason.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent import criu
from nodeagent.errors import EngineFailed, SandboxGone

PROGRAMS = {"mx-shim": "nodeagent.shim", "mx-stdio": "nodeagent.stdio", "mx-relay": "nodeagent.relay"}
INSTALLED = Path("/usr/bin")
PROJECT = str(Path(__file__).parent.parent)
START_SECONDS = 30.0
ANSWER_SECONDS = 10.0
"""For a small request; it takes less than a millisecond unless the machine is drowning."""
DEATH_SECONDS = 10.0
"""From SIGKILL until the kernel has ended all processes of the namespace."""
LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """PID as we see it, and start in clock ticks since boot."""

    pid: int
    start: int

    def lives(self) -> bool:
        """Whether it is that process, and not a zombie."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return int(fields[19]) == self.start and fields[0] not in (b"Z", b"X")


def read_identity(run_dir: Path) -> Identity | None:
    """What the launcher wrote down; None when it did not come so far, then there is no shim."""
    try:
        data = json.loads((run_dir / "shim.json").read_text())
    except FileNotFoundError:
        return None
    return Identity(data["pid"], data["start"])


def program(run: Path, name: str = "mx-shim") -> list[str]:
    """How a shim is started. Its command line must not say nodeagent: people kill daemons by name, jobs have to survive that."""
    if (INSTALLED / name).exists():
        return [str(INSTALLED / name)]
    script = run / f"{name}.py"
    if not script.exists():
        run.mkdir(parents=True, exist_ok=True)
        fresh = run / f".{name}-{os.getpid()}"
        fresh.write_text(
            f"import runpy, sys\nsys.path[:0] = [{PROJECT!r}]\nrunpy.run_module({PROGRAMS[name]!r}, run_name='__main__')\n"
        )
        fresh.replace(script)
    return [sys.executable, "-ISE", str(script)]


async def launch(run: Path, run_dir: Path, tmp: Path, shm: Path, network: Sequence[str] = ()) -> Identity:
    """Starts a shim; it listens when this returns. EngineFailed with what it said otherwise. ``network``: see ``shim.launch``."""
    process = await asyncio.create_subprocess_exec(
        *program(run),
        str(run_dir),
        str(tmp),
        str(shm),
        *network,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": criu.PATH, "HOME": "/"},
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            _, said = await process.communicate()
    except TimeoutError:
        raise EngineFailed(f"shim: did not start within {START_SECONDS} s; see {run_dir}/shim.log") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    identity = read_identity(run_dir)
    if process.returncode != 0 or identity is None:
        lines = said.decode(errors="replace").strip().splitlines()
        raise EngineFailed(f"shim: could not make its namespaces: {lines[-1] if lines else 'it said nothing'}")
    return identity


class ShimLink:
    """A living (or dead) shim."""

    def __init__(self, run_dir: Path, identity: Identity | None, name: str) -> None:
        self.run_dir = run_dir
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._pidfd = -1
        if identity is not None:
            self._watch(identity)
        if self._pidfd == -1:
            self._gone.set_result(None)

    def _watch(self, identity: Identity) -> None:
        try:
            pidfd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return
        if not identity.lives():  # looked at after the descriptor was opened, so it is about that very process
            os.close(pidfd)
            return
        self._pidfd = pidfd
        self._loop.add_reader(pidfd, self._ended)

    def _ended(self) -> None:
        self.release()
        self._gone.set_result(None)

    def release(self) -> None:
        """Stops watching."""
        if self._pidfd != -1:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return not self._gone.done()

    async def wait(self) -> None:
        """Returns when it has ended; then no process of its namespace is left."""
        await asyncio.shield(self._gone)

    def strike(self) -> None:
        """SIGKILL to it; it executes nothing any more, though it may take a while until all is gone."""
        if self._pidfd != -1:
            with contextlib.suppress(ProcessLookupError):  # it has just been reaped; the reader tells
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def kill(self) -> None:
        """SIGKILL to it and by that to all its namespace; returns when all is gone. EngineFailed when something hangs."""
        if self._pidfd != -1:
            self.strike()
            try:
                async with asyncio.timeout(DEATH_SECONDS):
                    await self.wait()
            except TimeoutError:
                raise EngineFailed(f"{self.name}: processes hang in the kernel {DEATH_SECONDS} s after SIGKILL") from None

    async def ask(
        self, verb: str, timeout: float | None = ANSWER_SECONDS, *, wire: int | None = None, **fields: Any
    ) -> dict[str, Any]:
        """One request. SandboxGone when it is dead or dies meanwhile, TimeoutError, EngineFailed when it refuses.

        ``wire`` is a descriptor that goes with it."""
        answer = await self.ask_raw(verb, timeout, wire=wire, **fields)
        if not answer["ok"]:
            raise EngineFailed(f"{self.name}: {answer['error']}")
        return answer

    async def ask_raw(
        self, verb: str, timeout: float | None = ANSWER_SECONDS, *, wire: int | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Like ``ask``, but a refusal is an answer too."""
        async with asyncio.timeout(timeout):
            try:
                line = await self._exchange(json.dumps({"do": verb, **fields}).encode() + b"\n", wire)
            except (FileNotFoundError, ConnectionError):
                line = b""
        if not line.endswith(b"\n"):
            raise SandboxGone(f"{self.name}: its shim does not live any more")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _exchange(self, request: bytes, wire: int | None = None) -> bytes:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        directory = os.open(self.run_dir, os.O_PATH | os.O_DIRECTORY)
        try:  # by way of the descriptor: a socket's own path may not be longer than 107 bytes
            await self._loop.sock_connect(sock, f"/proc/self/fd/{directory}/control")
            if wire is not None:
                socket.send_fds(sock, [request[:1]], [wire])  # fits: the connection is new
                request = request[1:]
            reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LINE)
        except BaseException:
            sock.close()
            raise
        finally:
            os.close(directory)
        try:
            writer.write(request)
            return await reader.readline()
        finally:
            writer.close()
