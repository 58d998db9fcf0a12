"""The agent of one node: wires its parts and keeps them running until it is cancelled, which leaves its jobs alone.

Nothing is done for a job before its placements *and* its reports have been read once; an outage of etcd later only means that both
stay as they were. A missing placement is believed only from a list or a watch of etcd.
"""

import asyncio
import fcntl
import itertools
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from crds import keys
from crds.load import Alive
from crds.organisations import ADMINS
from crds.placement import Placement
from crds.states import SourceStep
from nodeagent import facts
from nodeagent.attend import Reception
from nodeagent.beat import Beat
from nodeagent.case import Case, Parts
from nodeagent.clock import Clock, SystemClock
from nodeagent.config import Config
from nodeagent.credentials import Credentials, Files, prepare
from nodeagent.engine import Copy, Engine
from nodeagent.errors import AgentError, EngineFailed
from nodeagent.exchange import Exchange
from nodeagent.fence import Fence
from nodeagent.heartbeat import Heartbeat
from nodeagent.hooks import Hooks, NoHooks
from nodeagent.hosts import keep_hosts
from nodeagent.jobs import Placed
from nodeagent.journal import RUNS_HERE, Journal, Record
from nodeagent.ledger import Ledger
from nodeagent.load import Watched
from nodeagent.pages import Pages, TcpPages
from nodeagent.processor import cpu_flags
from nodeagent.programs import Programs
from nodeagent.renewal import keep_certificate
from nodeagent.space import Room, remove_strays
from nodeagent.stdio.frames import BESIDE, PURPOSE
from nodeagent.tcp import TcpExchange
from nodeagent.telling import LoadSource, Telling
from nodeagent.worker import Worker
from store.errors import StoreError
from store.informer import SELDOM, Informer
from store.kv import KV, KeyValue

log = logging.getLogger(__name__)

RELOAD_PAUSE = 0.5  # seconds between attempts to read our own reports


class AgentRunning(AgentError):  # noqa: N818 - named after the state of the node
    """Another agent holds the state directory."""


class Agent:
    """One node. ``run`` ends by cancellation only; everything it started is then ended, except jobs."""

    def __init__(
        self,
        config: Config,
        kv: KV,
        engine: Engine,
        load: LoadSource,
        *,
        hooks: Hooks | None = None,
        image: str = "",
        assigned: str = "",
        root: str = "",
        speed: float | None = None,
        network: Callable[[Config], Exchange] | None = None,
        pages: Callable[[Config], Pages] = TcpPages,
        clock: Clock | None = None,
    ) -> None:
        self._config = config
        self._kv = kv
        self._engine = engine
        self._load = load
        self._hooks = hooks or NoHooks()
        self._image = image
        self._assigned = assigned
        self._root = root
        self._speed = speed
        self._network = network or tcp_exchange
        self._pages = pages
        self._clock = clock or SystemClock()
        self._since = self._clock.now()
        self._cpu_flags = cpu_flags()
        self._criu = ""
        self._features: list[str] = []
        self._boot_id = ""
        self._workers: dict[str, Worker] = {}
        self._records: dict[str, Record] = {}
        self._leftovers: dict[str, list[Copy]] = {}
        self._ready = asyncio.Event()
        self._reload = asyncio.Event()
        self._informer = Informer(kv, keys.placement_prefix(config.node), probe=SELDOM, clock=self._clock.monotonic)
        self._reports = Informer(kv, f"{keys.node_prefix(config.node)}jobs/", probe=SELDOM)
        self._heartbeat = Heartbeat(kv, config.node, self._alive, ttl=config.timing.lease, clock=self._clock.boottime)
        self._heartbeat.begun = self._reload.set
        self._fence = Fence(config.run, engine, ttl=config.timing.lease, clock=self._clock.boottime)
        self._heartbeat.held = self._fence.hold
        self._ledger = Ledger(kv, config.node, self._heartbeat)
        self._programs = Programs(kv, config.node, self._heartbeat)
        self._exchange: Exchange | None = None

    @property
    def ready(self) -> asyncio.Event:
        """Set once it acts on placements."""
        return self._ready

    @property
    def port(self) -> int:
        """Of the data channel, once it runs."""
        return self._exchange.port if self._exchange else 0

    async def run(self) -> None:
        """Raises AgentRunning, OSError (port taken, disk full); otherwise runs until cancelled."""
        timing = self._config.timing
        with _alone(self._config.state):
            async with self._parts() as parts, asyncio.TaskGroup() as group:
                self._group, self._shared_parts = group, parts
                if self._config.tls is not None:
                    await prepare(self._config.tls, self._config.node)
                await self._look_around()
                await self._fence.act()
                reception = Reception(self._config, self._case_of)
                parts.exchange.register(PURPOSE, ADMINS, reception.attach)
                parts.exchange.register(BESIDE, ADMINS, reception.run_beside)
                group.create_task(parts.exchange.serve(), name="data channel")
                for key in sorted(self._records.keys() | self._leftovers.keys()):
                    self._wake(key)
                group.create_task(self._informer.run(), name="placements")
                group.create_task(self._reports.run(), name="own reports")
                group.create_task(self._heartbeat.run(), name="heartbeat")
                beat = Beat(self._config.node)
                group.create_task(self._fence.run(self._look_at_fence, beat), name="fence")
                group.create_task(self._keep_loaded(), name="reports")
                group.create_task(self._look_at_usage(beat), name="usage")
                group.create_task(self._look_for_obstacles(beat), name="obstacles")
                group.create_task(self._programs.run(self._boot_id), name="programs")
                if self._config.tls is not None:
                    revoked = Informer(self._kv, keys.REVOKED, probe=SELDOM)
                    parts.exchange.is_revoked = lambda serial: keys.revoked(serial) in revoked.items
                    group.create_task(revoked.run(), name="revoked certificates")
                    if self._config.head:
                        group.create_task(keep_certificate(self._config.tls, self._config.head), name="certificate")
                if self._config.hosts is not None:
                    group.create_task(keep_hosts(self._kv, self._config.hosts), name="hosts")
                group.create_task(self._load.run(self._watched, beat), name="load")
                telling = Telling(self._config.node, self._heartbeat, self._load, self._watched, self._fence)
                group.create_task(telling.run(self._kv, beat, timing.load), name="telling load")

    @asynccontextmanager
    async def _parts(self) -> AsyncIterator[Parts]:
        config = self._config
        self._boot_id = facts.boot_id(config.run)
        config.images.mkdir(parents=True, exist_ok=True)
        self._exchange = self._network(config)
        disk = ThreadPoolExecutor(4, thread_name_prefix="journal")
        copies = ThreadPoolExecutor(4, thread_name_prefix="checkpoint")
        try:
            yield Parts(
                config=config,
                boot_id=self._boot_id,
                engine=self._engine,
                journal=Journal(config.journal),
                ledger=self._ledger,
                exchange=self._exchange,
                pages=self._pages(config),
                fence=self._fence,
                hooks=self._hooks,
                disk=disk,
                copies=copies,
                room=Room(config.images, self._memory_free),
                clock=self._clock,
                compares=self._programs.wanted,
            )
        finally:
            self._exchange.close()
            disk.shutdown(wait=True)
            copies.shutdown(wait=False, cancel_futures=True)

    async def _look_around(self) -> None:
        """What a former life left on this node."""
        try:
            self._criu = await self._engine.version()
        except EngineFailed as error:
            log.error("jobs cannot be moved from or to this node: %s", error)
        self._features = sorted(await self._engine.features())
        self._records = self._shared_parts.journal.load()
        for copy in await self._engine.leftovers():
            self._leftovers.setdefault(copy.key, []).append(copy)
        copies = [*(record.copy_here for record in self._records.values()), *itertools.chain(*self._leftovers.values())]
        for name in remove_strays(self._config.images, copies):
            log.warning("images %s belong to no job of this node: removed", name)
        left = sum(map(len, self._leftovers.values()))
        log.info("node %s: %d jobs in the journal, %d copies here", self._config.node, len(self._records), left)

    def _alive(self) -> Alive:
        vector = self._load.vector(())
        return Alive(
            boot_id=self._boot_id,
            agent_version=facts.agent_version(),
            address=f"{self._config.address}:{self.port}",
            kernel=os.uname().release,
            criu=self._criu,
            image=self._image,
            assigned=self._assigned,
            root=self._root,
            cpu=vector.cpu_capacity,
            memory=vector.memory_capacity,
            speed=self._speed,
            features=self._features,
            cpu_flags=self._cpu_flags,
            system=facts.system_facts(self._config.shared),
            since=self._since,
        )

    def _memory_free(self) -> int:
        vector = self._load.vector(())
        return max(0, vector.memory_capacity - vector.memory_used)

    # --- workers ---

    def _wake(self, key: str) -> None:
        worker = self._workers.get(key)
        if worker is None:
            record, leftovers = self._records.pop(key, None), self._leftovers.pop(key, [])
            worker = Worker(key, self._shared_parts, record, leftovers, lambda: self._placed(key))
            self._workers[key] = worker
            self._group.create_task(self._run_worker(key, worker), name=f"job {key}")
        worker.wake()

    async def _run_worker(self, key: str, worker: Worker) -> None:
        await worker.run(self._ready)
        del self._workers[key]
        if worker.woken:
            self._wake(key)  # while it was ending

    def _case_of(self, key: str) -> Case | None:
        worker = self._workers.get(key)
        return worker.case if worker else None

    def _placed(self, key: str) -> Placed | None:
        """As known now. Raises ValidationError for one that cannot be read: that is not the same as none."""
        kv = self._informer.items.get(keys.placement_prefix(self._config.node) + key)
        return Placed(Placement.model_validate_json(kv.value), kv.mod_revision) if kv else None

    def _on_placement(self, key: str, _old: KeyValue | None, _new: KeyValue | None) -> None:
        self._wake(key.removeprefix(self._informer.prefix))

    def _on_report(self, key: str, _old: KeyValue | None, new: KeyValue | None) -> None:
        """Nobody else writes them. What cannot be read keeps the reconciler from deciding about the job, so it is replaced."""
        job = key.removeprefix(self._reports.prefix)
        if self._ledger.saw(job, new):
            log.error("%s: somebody wrote what cannot be read: writing it anew", key)
            self._wake(job)
        elif new is not None and job not in self._workers:
            self._wake(job)  # a write of ours that came through after we had given it up, and the job

    # --- what runs beside ---

    async def _keep_loaded(self) -> None:
        """Reads our own reports at the start and with every session, then lets every worker compare."""
        await self._informer.synced.wait()
        while True:
            try:
                await self._ledger.load()
            except StoreError as error:
                log.warning("own reports not read, trying again: %s", error)
                await asyncio.sleep(RELOAD_PAUSE)
                continue
            if not self._ready.is_set():
                self._informer.subscribe(self._on_placement)
                self._reports.subscribe(self._on_report)
                self._ready.set()
            placed = {key.removeprefix(self._informer.prefix) for key in self._informer.items}
            for key in sorted(placed | self._ledger.known() | self._workers.keys()):
                self._wake(key)
            await self._reload.wait()
            self._reload.clear()

    async def _look_at_usage(self, beat: Beat) -> None:
        every = self._config.timing.usage
        while True:
            await beat.sleep(every)
            if self._load.still_for() > 2 * every:
                continue
            for worker in list(self._workers.values()):
                await worker.look()

    async def _look_for_obstacles(self, beat: Beat) -> None:
        """One job after the other: a look takes milliseconds, and none is urgent."""
        every = self._config.timing.obstacles
        while True:
            await beat.sleep(min(1.0, every))
            for worker in list(self._workers.values()):
                await worker.look_for_obstacles(every)

    async def _look_at_fence(self) -> None:
        for worker in list(self._workers.values()):
            await worker.look_at_fence()

    def _watched(self) -> Iterator[Watched]:
        """Jobs whose load counts here: those that run, and those that stand frozen but have not left."""
        for worker in list(self._workers.values()):
            case = worker.case
            if case is None or case.record is None or case.sandbox is None or case.exit is not None:
                continue
            step = case.record.at
            if step in RUNS_HERE or step in (SourceStep.CONNECTING, SourceStep.FREEZING, SourceStep.SENT):
                started = case.record.started_at or self._clock.now()
                frozen = case.fenced or step in (SourceStep.FREEZING, SourceStep.SENT)
                age, before = (self._clock.now() - started).total_seconds(), case.record.base_cpu_seconds
                yield Watched(case.record.copy_here, case.sandbox, age, frozen, before, case.aged)


def tcp_exchange(config: Config) -> Exchange:
    """The data channel as it is in production. AgentError when its port is taken."""
    credentials = Credentials(Files.of_node(config.tls)) if config.tls else None
    timing = config.timing
    return TcpExchange("0.0.0.0", config.port, hello=timing.hello, silence=timing.answer, credentials=credentials)


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """One agent for one state directory. Raises AgentRunning."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AgentRunning(f"{state}: another agent runs with this state directory: end it first") from error
        yield
