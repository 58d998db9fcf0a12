"""Real agents on simulated nodes: one event loop, one fake world, one etcd (fake or real), a data channel over loopback.

The few decisions of a reconciler are made here, by the contract of a move, with the same transactions; so a move in these tests
ends as it would in a cluster.
"""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from crds import keys
from crds.job import Fencing, JobSpec, MigrationMode
from crds.load import LoadVector
from crds.placement import MoveOrder, Placement, Role
from crds.report import ENDED, Claim, JobReport, ReportPhase, Verdict
from crds.states import DestinationStep
from nodeagent import guard
from nodeagent.agent import Agent
from nodeagent.beat import Beat
from nodeagent.config import Config, Timing
from nodeagent.engine import Copy
from nodeagent.load import Watched, make_vector
from store.errors import Unavailable
from store.kv import KV, Compare, Delete, Get, KeyValue, Op, Put, absent, unchanged
from tests.etcd_server import free_port
from tests.fakes.engine import AgentCrashed, FakeEngine, Knobs
from tests.fakes.world import World

PATIENCE = 20.0  # seconds after which a condition that does not come true fails the test
TIMING = Timing(
    lease=15, load=0.2, usage=0.2, obstacles=0.2, retry_first=0.02, retry_most=0.2, connect=2, hello=3, answer=3, restore=2
)
NAMESPACE = "default"


class FakeLoad:
    """A node with two cores and much memory; nobody asks for more here."""

    def __init__(self) -> None:
        self.memory = 1 << 40

    async def run(self, watched: Callable[[], Iterable[Watched]], beat: Beat) -> None:
        await asyncio.Event().wait()

    def still_for(self) -> float:
        return 0.0

    def vector(self, watched: Iterable[Watched]) -> LoadVector:
        return make_vector({}, cpu_capacity=2, memory_capacity=self.memory, memory_used=0, memory_pressure=0)


@dataclass
class Moments:
    """Hooks that let the agent die, or wait, at a moment, once."""

    crash_at: set[str] = field(default_factory=set)
    wait_at: dict[str, asyncio.Event] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    async def at(self, moment: str, copy: Copy) -> None:
        self.seen.append(moment)
        if moment in self.crash_at:
            self.crash_at.remove(moment)
            raise AgentCrashed(moment)
        if moment in self.wait_at:
            await self.wait_at[moment].wait()


class Node:
    """One node: what survives its agent (directories, world) and the agent of the moment."""

    def __init__(self, name: str, root: Path, kv: KV, world: World, tls: Path | None = None, timing: Timing = TIMING) -> None:
        self.name, self.kv, self.world = name, kv, world
        self.knobs = Knobs()
        self.moments = Moments()
        self.load = FakeLoad()
        self.config = Config(
            node=name,
            state=root / name / "state",
            run=root / name / "run",
            shared=root / "shared",
            port=free_port(),
            timing=timing,
            tls=tls,
        )
        self.config.run.mkdir(parents=True, exist_ok=True)
        guard.write_whole(str(self.config.run / guard.PROCESS), f"{os.getpid()} {guard.start_time(os.getpid())}\n")  # we are it
        self.agent: Agent | None = None
        self.task: asyncio.Task[None] | None = None
        self.died_of = ""

    async def start(self) -> None:
        """A new agent over the same directories; returns when it acts on placements."""
        self.agent = Agent(self.config, self.kv, FakeEngine(self.world, self.name, self.knobs), self.load, hooks=self.moments)
        self.task = asyncio.create_task(self._run(self.agent), name=f"agent {self.name}")
        waiting = asyncio.create_task(self.agent.ready.wait())
        await asyncio.wait({self.task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
        waiting.cancel()

    async def _run(self, agent: Agent) -> None:
        try:
            await agent.run()
        except* AgentCrashed as crash:
            self.died_of = str(crash.exceptions[0])

    async def stop(self) -> None:
        """SIGTERM: its jobs stay."""
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
            self.task = None

    async def crashed(self) -> None:
        """Waits until it has died at the moment that was asked for."""
        assert self.task is not None
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self.task)
        self.task = None
        self.knobs.crash_at.clear()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    @property
    def address(self) -> str:
        assert self.agent is not None
        return f"127.0.0.1:{self.agent.port}"

    @property
    def images(self) -> list[Path]:
        """Checkpoints that lie about."""
        return list(self.config.images.glob("*")) if self.config.images.exists() else []


class Cluster:
    """Nodes, and the decisions a reconciler would take about them. ``kv`` is the reconciler's own connection."""

    def __init__(self, root: Path, kv: KV, client: Callable[[], KV]) -> None:
        self.root, self.kv, self._client = root, kv, client
        self.world = World()
        self.nodes: dict[str, Node] = {}
        self.mode = MigrationMode.STOP
        """Of the moves that are ordered from now on."""
        self._uids = itertools.count(1)
        self._moves = itertools.count(1)

    async def node(self, name: str, tls: Path | None = None, timing: Timing = TIMING) -> Node:
        """A node whose agent runs. ``tls``: the directory of its key and certificates."""
        self.nodes[name] = Node(name, self.root, self._client(), self.world, tls, timing)
        await self.nodes[name].start()
        return self.nodes[name]

    async def close(self) -> None:
        for node in self.nodes.values():
            for event in node.moments.wait_at.values():
                event.set()
            await node.stop()
        for shim in list(self.world.shims.values()):
            shim.die()

    # --- reading ---

    async def placement(self, node: str, job: str) -> tuple[Placement | None, int]:
        kv = await self.kv.get(keys.placement(node, NAMESPACE, job))
        return (Placement.model_validate_json(kv.value), kv.mod_revision) if kv else (None, 0)

    async def report(self, node: str, job: str) -> JobReport | None:
        kv = await self.kv.get(keys.report(node, NAMESPACE, job))
        return JobReport.model_validate_json(kv.value) if kv else None

    async def claim(self, node: str, job: str) -> Claim | None:
        kv = await self.kv.get(keys.claim(node, NAMESPACE, job))
        return Claim.model_validate_json(kv.value) if kv else None

    async def phase(self, node: str, job: str) -> ReportPhase | None:
        found = await self.report(node, job)
        return found.phase if found else None

    async def reported(self, node: str, job: str, phase: ReportPhase | None) -> JobReport | None:
        """Waits for that phase (None: no report)."""

        async def there() -> bool:
            return await self.phase(node, job) == phase

        await until(there, f"report of {job} on {node} to be {phase}")
        return await self.report(node, job)

    # --- deciding ---

    async def run(self, job: str, node: str, *command: str, grace: float = 1.0, fencing: Fencing = Fencing.FREEZE) -> str:
        """Places a job; returns its uid."""
        uid = f"uid-{job}-{next(self._uids):08d}"
        spec = JobSpec(command=list(command) or ["spin"], termination_grace=grace)
        placement = Placement(uid=uid, epoch=1, role=Role.RUN, spec=spec, fencing=fencing)
        await self.write(Put(keys.placement(node, NAMESPACE, job), placement.to_json()))
        return uid

    async def running(self, job: str, node: str, *command: str, fencing: Fencing = Fencing.FREEZE) -> str:
        """Places a job and waits until it is reported to run."""
        uid = await self.run(job, node, *command, fencing=fencing)
        await self.reported(node, job, ReportPhase.RUNNING)
        return uid

    async def delete(self, job: str, *nodes: str) -> None:
        await self.write(*(Delete(keys.placement(node, NAMESPACE, job)) for node in nodes))

    async def order(self, job: str, source: str, destination: str, *, deadline: float = 15.0, peer: str | None = None) -> "Ordered":
        """The transaction that begins a move."""
        placement, revision = await self.placement(source, job)
        assert placement is not None
        order = MoveOrder(
            migration=f"move-{next(self._moves)}",
            source=source,
            destination=destination,
            peer=peer or self.nodes[destination].address,
            ticket=f"ticket-{time.monotonic_ns()}",
            mode=self.mode,
            deadline=datetime.now(UTC) + timedelta(seconds=deadline),
        )
        epoch = placement.epoch + 1
        leave = placement.model_copy(update={"role": Role.LEAVE, "epoch": epoch, "move": order})
        back = order.model_copy(update={"peer": self.nodes[source].address})
        arrive = placement.model_copy(update={"role": Role.ARRIVE, "epoch": epoch, "move": back})
        here, there = keys.placement(source, NAMESPACE, job), keys.placement(destination, NAMESPACE, job)
        result = await self.txn(
            [unchanged(here, revision), absent(there)], [Put(here, leave.to_json()), Put(there, arrive.to_json())]
        )
        assert result, "the move could not be ordered"
        return Ordered(self, job, source, destination, order, epoch)

    async def move(self, job: str, source: str, destination: str, *, deadline: float = 15.0) -> bool:
        """Orders a move and decides it; True when the job has moved."""
        return await (await self.order(job, source, destination, deadline=deadline)).decided()

    async def write(self, *operations: Op) -> None:
        assert await self.txn([], list(operations))

    async def txn(self, when: list[Compare], then: list[Op]) -> bool:
        """Repeated until it is known; all uses here can bear that."""
        while True:
            try:
                return (await self.kv.txn(when, then)).succeeded
            except Unavailable:
                await asyncio.sleep(0.02)

    # --- judging ---

    async def only_on(self, uid: str, node: str) -> None:
        """Waits until exactly one copy is left, running on that node; never did two run."""

        async def there() -> bool:
            return self.world.running(uid) == [node] and len(self.world.copies(uid)) == 1

        await until(there, f"{uid} to run on {node} only (runs on {self.world.running(uid)}, {len(self.world.copies(uid))} copies)")
        assert self.world.most_running(uid) == 1

    async def no_images(self) -> None:
        """Waits until no checkpoint is left on any node."""

        async def there() -> bool:
            return not any(node.images for node in self.nodes.values())

        await until(there, "all images to be removed")


class Wire:
    """The network between source and destination: forwards to ``backend``, and does harm once it was told to.

    ``harm`` is what it does when so many bytes, or (up to) this word, have passed towards the destination: "cut" the connection,
    "flip" the next byte, or go "silent". ``deaf_after``: it is cut once so many bytes of answers have passed. The first connection
    only is harmed.
    """

    def __init__(self, backend: str) -> None:
        self._host, _, self._port = backend.rpartition(":")
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.endpoint = ""
        self.harm = ""
        self.after: int | bytes = 0
        self.deaf_after: int | None = None
        self._first = True

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint = "{}:{}".format(*self._server.sockets[0].getsockname())

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _accept(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        harmful, self._first = self._first, False
        far, on = await asyncio.open_connection(self._host, int(self._port))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(near, on, harmful))
                group.create_task(self._answer(far, back, harmful))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # cut, or one end has hung up: then the other end hears it too
        finally:
            self._tasks.discard(task)
            back.transport.abort()
            on.transport.abort()

    async def _forward(self, near: asyncio.StreamReader, on: asyncio.StreamWriter, harmful: bool) -> None:
        passed = 0
        while data := bytearray(await near.read(4096)):
            at = data.find(self.after) if isinstance(self.after, bytes) else self.after - passed
            if harmful and self.harm and 0 <= at < len(data):
                if self.harm == "flip":
                    data[at] ^= 1
                else:
                    on.write(data[:at])
                    await on.drain()
                    if self.harm == "silent":
                        await asyncio.Event().wait()
                    raise ConnectionError("cut")
            passed += len(data)
            on.write(data)
            await on.drain()
        raise ConnectionError("the source hung up")

    async def _answer(self, far: asyncio.StreamReader, back: asyncio.StreamWriter, harmful: bool) -> None:
        passed = 0
        while data := await far.read(4096):
            passed += len(data)
            if harmful and self.deaf_after is not None and passed > self.deaf_after:
                raise ConnectionError("cut")
            back.write(data)
            await back.drain()
        raise ConnectionError("the destination hung up")


@dataclass
class Ordered:
    """A move under way, as the reconciler sees it."""

    cluster: Cluster
    job: str
    source: str
    destination: str
    order: MoveOrder
    epoch: int
    outcome: str = ""

    async def decided(self) -> bool:
        """Does what the reconciler does until the move is over; True when the job has moved."""
        done: bool | None = None
        async with asyncio.timeout(PATIENCE):
            while done is None:
                with contextlib.suppress(Unavailable):
                    done = await self._look()
                await asyncio.sleep(0.005)
        return done

    async def _look(self) -> bool | None:
        cluster = self.cluster
        claim = await cluster.claim(self.destination, self.job)
        claim = claim if claim and claim.epoch == self.epoch else None
        if claim and claim.verdict == Verdict.ACCEPTED:
            report = await cluster.report(self.destination, self.job)
            fetching = report and report.move and report.move.step == DestinationStep.FETCHING and report.phase not in ENDED
            over = report and report.epoch == self.epoch and report.phase in {ReportPhase.RUNNING, *ENDED}
            if over and not fetching:
                return True if await self._finish() else None
            return None
        report = await cluster.report(self.source, self.job)
        if claim:
            self.outcome = f"refused: {claim.reason}"
        elif datetime.now(UTC) > self.order.deadline:
            self.outcome = "deadline"
        elif report and report.phase in ENDED:
            self.outcome = "job ended"
        else:
            return None
        return False if await self.call_off(refused=claim is not None) else None

    async def _finish(self) -> bool:
        here, there, src, dst = await self._both()
        run = dst.model_copy(update={"role": Role.RUN, "move": None})
        return await self.cluster.txn([src[1], dst_same(there)], [Delete(here), Put(there.key, run.to_json())])

    async def call_off(self, *, refused: bool = False) -> bool:
        """Back to the source, unless a claim stands (a refusal must)."""
        here, there, src, _ = await self._both()
        run = src[0].model_copy(update={"role": Role.RUN, "epoch": self.epoch + 1})
        when = [src[1], dst_same(there)]
        if not refused:
            when.append(absent(keys.claim(self.destination, NAMESPACE, self.job)))
        return await self.cluster.txn(when, [Put(here, run.to_json()), Delete(there.key)])

    async def _both(self) -> tuple[str, KeyValue, tuple[Placement, Compare], Placement]:
        here = keys.placement(self.source, NAMESPACE, self.job)
        there = keys.placement(self.destination, NAMESPACE, self.job)
        found = (await self.cluster.kv.txn([], [Get(here), Get(there)])).gets
        assert found[0] is not None and found[1] is not None
        src, dst = (Placement.model_validate_json(kv.value) for kv in found if kv is not None)
        return here, found[1], (src, unchanged(here, found[0].mod_revision)), dst


def dst_same(kv: KeyValue) -> Compare:
    """The key is as it was read."""
    return unchanged(kv.key, kv.mod_revision)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits for the condition; fails the test when it does not come true."""
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(Unavailable):
            if await condition():
                return
        assert time.monotonic() < end, f"waited {PATIENCE} s in vain for {what}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def cluster_of(root: Path, kv: KV, client: Callable[[], KV], *names: str) -> AsyncIterator[Cluster]:
    """A cluster whose agents are ended, come what may."""
    cluster = Cluster(root, kv, client)
    try:
        for name in names:
            await cluster.node(name)
        yield cluster
    finally:
        await cluster.close()
