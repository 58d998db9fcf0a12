"""The whole reconciler over a store in memory, with fake agents and virtual time.

async with House("n1", "n2") as house:
    await house.run("w")           a job
    await house.settle()           until nobody has anything to do
    await house.advance(30)        seconds, settling on the way
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from crds import keys
from crds.balancepolicy import BalancePolicy, BalancePolicySpec
from crds.checkpoint import Checkpoint, CheckpointSpec
from crds.event import Event
from crds.job import Job, JobSpec, JobStatus
from crds.meta import Metadata, Resource
from crds.migration import Migration, MigrationSpec, MigrationStatus
from crds.node import Node
from crds.placement import Placement, Role
from reconciler.context import Context, Stopwatch
from reconciler.controllers import ALL
from reconciler.runtime.declare import Controller
from reconciler.runtime.runner import Runner
from reconciler.world import World
from store.events import EventRecorder
from store.informer import Informer
from store.kv import Compare, Delete, Put, Target
from store.memory import MemoryKV
from store.memory_server import Watcher
from store.owners import owner_reference
from store.store import Store

from .fake_agent import FakeAgent, Wire
from .virtual_clock import VirtualClock

PATIENCE = 20.0  # seconds of real time in which everything must come to rest

QUIET = 8
"""Turns of the event loop without anything to do after which nothing comes any more."""

R = TypeVar("R", bound=Resource)


class House:
    """``agents`` by name; they act whenever the house settles."""

    def __init__(self, *nodes: str, controllers: tuple[Controller, ...] = ALL) -> None:
        self.kv = MemoryKV()
        self.clock = VirtualClock()
        self.store = Store(self.kv, clock=self.clock.now)
        self.wire = Wire()
        self.agents: dict[str, FakeAgent] = {}
        self.violations: list[str] = []
        self._names = nodes
        self._controllers = controllers
        self._tasks: list[asyncio.Task[None]] = []
        self._tickets = 0
        self._leaders = 0
        self.informer: Informer
        self.runner: Runner
        self.world: World

    async def __aenter__(self) -> "House":
        self.kv.server.subscribe(Watcher(keys.PLACEMENTS, 0, self._check))
        for name in self._names:
            await self.add_node(name)
        await self.start()
        await self.settle()
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.stop()
        broken_rules = self.violations + self.wire.violations
        if broken_rules:
            raise AssertionError("; ".join(broken_rules))

    # --- the reconciler ---

    async def start(self) -> None:
        """A new leader, with nothing remembered."""
        self._leaders += 1
        self.kv.server.txn([], [Delete(keys.LEADER)], [])
        self.kv.server.txn([], [Put(keys.LEADER, f"leader-{self._leaders}".encode())], [])
        held = self.kv.server.get(keys.LEADER)
        assert held is not None
        token = Compare(keys.LEADER, Target.CREATE, held.create_revision)
        self.world = World()
        self.informer = Informer(self.kv, keys.ROOT, ignore=(keys.EVENTS,), probe=1e9)
        self.informer.subscribe(self.world.apply)
        store = self.store.guarded(token)
        recorder = EventRecorder(store, "reconciler", clock=self.clock.monotonic)
        stopwatch = Stopwatch(self.clock)
        context = Context(self.world, store, recorder, self.clock, stopwatch, self.informer.reached, self._ticket)
        self.runner = Runner(self._controllers, context)
        self._tasks = [asyncio.create_task(self.informer.run())]
        await self.informer.synced.wait()
        self._tasks.append(asyncio.create_task(self.runner.run()))

    async def stop(self) -> None:
        """kill -9: nothing is tidied up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def settle(self) -> None:
        """Until the informer has seen everything and neither controllers nor agents have anything to do."""
        end = time.monotonic() + PATIENCE
        while True:
            await self.reconciled(end)
            if not any(agent.act() for agent in self.agents.values()):
                return

    async def reconciled(self, end: float | None = None) -> None:
        """Like ``settle``, but the agents do nothing."""
        end = end or time.monotonic() + PATIENCE
        quiet = 0
        while quiet < QUIET:
            await asyncio.sleep(0)
            at_rest = self.informer.revision >= self.kv.server.revision and self.runner.queue.idle
            quiet = quiet + 1 if at_rest else 0
            for task in self._tasks:
                if task.done():
                    raise AssertionError("the reconciler has stopped") from task.exception()
            if time.monotonic() > end:
                raise AssertionError(f"no rest: {self.runner.queue.pending()}")

    async def advance(self, seconds: float) -> None:
        """Lets time pass, stopping at every alarm on the way."""
        end = self.clock.seconds + seconds
        await self.settle()
        while (alarm := self.clock.next_alarm()) is not None and alarm <= end:
            self.clock.move_to(alarm)
            await self.settle()
        self.clock.move_to(end)
        await self.settle()

    # --- people ---

    async def add_node(self, name: str, **metadata: Any) -> None:
        await self.store.create(Node(metadata=Metadata(name=name, **metadata)))
        agent = self.agents[name] = FakeAgent(self.kv.server, name, self.wire, self.clock.now)
        agent.beat()
        agent.load()

    async def run(self, name: str, *, on: str | None = None, **spec: Any) -> None:
        data = {"command": ["true"], "placement": {"node": on} if on else {}, **spec}
        await self.store.create(Job(metadata=Metadata(name=name), spec=JobSpec.model_validate(data)))

    async def checkpoint(self, job: str = "w", name: str = "c", **spec: Any) -> None:
        owner = owner_reference(await self.store.get(Job, job))
        metadata = Metadata(name=name, owner_references=[owner])
        await self.store.create(Checkpoint(metadata=metadata, spec=CheckpointSpec(job=job, **spec)))

    async def migrate(self, job: str, to: str | None = None, *, name: str = "m", **spec: Any) -> None:
        migration = Migration(metadata=Metadata(name=name), spec=MigrationSpec(job=job, to=to, **spec))
        await self.store.create(migration)

    async def migrate_by_force(self, job: str, to: str) -> None:
        """Like ``migrate``, past a store that fails: its own write is repeated until it is known to be there."""
        while self.kv.server.get(keys.object_key(Migration, "m", "default")) is None:
            await self.migrate(job, to)

    async def put(self, key: str, value: bytes) -> None:
        """With other tools, behind our back."""
        await self.kv.txn([], [Put(key, value)])

    async def policy(self, name: str = "default", **spec: Any) -> None:
        await self.store.create(BalancePolicy(metadata=Metadata(name=name), spec=BalancePolicySpec.model_validate(spec)))

    async def change(self, kind: type[R], name: str, fn: Callable[[R], None]) -> None:
        await self.store.change(kind, name, "default" if kind.NAMESPACED else None, fn)

    # --- looking ---

    async def job(self, name: str) -> JobStatus:
        return (await self.store.get(Job, name)).status

    async def migration(self, name: str = "m") -> MigrationStatus:
        return (await self.store.get(Migration, name)).status

    async def node(self, name: str) -> Node:
        return await self.store.get(Node, name)

    def placements(self, job: str = "default/w") -> dict[str, tuple[Role, int]]:
        """Role and epoch by node."""
        found = {}
        for kv in self.kv.server.list(keys.PLACEMENTS, 0).items:
            _, node, namespace, name = keys.parts(kv.key)
            if f"{namespace}/{name}" == job:
                placement = Placement.model_validate_json(kv.value)
                found[node] = (placement.role, placement.epoch)
        return found

    def running(self, job: str = "default/w") -> list[str]:
        """The nodes on which a copy runs."""
        return [name for name, agent in self.agents.items() if agent.running(job)]

    async def events(self) -> list[str]:
        """``reason object``, in the order of their keys."""
        listing = await self.store.list(Event)
        return [f"{event.reason} {event.regarding.name}" for event in listing.items]

    # --- what must hold after every single write ---

    def _check(self) -> None:
        jobs: dict[tuple[str, str], list[tuple[Role, int]]] = {}
        for kv in self.kv.server.list(keys.PLACEMENTS, 0).items:
            try:
                placement = Placement.model_validate_json(kv.value)
            except ValueError:
                continue  # put there by a test of broken values
            jobs.setdefault((keys.parts(kv.key)[-1], placement.uid), []).append((placement.role, placement.epoch))
        for (name, _), held in jobs.items():
            held = [(role, epoch) for role, epoch in held if role != Role.DROP]
            roles = sorted(role for role, _ in held)
            moving = roles == [Role.ARRIVE, Role.LEAVE] and len({epoch for _, epoch in held}) == 1
            if roles not in ([Role.RUN], [Role.RESTORE], [Role.INHERIT], []) and not moving:
                self.violations.append(f"{name}: placements {held}")

    def _ticket(self) -> str:
        self._tickets += 1
        return f"ticket-{self._tickets}"
