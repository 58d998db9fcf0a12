"""The state machine: what may happen to a cluster, and what must hold after everything that happens."""

import asyncio
import contextlib
import functools
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from crds import keys
from crds.job import FINISHED, Job, JobPhase, JobSpec
from crds.meta import Metadata
from crds.migration import Migration, MigrationPhase, MigrationSpec
from crds.node import Node
from nodeagent.errors import EngineFailed
from store.errors import AlreadyExists, NotFound
from tests.integration.machine.cluster import Cluster, Reconciler
from tests.moments import DESTINATION, SOURCE
from tests.virtual import VirtualLoop

T = TypeVar("T")

NODES = ("n1", "n2", "n3")
JOBS = ("a", "b", "c")
COMMANDS = (["spin"], ["spin"], ["sh", "-c", "sleep 40;exit 3"], ["sh", "-c", "sleep 5;exit 0"], ["/no/such"])
HEALING = 150.0
"""Seconds after the last fault in which everything must have come to rest."""
REST = 60.0
"""Seconds after that in which nothing is written."""
SHORT = (0.0, 0.01, 0.1, 0.5, 1.0)
LONG = (3.0, 8.0, 20.0, 40.0)
MOMENTS = (
    *SOURCE,
    *DESTINATION,
    "leave.refused",
    "Resumed.before",
    "Resumed.after",
    "Refused.before",
    "arrive.refused",
    "start.intent",
)
PACES = (0.0, 0.02, 0.3, 2.0)
PAUSES = (0.0, 0.01, 0.05, 0.2, 1.0, 4.0)
DEADLINES = (5.0, 20.0, 60.0)

nodes, jobs = st.sampled_from(NODES), st.sampled_from(JOBS)


def happens(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule; after it a little time passes."""

    def declare(action: Callable[..., None]) -> Any:
        @functools.wraps(action)
        def step(self: "Cloud", **arguments: Any) -> None:
            action(self, **arguments)
            self.go_on()

        return rule(**strategies)(step)

    return declare


class Cloud(RuleBasedStateMachine):
    """One cluster and its people. ``steps`` counts the rules of all runs."""

    steps = 0
    moved = 0
    """Moves that succeeded, in all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="mx-machine-", dir=base))
        self.cluster = Cluster(self.root, self.loop, *NODES)
        self.random = Random(0)
        self.excused: set[str] = set()
        """uids of jobs whose node went down under them, or that were deleted: they may be gone."""
        self.names = 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """``seed`` is of what happens whatever rules are taken: traffic, and how much time passes between two rules."""
        self.random = Random(seed)
        self.cluster.pace = {word: self.random.choice(PACES) for word in ("create", "dump", "restore", "resume", "forget")}
        self.cluster.store_delay = self.random.choice((0.0, 0.005, 0.05))
        self.do(self.cluster.start())
        self.do(asyncio.sleep(2))
        self.traffic = self.loop.create_task(self._traffic(), name="people")

    async def _traffic(self) -> None:
        """People who want jobs to run, and to be elsewhere."""
        while True:
            name = self.random.choice(JOBS)
            if self.random.random() < 0.3:
                await self._create(name, self.random.choice(COMMANDS), None)
            else:
                await self._migrate(name, self.random.choice(NODES), self.random.choice(DEADLINES))
            await asyncio.sleep(self.random.choice(PAUSES))

    async def _create(self, name: str, command: list[str], node: str | None) -> None:
        data = {"command": command, "placement": {"node": node} if node else {}, "terminationGrace": 2}
        with contextlib.suppress(AlreadyExists):  # one of that name is enough
            await self.cluster.store.create(Job(metadata=Metadata(name=name), spec=JobSpec.model_validate(data)))
        job = await self.cluster.store.get(Job, name)
        if job.status.phase in FINISHED:
            await self._delete(name)

    async def _migrate(self, name: str, to: str | None, deadline: float) -> None:
        self.names += 1
        spec = MigrationSpec(job=name, to=to, deadline=deadline)
        await self.cluster.store.create(Migration(metadata=Metadata(name=f"m{self.names}"), spec=spec))

    async def _delete(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            job = await self.cluster.store.get(Job, name)
            if job.status.phase not in FINISHED:
                self.excused.add(job.metadata.uid or "")
            await self.cluster.store.delete(Job, name, "default", uid=job.metadata.uid)

    # --- people ---

    @happens(name=jobs, command=st.sampled_from(COMMANDS), node=st.none() | nodes)
    def create(self, name: str, command: list[str], node: str | None) -> None:
        self.do(self._create(name, command, node))

    @happens(name=jobs, to=st.none() | nodes, deadline=st.sampled_from(DEADLINES))
    def migrate(self, name: str, to: str | None, deadline: float) -> None:
        self.do(self._migrate(name, to, deadline))

    @happens(name=jobs)
    def delete(self, name: str) -> None:
        self.do(self._delete(name))

    @happens(number=st.integers(1, 1000))
    def forget_migration(self, number: int) -> None:
        found = self.do(self.cluster.store.list(Migration)).items
        if found:
            self.do(self.cluster.store.delete(Migration, found[number % len(found)].name, "default"))

    @happens(name=jobs, code=st.sampled_from((0, 3)))
    def end_job(self, name: str, code: int) -> None:
        """It ends by itself."""
        for shim in list(self.cluster.world.shims.values()):
            if shim.copy.name == name and shim.runs:
                self.do(_in_loop(shim.end, code))

    @happens(name=jobs, node=nodes)
    def kill_copy(self, name: str, node: str) -> None:
        """A signal from outside, also to a frozen copy."""
        for shim in list(self.cluster.world.shims.values()):
            if shim.copy.name == name and shim.node == node and shim.alive and shim.job is not None:
                self.do(_in_loop(shim.end, 137))
                if len(self.cluster.world.copies(shim.copy.uid)) == 0:
                    self.excused.add(shim.copy.uid)

    # --- daemons ---

    @happens(node=nodes, left=st.integers(0, 40), back=st.sampled_from((*SHORT, *LONG)))
    def crash_agent(self, node: str, left: int, back: float) -> None:
        """At one of its next effects; another one starts after a while."""
        machine = self.cluster.machines[node]
        if machine.life is not None and machine.life.left is None:
            machine.life.left = left
            self.loop.call_later(back, self._restart, node)

    @happens(node=nodes, moment=st.sampled_from(MOMENTS), back=st.sampled_from((*SHORT, *LONG)))
    def crash_agent_at(self, node: str, moment: str, back: float) -> None:
        """When it comes to that moment; another one starts a while after."""
        machine = self.cluster.machines[node]
        if machine.life is not None:
            machine.life.doom = moment
            machine.life.mourner = lambda: self.loop.call_later(back, self._restart, node)

    @happens(node=nodes)
    def crash_agent_now(self, node: str) -> None:
        machine = self.cluster.machines[node]
        if machine.life is not None and not machine.life.over:
            machine.life.end()
            self.turns(3)
            self._restart(node)

    @happens(node=nodes, back=st.sampled_from(LONG))
    def power_cut(self, node: str, back: float) -> None:
        machine = self.cluster.machines[node]
        if machine.life is None or machine.life.over:
            return
        world = self.cluster.world
        self.excused |= {shim.copy.uid for shim in world.shims.values() if shim.node == node and shim.alive}
        machine.life.end()
        self.do(machine.power_off())
        self.loop.call_later(back, self._restart, node)

    @happens(number=st.integers(0, 1), left=st.integers(0, 30), back=st.sampled_from((*SHORT, *LONG)))
    def crash_reconciler(self, number: int, left: int, back: float) -> None:
        """At one of its next effects; another one starts after a while, besides the one that stands by."""
        living = self.cluster.candidates
        if number < len(living) and living[number].life.left is None:
            living[number].life.left = left
            self.loop.call_later(back, self._replace, living[number])

    def _replace(self, old: Reconciler) -> None:
        old.life.end()
        self.cluster.add_reconciler()

    def _restart(self, node: str) -> None:
        self.loop.create_task(self._back(node))

    async def _back(self, node: str) -> None:
        machine = self.cluster.machines[node]
        if machine.life is not None and machine.life.left is not None:
            machine.life.end()  # it was told to die and has not come to it
        async with machine.starting:
            if machine.dead:
                await machine.bury()
                machine.start()

    # --- etcd and the network ---

    @happens(who=st.sampled_from((*NODES, "reconcilers", "all")), seconds=st.sampled_from((*SHORT, *LONG)))
    def no_etcd(self, who: str, seconds: float) -> None:
        for kv in self._clients(who):
            kv.down = True
            self.loop.call_later(seconds, setattr, kv, "down", False)

    @happens(
        who=st.sampled_from((*NODES, "reconcilers")),
        call=st.sampled_from(("txn", "txn", "get", "list", "keep_alive")),
        applied=st.booleans(),
    )
    def lose_answer(self, who: str, call: str, applied: bool) -> None:
        for kv in self._clients(who):
            kv.fail_next(call, applied=applied)

    @happens(who=st.sampled_from((*NODES, "reconcilers")), lag=st.sampled_from((0.0, 0.5, 3.0, 10.0)))
    def stale_watch(self, who: str, lag: float) -> None:
        for kv in self._clients(who):
            kv.lag = lag

    @happens(who=st.sampled_from((*NODES, "reconcilers")), delay=st.sampled_from((0.0, 0.2, 2.0)))
    def slow_etcd(self, who: str, delay: float) -> None:
        for kv in self._clients(who):
            kv.delay = delay

    @happens()
    def compact(self) -> None:
        """Whoever has to watch from before has to list again."""
        server = self.cluster.kv.server
        if server.compacted < server.revision:
            server.compact(server.revision)
        for who in (*NODES, "reconcilers"):
            for kv in self._clients(who):
                kv.drop_watches()

    @happens(number=st.integers(0, 100))
    def cut_link(self, number: int) -> None:
        links = self.cluster.network.links[-3:]
        if links:
            self.do(_in_loop(links[number % len(links)].cut))

    @happens(one=nodes, other=nodes, seconds=st.sampled_from((*SHORT, *LONG)))
    def part(self, one: str, other: str, seconds: float) -> None:
        """No connection between two nodes for a while; those that stand are silent."""
        if one == other:
            return
        network = self.cluster.network
        network.forbid(one, other)
        held = [link for link in network.links[-5:] if {link.caller, link.callee} == {one, other}]
        for link in held:
            self.do(_in_loop(link.hold))

        def heal() -> None:
            network.allow(one, other)
            for link in held:
                link.release()

        self.loop.call_later(seconds, heal)

    @happens(node=nodes, what=st.sampled_from(("dump", "restore", "restore", "create", "resume", "forget", "adopt")))
    def fail_criu(self, node: str, what: str) -> None:
        self.cluster.machines[node].knobs.errors[what].append(EngineFailed(f"{what} failed on demand"))

    @happens(
        node=nodes,
        what=st.sampled_from(("dump", "restore", "create", "forget", "resume")),
        seconds=st.sampled_from((0.0, 0.3, 3.0, 30.0)),
    )
    def slow_criu(self, node: str, what: str, seconds: float) -> None:
        self.cluster.machines[node].knobs.delay[what] = seconds

    # --- time ---

    @happens(seconds=st.sampled_from((*SHORT, *LONG)))
    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    def turns(self, number: int) -> None:
        """Some turns of the loop, in which (nearly) no time passes."""
        self.do(_turns(number))

    def go_on(self) -> None:
        """Between two rules."""
        if self.random.random() < 0.5:
            self.turns(self.random.randrange(100))
        else:
            self.do(asyncio.sleep(self.random.choice(PAUSES)))

    # --- what must hold ---

    @invariant()
    def one_copy(self) -> None:
        Cloud.steps += 1
        world = self.cluster.world
        for uid in {copy.uid for _, copy in world.shims}:
            assert world.most_running(uid) <= 1, f"two copies of {uid} ran at once"
            assert world.starts[uid] <= 1, f"{uid} was started twice"

    @invariant()
    def none_lost(self) -> None:
        world = self.cluster.world
        for uid, times in world.starts.items():
            if times and uid not in self.excused and not world.exits[uid]:
                assert world.copies(uid), f"{uid} is lost"

    @invariant()
    def no_daemon_ended(self) -> None:
        for machine in self.cluster.machines.values():
            if machine.task is not None and machine.task.done():
                self.cluster.judge_end(machine.task)
        for each in self.cluster.candidates:
            if each.task.done():
                self.cluster.judge_end(each.task)
        assert not self.cluster.defects, self.cluster.defects

    # --- the end ---

    def teardown(self) -> None:
        try:
            self.do(self._heal())
            self.do(asyncio.sleep(HEALING))
            self.one_copy()
            self.none_lost()
            self.no_daemon_ended()
            self.do(self._judge())
            self.do(self._rests())
        except AssertionError:
            note(self.do(self._picture()))
            raise
        finally:
            self.do(self.cluster.close())
            self.loop.close()
            shutil.rmtree(self.root, ignore_errors=True)

    async def _heal(self) -> None:
        """Nothing goes wrong any more."""
        self.traffic.cancel()
        await asyncio.sleep(50)  # all that was to come back by itself has
        for kv in [kv for who in (*NODES, "reconcilers") for kv in self._clients(who)]:
            kv.down, kv.lag, kv.delay = False, 0.0, 0.0
            kv._faults.clear()
        for name, machine in self.cluster.machines.items():
            machine.knobs.errors.clear()
            machine.knobs.delay.clear()
            await self._back(name)
        if not self.cluster.candidates:
            self.cluster.add_reconciler()

    async def _judge(self) -> None:
        store, world = self.cluster.store, self.cluster.world
        for migration in (await store.list(Migration)).items:
            phase = migration.status.phase
            assert phase in (MigrationPhase.SUCCEEDED, MigrationPhase.FAILED), (
                f"{migration.name} is {phase}: {migration.status.message}"
            )
            assert phase == MigrationPhase.SUCCEEDED or migration.status.message, f"{migration.name} failed without a message"
            Cloud.moved += phase == MigrationPhase.SUCCEEDED
        found = {job.metadata.uid or "": job for job in (await store.list(Job)).items}
        for uid, job in found.items():
            self._judge_job(uid, job)
        for shim in world.shims.values():
            assert shim.copy.uid in found, f"{shim.copy} is left on {shim.node}"
            assert not (shim.job and shim.job.stopped), f"{shim.copy} stands frozen on {shim.node}"
        for machine in self.cluster.machines.values():
            assert not machine.images, f"images are left: {machine.images}"
        await self._judge_keys(found)

    def _judge_job(self, uid: str, job: Job) -> None:
        world, status = self.cluster.world, job.status
        running = world.running(uid)
        assert job.metadata.deletion_timestamp is None, f"{job.name} is still being deleted: {status.message}"
        if status.phase in FINISHED:
            assert not running, f"{job.name} is {status.phase} and runs on {running}"
            # one of which only the intent to start it was written is never started: that, too, is told
            if uid not in self.excused and world.starts[uid] and status.exit_code not in (126, 127):
                assert status.exit_code in world.exits[uid], (
                    f"{job.name}: {status.exit_code}, {status.message}, really {world.exits[uid]}"
                )
        else:
            assert status.phase == JobPhase.RUNNING, f"{job.name} is {status.phase}: {status.message}"
            assert running == [status.node], f"{job.name} is said to be on {status.node}, and runs on {running}"

    async def _picture(self) -> str:
        """For whoever has to find out why."""
        lines = [f"time {self.loop.time():.1f}"]
        ignored = (keys.EVENTS, keys.kind_prefix(Node))
        lines += [
            f"{kv.key} {kv.value.decode()}"
            for kv in (await self.cluster.kv.list(keys.ROOT)).items
            if not kv.key.startswith(ignored) and not kv.key.endswith(("/load", "/alive"))
        ]
        lines += [
            f"{shim.node} {copy} runs={shim.runs} alive={shim.alive} exit={shim.exit}"
            for (_, copy), shim in self.cluster.world.shims.items()
        ]
        for machine in self.cluster.machines.values():
            lines += [f"{path}: {path.read_text().splitlines()[-1]}" for path in machine.config.journal.glob("*")]
        return "\n".join(lines)

    async def _judge_keys(self, found: dict[str, Job]) -> None:
        names = {f"default/{job.name}": job for job in found.values()}
        for prefix in (keys.PLACEMENTS, keys.NODES):
            for kv in (await self.cluster.kv.list(prefix)).items:
                parts = keys.parts(kv.key)
                if prefix == keys.NODES and parts[2] in ("alive", "load"):
                    continue
                job = names.get("/".join(parts[-2:]))
                assert job is not None and parts[1] == job.status.node, f"{kv.key} is left"
                assert "claims" not in parts, f"{kv.key} is left"

    async def _rests(self) -> None:
        """Nothing is written when nothing changes, but the load, and in the nodes' status that they are there."""
        before = await self._written()
        await asyncio.sleep(REST)
        after = await self._written()
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert not changed, f"written without a reason: {changed}"

    async def _written(self) -> dict[str, int]:
        items = (await self.cluster.kv.list(keys.ROOT)).items
        ignored = (keys.EVENTS, keys.kind_prefix(Node))
        return {kv.key: kv.mod_revision for kv in items if not kv.key.endswith("/load") and not kv.key.startswith(ignored)}

    def _clients(self, who: str) -> list[Any]:
        machines = [machine.kv for name, machine in self.cluster.machines.items() if who in (name, "all")]
        return machines + [each.kv for each in self.cluster.candidates if who in ("reconcilers", "all")]


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def _in_loop(work: Any, *arguments: Any) -> None:
    work(*arguments)
