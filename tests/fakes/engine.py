"""An ``Engine`` without root: simulated jobs on simulated nodes, with knobs.

One ``World`` holds all nodes of a test; what lives in it survives the agents, as processes do. Each agent gets a ``FakeEngine`` of
its own on one node; a second ``FakeEngine`` of the same node is the restarted agent and adopts what is there.

    world = World()
    engine = FakeEngine(world, "n1")
    engine.knobs.delay["restore"] = 0.5             # seconds before the operation takes effect
    engine.knobs.errors["dump"].append(EngineFailed("…"))     # the next dump raises it, having changed nothing
    engine.knobs.crash_at.add("dump.after")         # the agent dies there: AgentCrashed, and every later call of this engine too
    world.most_running(uid) <= 1                    # never did two copies run at once

Operations: create, start, dump, restore, resume, kill, adopt, forget, signal. Points: "<op>" (before), "<op>.after", "dump.half".

A job runs a tiny script taken from its command: ``sleep S``, ``exit N``, ``kill -SIG``, joined by ';' (also as ``sh -c "…"``).
Time stands still for a stopped job. ``true``/``false`` do what they say; a program called ``/no/…`` does not exist; all else runs
until a signal ends it. ``World.end`` ends any job from outside.
"""

import asyncio
import json
import signal as signals
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crds.job import Fencing, JobSpec
from crds.network import FEATURE
from crds.report import Obstacle
from nodeagent.attachment import Attachment
from nodeagent.engine import Copy, Exit, Network, PageWire, Usage
from nodeagent.errors import EngineFailed, SandboxGone
from tests.fakes.world import CHUNK, Job, Shim, World


class AgentCrashed(BaseException):
    """The agent "died" here. A BaseException, so that no handler of the agent's tidies up what a dead agent could not."""


@dataclass
class Knobs:
    """How the fake misbehaves; all by operation name."""

    delay: dict[str, float] = field(default_factory=dict)
    """Seconds an operation takes."""
    errors: dict[str, list[Exception]] = field(default_factory=lambda: defaultdict(list))
    """Raised by the next calls, one each; the operation then has no effect."""
    crash_at: set[str] = field(default_factory=set)
    """Points at which the agent dies."""
    image_bytes: int = 64 * 1024
    """Size of the pages image; written in pieces while ``delay["dump"]`` passes."""
    obstacles: dict[str, list[Obstacle]] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    """That each copy has used."""
    """What keeps jobs from being moved, by "<namespace>/<name>"."""
    files: dict[str, list[str]] = field(default_factory=dict)
    """What jobs have mapped, by "<namespace>/<name>"."""
    written: list[int] = field(default_factory=list)
    """Bytes that the job writes between two rounds of pre-copy; all of its memory when none are left."""
    features: list[str] = field(default_factory=lambda: ["post-copy", FEATURE])
    """What the node is able to."""
    calls: list[str] = field(default_factory=list)
    """What was called, in order: "<op> <namespace>/<name>@<epoch>"."""
    hook: Callable[[str], None] | None = None
    """Called at every point; may raise AgentCrashed."""


class FakeEngine:
    """Engine of one node of the world."""

    def __init__(self, world: World, node: str, knobs: Knobs | None = None) -> None:
        self.world, self.node = world, node
        self.knobs = knobs or Knobs()
        self.crashed = False
        self.fences = True

    async def fence(self) -> list[str]:
        self.point("fence")
        return self.world.fence(self.node)

    async def at(self, operation: str, copy: Copy, *, wait: bool = True) -> None:
        """Everything the knobs do before an operation takes effect."""
        self.point("")
        self.knobs.calls.append(f"{operation} {copy.key}@{copy.epoch}")
        self.point(operation)
        if wait:
            await asyncio.sleep(self.knobs.delay.get(operation, 0.0))
        if self.knobs.errors[operation]:
            raise self.knobs.errors[operation].pop(0)

    def point(self, name: str) -> None:
        """Dies if the knobs say so, or if it is dead."""
        self.crashed = self.crashed or name in self.knobs.crash_at
        if self.crashed:
            raise AgentCrashed(f"agent of {self.node} died at {name or 'an earlier point'}")
        if self.knobs.hook is not None and name:
            self.knobs.hook(name)

    async def version(self) -> str:
        if self.knobs.errors["version"]:
            raise self.knobs.errors["version"].pop(0)
        return "fake"

    async def features(self) -> list[str]:
        return list(self.knobs.features)

    async def create(self, copy: Copy, network: Network | None = None) -> "FakeSandbox":
        await self.at("create", copy)
        old = self.world.shims.pop((self.node, copy), None)
        if old is not None:
            old.die()
        self.world.shims[self.node, copy] = Shim(self.world, self.node, copy, network)
        self.point("create.after")
        return FakeSandbox(self, copy)

    async def adopt(self, copy: Copy) -> "FakeSandbox | None":
        await self.at("adopt", copy)
        shim = self.world.shims.get((self.node, copy))
        return FakeSandbox(self, copy) if shim is not None and (shim.alive or shim.exit is not None) else None

    async def leftovers(self) -> list[Copy]:
        self.point("leftovers")
        return [copy for node, copy in self.world.shims if node == self.node]

    async def forget(self, copy: Copy) -> None:
        await self.at("forget", copy)
        shim = self.world.shims.pop((self.node, copy), None)
        if shim is not None:
            shim.die()
        self.point("forget.after")


class FakeSandbox:
    """Sandbox of one copy on one node of the world."""

    def __init__(self, engine: FakeEngine, copy: Copy) -> None:
        self.copy = copy
        self._engine = engine
        self._shim = engine.world.shims[engine.node, copy]

    def _alive(self) -> Shim:
        if not self._shim.alive:
            raise SandboxGone(f"{self.copy.key}: its shim does not live any more")
        return self._shim

    def _job(self, to: str) -> Job:
        job = self._alive().job
        if job is None:
            raise EngineFailed(f"{self.copy.key}: nothing to {to}, no job was started in this sandbox")
        return job

    def _empty(self) -> Shim:
        shim = self._alive()
        if shim.job is not None:
            raise EngineFailed(f"{self.copy.key}: the sandbox has a job already")
        return shim

    async def start(self, spec: JobSpec, env: dict[str, str]) -> None:
        await self._engine.at("start", self.copy)
        shim = self._empty()
        shim.job = Job.of_command(spec.command)
        self._engine.world.starts[self.copy.uid] += 1
        self._engine.world.begun[self.copy] += 1
        shim.go()
        self._engine.point("start.after")

    async def pre_dump(self, images: Path, parent: str | None, *, deadline: float) -> None:
        await self._engine.at("pre_dump", self.copy)
        job = self._job("pre-dump")
        if job.stopped:
            raise EngineFailed(f"{self.copy.key}: is stopped already")
        sizes = self._engine.knobs.written
        self._write_ahead(images, parent, sizes.pop(0) if parent and sizes else self._engine.knobs.image_bytes)
        self._engine.point("pre_dump.after")

    def _write_ahead(self, images: Path, parent: str | None, size: int) -> None:
        try:
            (images / "pages-1.img").write_bytes(b"p" * size)
            (images / "inventory.img").write_text("fake")
            if parent is not None:
                (images / "parent").symlink_to(parent)
        except OSError as error:
            raise EngineFailed(f"{self.copy.key}: cannot write images: {error}") from error

    async def copy_ahead(self, file: Path, most: int) -> None:
        job = self._job("copied")
        await self._engine.at("copy_ahead", self.copy)
        file.write_bytes(self._pages(job)[:most])

    async def dump(self, images: Path, *, deadline: float, parent: str | None = None) -> None:
        await self._dump("dump", images, deadline)
        if parent is not None:
            (images / "parent").symlink_to(parent)
            core = json.loads((images / "core-1.img").read_bytes())
            (images / "core-1.img").write_text(json.dumps({**core, "parent": parent}))

    async def serve(self, images: Path, wire: PageWire, *, deadline: float) -> None:
        await self._dump("serve", images, deadline)
        sock = wire.sock.dup()
        sock.setblocking(False)
        self._shim.serve(sock, self._pages(self._job("serve")), self._engine.knobs.delay.get("pages", 0.0))
        self._engine.point("serve.after")

    async def sever(self) -> None:
        await self._engine.at("sever", self.copy)
        shim = self._alive()
        if not shim.severed and (shim.job is None or not shim.job.stopped):
            raise EngineFailed(f"{self.copy.key}: is not frozen")
        shim.severed, shim.job = True, None
        self._engine.point("sever.after")

    async def streamed(self) -> None:
        self._engine.point("streamed")
        stream = self._alive().stream
        if stream is not None:
            ended = asyncio.ensure_future(self._shim.ended.wait())
            waiting: set[asyncio.Future[Any]] = {stream, ended}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
        self._engine.point("streamed.after")
        self._alive()

    async def _dump(self, operation: str, images: Path, deadline: float) -> None:
        await self._engine.at(operation, self.copy, wait=False)
        job, shim = self._job("dump"), self._shim
        if job.stopped:
            raise EngineFailed(f"{self.copy.key}: is stopped already")
        shim.stop()
        try:
            async with asyncio.timeout(deadline):
                await self._write(images, job, operation)
                await self._unfenced()
        except TimeoutError:
            shim.go()
            raise EngineFailed(f"{self.copy.key}: dump took longer than {deadline} s") from None
        except OSError as error:
            shim.go()
            raise EngineFailed(f"{self.copy.key}: cannot write images: {error}") from error
        except AgentCrashed:
            raise
        except BaseException:
            if not self._engine.crashed:
                shim.go()
            raise
        self._engine.point("dump.after")

    def _pages(self, job: Job) -> bytes:
        return (job.identity.encode() * (self._engine.knobs.image_bytes // 16 + 1))[: self._engine.knobs.image_bytes]

    async def _write(self, images: Path, job: Job, operation: str) -> None:
        pages = self._pages(job)
        pieces = [pages[at : at + CHUNK] for at in range(0, len(pages), CHUNK)] if operation == "dump" else [b""]
        pause = self._engine.knobs.delay.get(operation, 0.0) / max(1, len(pieces))
        with (images / "pages-1.img").open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
                await asyncio.sleep(pause)
        self._engine.point("dump.half")
        (images / "core-1.img").write_text(json.dumps({"job": job.to_data(), "pages": len(pages), "crc32": zlib.crc32(pages)}))
        (images / "inventory.img").write_text("fake")

    async def _unfenced(self) -> None:
        """criu waits for processes that stand still."""
        while self._shim.fenced:  # noqa: ASYNC110 - tests thaw by a plain call
            await asyncio.sleep(0.005)

    async def expect(self) -> None:
        await self._engine.at("expect", self.copy)
        self._empty().expects = True

    async def restore(self, images: Path, *, last_pid: int, deadline: float, wire: PageWire | None = None) -> None:
        await self._engine.at("restore", self.copy)
        shim = self._empty()
        if not shim.expects:
            raise EngineFailed(f"{self.copy.key}: no restore was expected")
        shim.expects = False
        try:
            core = json.loads((images / "core-1.img").read_bytes())
            pages = b"" if wire else (images / "pages-1.img").read_bytes()
            assert (images / "inventory.img").read_text() == "fake", "inventory"
            before, ahead = images, core.get("parent") is not None
            while ahead:
                before = before / "parent"
                assert (before / "inventory.img").read_text() == "fake", "inventory of a round"
                ahead = (before / "parent").is_symlink()
        except (OSError, ValueError, AssertionError) as error:
            raise EngineFailed(f"{self.copy.key}: bad images: {error}") from error
        if wire is not None:
            sock = wire.sock.dup()
            sock.setblocking(False)
            shim.fetch(sock, core["crc32"])
        elif len(pages) < core["pages"]:
            await asyncio.sleep(deadline)  # the real one hangs on these
            raise EngineFailed(f"{self.copy.key}: restore took longer than {deadline} s")
        elif zlib.crc32(pages) != core["crc32"]:
            raise EngineFailed(f"{self.copy.key}: bad images: checksum of pages-1.img")
        data = core["job"]
        await self._unfenced()
        if last_pid < data["last_pid"]:
            raise EngineFailed(f"{self.copy.key}: Can't fork for {data['last_pid']}: File exists")
        shim.job = Job([(word, argument) for word, argument in data["steps"]], data["identity"], data["last_pid"])
        shim.job.stopped = True
        self._engine.point("restore.after")

    async def resume(self) -> None:
        await self._engine.at("resume", self.copy)
        if self._alive().severed:
            raise EngineFailed(f"{self.copy.key}: the job was killed here, because it runs elsewhere")
        if self._job("resume").stopped:
            if self._shim.serving:
                self._shim.end_stream()
            self._shim.go()
        self._engine.point("resume.after")

    async def frozen(self) -> bool:
        self._engine.point("frozen")
        if self._shim.exit is not None:
            return False
        job = self._alive().job
        return job is not None and job.stopped

    async def last_pid(self) -> int:
        self._engine.point("last_pid")
        return self._job("look at").last_pid

    async def weigh(self, weight: int) -> None:
        self._engine.point("weigh")
        self._shim.weight = weight

    async def usage(self) -> Usage:
        self._engine.point("usage")
        if self._shim.exit is not None:
            return Usage(cpu_seconds=0.0, memory=0, runnable=0, processes=0)
        running = self._alive().runs
        return Usage(
            cpu_seconds=self._engine.knobs.cpu_seconds,
            memory=self._engine.knobs.image_bytes,
            runnable=int(running),
            processes=int(self._shim.job is not None),
        )

    async def obstacles(self, *, thorough: bool) -> list[Obstacle]:
        await self._engine.at("obstacles", self.copy)
        if self._shim.exit is not None:
            return []
        job = self._alive().job
        device = (
            [Obstacle(reason="DeviceFile", message=f"sh uses {argument}") for word, argument in job.steps if word == "exec"]
            if job
            else []
        )
        return [*self._engine.knobs.obstacles.get(self.copy.key, []), *device]

    async def files(self) -> list[str]:
        return self._engine.knobs.files.get(self.copy.key, [])

    async def wait_exit(self) -> Exit:
        self._engine.point("wait_exit")
        await self._shim.ended.wait()
        self._engine.point("wait_exit.after")
        if self._shim.exit is None:
            raise SandboxGone(f"{self.copy.key}: {self._shim.lost or 'died with its shim, no exit code was recorded'}")
        return self._shim.exit

    async def start_beside(self, session: str, spec: JobSpec, env: dict[str, str]) -> None:
        """Nothing runs beside jobs of this world."""
        raise EngineFailed(f"{self.copy.key}: nothing can be run beside it")

    def has_session(self, session: str) -> bool:
        return False

    async def attach(self, session: str = "job") -> Attachment:
        """Jobs of this world are silent: nobody can talk to them."""
        self._job("attach to")
        raise EngineFailed(f"{self.copy.key}: its mx-stdio cannot be reached: the job has none")

    async def signal(self, number: int) -> None:
        await self._engine.at("signal", self.copy)
        job = self._job("signal")
        job.received.append(number)
        if number == signals.SIGKILL or (number in (signals.SIGTERM, signals.SIGINT) and not job.stopped):
            self._shim.end(128 + number)

    async def obey(self, policy: Fencing) -> None:
        self._engine.point("obey")
        self._shim.policy = policy

    async def fenced(self) -> bool:
        self._engine.point("fenced")
        return self._shim.fenced

    async def thaw(self) -> None:
        await self._engine.at("unfence", self.copy)
        self._shim.thaw()

    async def kill(self) -> None:
        await self._engine.at("kill", self.copy)
        self._shim.die()
        if self._shim.exit is None:
            self._engine.world.shims.pop((self._engine.node, self.copy), None)
        self._engine.point("kill.after")
