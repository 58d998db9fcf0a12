"""The way a job takes between two nodes when no agents are there: images go by copying."""

import asyncio
import shutil
import time

from nodeagent.engine import Copy, Sandbox
from tests.engine_contract import DEADLINE
from tests.system.testnode import RemoteEngine, RemoteSandbox, TestNode


class Road:
    """Moves copies between two nodes; images go by copying."""

    def __init__(self, ends: list[tuple[TestNode, RemoteEngine]]) -> None:
        self.ends = ends
        self.at = 0
        self.figures: dict[str, float] = {}

    @property
    def engine(self) -> RemoteEngine:
        return self.ends[self.at][1]

    async def move(self, old: Sandbox) -> Sandbox:
        """To the other node; the old copy is killed before the new one runs."""
        (here, _), (there, engine) = self.ends[self.at], self.ends[1 - self.at]
        source, target = (node.path(f"/run/mx/images-{old.copy.name}-{old.copy.epoch}") for node in (here, there))
        source.mkdir(parents=True)
        new = await engine.create(Copy(old.copy.namespace, old.copy.name, old.copy.uid, old.copy.epoch + 1))
        await new.expect()
        try:
            async with _timed(self.figures, "dump_ms"):
                await old.dump(source, deadline=DEADLINE)
            last = await old.last_pid()
            async with _timed(self.figures, "copy_ms"):
                shutil.copytree(source, target)
            async with _timed(self.figures, "restore_ms"):
                await new.restore(target, last_pid=last, deadline=DEADLINE)
            self.figures["image_bytes"] = sum(path.stat().st_size for path in target.iterdir())
        finally:
            shutil.rmtree(source)
            shutil.rmtree(target, ignore_errors=True)
        await old.kill()
        await new.resume()
        self.at = 1 - self.at
        return new

    async def move_lazily(self, old: RemoteSandbox) -> RemoteSandbox:
        """As ``move``, but the job runs there before its memory has come; returns when all of it has."""
        (here, engine), (there, target_engine) = self.ends[self.at], self.ends[1 - self.at]
        source, target = (node.path(f"/run/mx/images-{old.copy.name}-{old.copy.epoch}") for node in (here, there))
        source.mkdir(parents=True)
        meeting = f"/shared/wire-{old.copy.name}-{old.copy.epoch}"
        new = await target_engine.create(Copy(old.copy.namespace, old.copy.name, old.copy.uid, old.copy.epoch + 1))
        await new.expect()
        out, into = await asyncio.gather(engine.wire(meeting, listen=True), target_engine.wire(meeting, listen=False))
        try:
            async with _timed(self.figures, "serve_ms"):
                await old.serve(source, out, deadline=DEADLINE)
            last = await old.last_pid()
            shutil.copytree(source, target)
            async with _timed(self.figures, "restore_ms"):
                await new.restore(target, last_pid=last, deadline=DEADLINE, wire=into)
            await old.sever()
            await new.resume()
            async with asyncio.timeout(DEADLINE), _timed(self.figures, "rest_ms"):
                await new.streamed()
                await old.streamed()
        finally:
            shutil.rmtree(source)
            shutil.rmtree(target, ignore_errors=True)
        await old.kill()
        self.at = 1 - self.at
        return new


class _timed:  # noqa: N801 - reads as a function
    def __init__(self, figures: dict[str, float], name: str) -> None:
        self._figures, self._name = figures, name

    async def __aenter__(self) -> None:
        self._began = time.perf_counter()

    async def __aexit__(self, *_: object) -> None:
        self._figures[self._name] = (time.perf_counter() - self._began) * 1000
