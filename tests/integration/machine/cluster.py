"""A whole cluster in one event loop of virtual time: etcd in memory, real agents with fake processes, the real reconciler."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from crds.load import LoadVector
from crds.meta import Metadata
from crds.node import Node
from nodeagent import guard
from nodeagent.agent import Agent
from nodeagent.beat import Beat
from nodeagent.config import Config, Timing
from nodeagent.engine import Copy
from nodeagent.features import POST_COPY, PRE_COPY
from nodeagent.load import Watched, make_vector
from reconciler.daemon import campaign
from store.memory import MemoryKV
from store.store import Store
from tests.fakes.channel import MemoryNetwork
from tests.fakes.engine import FakeEngine, Knobs
from tests.fakes.pages import MemoryPages
from tests.fakes.world import World
from tests.integration.machine.lives import Life
from tests.virtual import Clock

TIMING = Timing(usage=15.0, load=15.0, restore=20.0)
FEATURES = [POST_COPY, PRE_COPY]

Witness = Callable[[str, str, Copy], Awaitable[None]]
"""Is told of the moments at which agents are: node, moment, copy."""


async def _nobody(node: str, moment: str, copy: Copy) -> None:
    """The witness of a cluster to which nothing happens."""


class Load:
    """Plenty of everything."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def run(self, watched: Callable[[], Iterable[Watched]], beat: Beat) -> None:
        await asyncio.Event().wait()

    def still_for(self) -> float:
        return 0.0

    def vector(self, watched: Iterable[Watched]) -> LoadVector:
        return make_vector({}, cpu_capacity=4, memory_capacity=1 << 40, memory_used=0, memory_pressure=0, when=self._clock.now())


class Machine:
    """One node: what survives its agent, and the agent of the moment."""

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self.cluster, self.name = cluster, name
        root = cluster.root
        number = 10_000 + len(cluster.machines)
        self.config = Config(
            node=name, state=root / name / "state", run=root / name / "run", shared=cluster.shared, port=number, timing=TIMING
        )
        self.kv = cluster.kv.client()
        self.knobs = Knobs(image_bytes=4096)
        self.life: Life | None = None
        self.task: asyncio.Task[None] | None = None
        self.guard: asyncio.Task[None] | None = None
        self.starting = asyncio.Lock()

    def start(self) -> None:
        """A new agent over the same directories."""
        assert self.life is None
        cluster = self.cluster
        self.kv = cluster.kv.client()
        self.knobs = Knobs(image_bytes=4096, delay=dict(cluster.pace), features=FEATURES)
        self.kv.delay, self.kv.answer = cluster.store_delay, cluster.store_answer
        self.life = life = Life(f"agent of {self.name}", self._ended, lambda moment, copy: cluster.witness(self.name, moment, copy))
        self._guard_it()
        engine = FakeEngine(cluster.world, self.name, life.guard_engine(self.knobs))
        agent = Agent(
            self.config,
            life.guard_store(self.kv),
            engine,
            Load(cluster.clock),
            hooks=life,
            network=cluster.network.exchange,
            pages=lambda config: MemoryPages(cluster.network, config.node),
            clock=cluster.clock,
        )
        self.task = asyncio.get_running_loop().create_task(agent.run(), name=f"agent {self.name}")

    def _guard_it(self) -> None:
        """mx-guard lives as long as the machine."""
        if self.guard is None:
            run = str(self.config.run)
            self.config.run.mkdir(parents=True, exist_ok=True)
            guard.write_whole(f"{run}/{guard.PROCESS}", f"{os.getpid()} {guard.start_time(os.getpid())}\n")
            self.guard = self.cluster.loop.create_task(self._watch(run), name=f"guard of {self.name}")

    async def _watch(self, run: str) -> None:
        """As guard.watch does."""
        while True:
            deadline, now = guard.read_deadline(run), self.cluster.clock.boottime()
            if deadline is not None and deadline <= now:
                self.cluster.world.fence(self.name)
            await asyncio.sleep(guard.AGAIN if deadline is None or deadline <= now else deadline - now)

    def _ended(self) -> None:
        self.cluster.loop.call_soon(self._fall, self.task)

    def _fall(self, task: "asyncio.Task[None] | None") -> None:
        for link in self.cluster.network.links:
            if self.name in (link.caller, link.callee):
                link.cut("the agent died")
        if task is not None:
            task.cancel()

    async def bury(self) -> None:
        """Waits until a dead agent's tasks have ended."""
        task, self.task, self.life = self.task, None, None
        if task is not None:
            await asyncio.wait({task})
            self.cluster.judge_end(task)

    @property
    def dead(self) -> bool:
        return self.life is None or self.life.over

    async def power_off(self) -> None:
        """Processes and memory are gone, the disk stays."""
        async with self.starting:
            self.cluster.world.reboot(self.name)
            await self.bury()
            self.stop_guard()
            shutil.rmtree(self.config.run, ignore_errors=True)

    def stop_guard(self) -> None:
        if self.guard is not None:
            self.guard.cancel()
            self.guard = None

    @property
    def images(self) -> list[Path]:
        return sorted(self.config.images.glob("*")) if self.config.images.exists() else []


class Reconciler:
    """A reconciler process: a candidate, or the leader."""

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self.life = Life(f"reconciler {number}", self._ended)
        self.kv = self.life.guard_store(cluster.kv.client())
        self._cluster = cluster
        campaigning = campaign(self.kv, f"reconciler-{number}", cluster.clock)
        self.task = cluster.loop.create_task(campaigning, name=self.life.name)

    def _ended(self) -> None:
        self._cluster.loop.call_soon(self.task.cancel)

    async def bury(self) -> None:
        self.life.end()
        await asyncio.wait({self.task})
        self._cluster.judge_end(self.task)


class Cluster:
    """All of it. ``kv`` is the people's own connection, which nothing happens to."""

    def __init__(self, root: Path, loop: asyncio.AbstractEventLoop, *names: str) -> None:
        self.root, self.loop = root, loop
        self.shared = root / "shared"
        """The file system of all nodes."""
        self.clock = Clock(loop)
        self.kv = MemoryKV(clock=loop.time)
        self.store = Store(self.kv, clock=self.clock.now)
        self.world = World()
        self.network = MemoryNetwork()
        self.network.poll = 0.05
        self.machines: dict[str, Machine] = {}
        for name in names:
            self.machines[name] = Machine(self, name)
        self.reconcilers: list[Reconciler] = []
        self.pace: dict[str, float] = {}
        """Seconds that operations of the engines take."""
        self.witness: Witness = _nobody
        self.store_delay = 0.0
        """Seconds until a call of an agent is done by etcd."""
        self.store_answer = 0.0
        """Seconds until the agent knows."""
        self.defects: list[str] = []
        """What no daemon may ever do: end by itself."""

    async def start(self) -> None:
        for name, machine in self.machines.items():
            await self.store.create(Node(metadata=Metadata(name=name)))
            machine.start()
        self.add_reconciler()
        self.add_reconciler()

    def add_reconciler(self) -> None:
        """One more; dead ones stay on the list for their burial."""
        self.reconcilers.append(Reconciler(self, len(self.reconcilers)))

    @property
    def candidates(self) -> list[Reconciler]:
        """Those that live, one of them leading."""
        return [each for each in self.reconcilers if not each.life.over]

    async def close(self) -> None:
        for machine in self.machines.values():
            if machine.life is not None:
                machine.life.end()
            await machine.bury()
            machine.stop_guard()
        for each in self.reconcilers:
            await each.bury()
        for shim in list(self.world.shims.values()):
            shim.die()
        for wire in self.network.wires:
            wire.cut()
        await asyncio.sleep(0.1)  # and everybody has ended

    def judge_end(self, task: "asyncio.Task[None]") -> None:
        """A daemon ends by being killed, by nothing else."""
        if task.cancelled():
            return
        error = task.exception()
        causes = _leaves(error) if error else []
        strange = [cause for cause in causes if type(cause).__name__ not in ("AgentCrashed", "CancelledError")]
        if strange:
            self.defects.append(f"{task.get_name()} ended with {strange!r}")


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
