"""The nodes of a test and what lives on them: simulated shims with simulated jobs, which survive the agents, as processes do."""

import asyncio
import contextlib
import secrets
import shlex
import signal as signals
import socket
import zlib
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from crds.job import Fencing
from nodeagent.engine import Copy, Exit, Network
from nodeagent.errors import StartFailed

FOREVER = 1e9
CHUNK = 16 * 1024


class Job:
    """A simulated job: its script, how far it is, whether it stands."""

    def __init__(self, steps: list[tuple[str, str]], identity: str, last_pid: int) -> None:
        self.steps = steps
        self.identity = identity
        self.last_pid = last_pid
        self.stopped = False
        self.received: list[int] = []
        """Signals it got, in order."""

    @classmethod
    def of_command(cls, command: list[str]) -> "Job":
        """Parses the script; StartFailed as the shell would have it."""
        if command[0].startswith("/no/"):
            raise StartFailed(f"{command[0]}: no such file or directory", 127)
        if command[0] in ("/etc", "/tmp"):
            raise StartFailed(f"{command[0]}: permission denied", 126)
        script = command[2] if command[0].endswith("sh") and command[1:2] == ["-c"] else shlex.join(command)
        steps = []
        for part in script.split(";"):
            words = [*shlex.split(part), ""]
            steps.append((words[0], words[1]))
        return cls(steps, secrets.token_hex(8), 2)

    def to_data(self) -> dict[str, Any]:
        return {"steps": self.steps, "identity": self.identity, "last_pid": self.last_pid}


class Shim:
    """What is on a simulated node for one copy: a shim, at most one job, at the end an exit."""

    def __init__(self, world: "World", node: str, copy: Copy, network: Network | None = None) -> None:
        self.world, self.node, self.copy, self.network = world, node, copy, network
        self.job: Job | None = None
        self.exit: Exit | None = None
        self.expects = False
        self.policy = Fencing.FREEZE
        self.fenced = False
        self.alive = True
        self.ended = asyncio.Event()
        self.weight = 100
        self.lost = ""
        """Why it died without an exit code, when that is known."""
        self.severed = self.serving = False
        self.stream: asyncio.Task[None] | None = None
        """Memory on its way out or in."""
        self._task: asyncio.Task[None] | None = None
        self._since = 0.0

    @property
    def runs(self) -> bool:
        """Whether instructions of the job are being executed here."""
        return self.alive and self.job is not None and not self.job.stopped and not self.fenced

    def go(self) -> None:
        """Lets the job run."""
        assert self.job is not None
        self.job.stopped = False
        self._set_off()

    def _set_off(self) -> None:
        if not self.runs or self.job is None:
            return
        self._task = asyncio.get_running_loop().create_task(self._run(self.job), name=f"job {self.copy.key} on {self.node}")
        self.world.count(self.copy.uid)

    def stop(self) -> None:
        """Stops the job; its current sleep keeps what is left of it."""
        assert self.job is not None
        self._halt(self.job)
        self.job.stopped = True

    def fence(self) -> bool:
        """The node lost touch with the cluster; False when that changes nothing."""
        if self.fenced or not self.alive or self.policy == Fencing.KEEP or (self.policy == Fencing.KILL and self.job is None):
            return False
        if self.policy == Fencing.KILL:
            self.exit = Exit(128 + signals.SIGKILL, datetime.now(UTC), fenced=True)
            self.world.killed.add(self.copy.uid)
            self.die()
        else:
            if self.job is not None:
                self._halt(self.job)
            self.fenced = True
        return True

    def thaw(self) -> None:
        """Goes on, unless it is stopped."""
        if self.fenced:
            self.fenced = False
            self._set_off()

    def _halt(self, job: Job) -> None:
        if not self.runs:
            return
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if job.steps and job.steps[0][0] == "sleep":
            rest = float(job.steps[0][1]) - (asyncio.get_running_loop().time() - self._since)
            job.steps[0] = ("sleep", str(max(0.0, rest)))

    def end(self, code: int) -> None:
        """The job's first process ends; the shim records it and ends too."""
        if self.alive:
            self.exit = Exit(code, datetime.now(UTC))
            self.world.exits[self.copy.uid].append(code)
            self.die()

    def serve(self, sock: socket.socket, pages: bytes, pause: float) -> None:
        """Hands out the memory, as criu beside a frozen job does: whatever becomes of the agent."""
        self.serving = True
        self.stream = asyncio.get_running_loop().create_task(self._serve(sock, pages, pause), name=f"pages of {self.copy.key}")

    async def _serve(self, sock: socket.socket, pages: bytes, pause: float) -> None:
        loop = asyncio.get_running_loop()
        with sock, contextlib.suppress(OSError):
            await asyncio.sleep(pause)
            await loop.sock_sendall(sock, len(pages).to_bytes(8, "big") + pages)
            await loop.sock_recv(sock, 1)  # it has all

    def fetch(self, sock: socket.socket, crc32: int) -> None:
        """Gets the memory; without it the job dies."""
        self.stream = asyncio.get_running_loop().create_task(self._fetch(sock, crc32), name=f"pages for {self.copy.key}")

    async def _fetch(self, sock: socket.socket, crc32: int) -> None:
        loop, data = asyncio.get_running_loop(), bytearray()
        with sock:
            try:
                while len(data) < 8 or len(data) < 8 + int.from_bytes(data[:8], "big"):
                    if not (piece := await loop.sock_recv(sock, 1 << 16)):
                        raise ConnectionError("the peer closed the connection")
                    data += piece
                assert zlib.crc32(data[8:]) == crc32, "other pages came than were kept back"
                await loop.sock_sendall(sock, b".")
            except OSError as error:
                self.lost = f"a part of its memory never came: {error}"
                self.die()

    def end_stream(self) -> None:
        """Breaks it off."""
        if self.stream is not None and self.stream is not asyncio.current_task():
            self.stream.cancel()

    def die(self) -> None:
        """All processes go at once."""
        self.end_stream()
        self.alive = False
        self.job = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._task = None
        self.ended.set()

    async def _run(self, job: Job) -> None:
        while job.steps:
            word, argument = job.steps[0]
            self._since = asyncio.get_running_loop().time()
            if word == "sleep":
                await asyncio.sleep(float(argument))
            elif word == "kill":
                return self.end(128 - int(argument))
            elif word in ("exit", "true", "false"):
                return self.end(1 if word == "false" else int(argument or 0))
            else:
                await asyncio.sleep(FOREVER)
            job.steps.pop(0)
        return self.end(0)


class World:
    """All simulated nodes. Survives agents."""

    def __init__(self) -> None:
        self.shims: dict[tuple[str, Copy], Shim] = {}
        self.starts: dict[str, int] = defaultdict(int)
        """How often a job was started, by uid; going on after a move is no start."""
        self.begun: dict[Copy, int] = defaultdict(int)
        """The same by copy: each life of a job has one of its own."""
        self.killed: set[str] = set()
        """uids of jobs of which a copy was killed by fencing."""
        self.exits: dict[str, list[int]] = defaultdict(list)
        """How its copies ended by themselves, by uid."""
        self._most: dict[str, int] = defaultdict(int)

    def running(self, uid: str) -> list[str]:
        """Nodes on which an unfrozen copy of the job lives now."""
        return [shim.node for shim in self.shims.values() if shim.copy.uid == uid and shim.runs]

    def copies(self, uid: str) -> list[Shim]:
        """All living copies, frozen ones too."""
        return [shim for shim in self.shims.values() if shim.copy.uid == uid and shim.alive and shim.job is not None]

    def heard(self, copy: Copy) -> bool:
        """Whether the copy answers in a network of its own."""
        return any(shim.runs and shim.network is not None for shim in self.copies(copy.uid) if shim.copy == copy)

    def most_running(self, uid: str) -> int:
        """How many unfrozen copies ever lived at once."""
        return self._most[uid]

    def count(self, uid: str) -> None:
        """Called whenever a copy begins to run."""
        self._most[uid] = max(self._most[uid], len(self.running(uid)))

    def end(self, uid: str, code: int = 0) -> None:
        """Ends the running copy of the job with that exit code."""
        shims = [shim for shim in self.shims.values() if shim.copy.uid == uid and shim.runs]
        assert len(shims) == 1, f"{len(shims)} copies of {uid} run"
        shims[0].end(code)

    def fence(self, node: str) -> list[str]:
        """What a guard does when the node's lease has run out."""
        return [copy.key for (where, copy), shim in list(self.shims.items()) if where == node and shim.fence()]

    def reboot(self, node: str) -> None:
        """The machine goes down: all its processes and records are gone."""
        for key in [key for key in self.shims if key[0] == node]:
            self.shims.pop(key).die()
