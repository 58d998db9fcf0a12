"""What all rules of the state machine share: the cluster, its people's wishes, and who may be gone."""

import asyncio
import contextlib
import functools
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from crds.job import FINISHED, Fencing, Job, JobSpec, MigrationMode, RestartPolicy
from crds.meta import Metadata
from crds.migration import Migration, MigrationPhase, MigrationSpec
from nodeagent.engine import Copy
from nodeagent.jobdir import job_directory
from store.errors import AlreadyExists, Conflict, NotFound
from tests.fakes.world import Shim
from tests.integration.machine.cluster import Cluster, Reconciler
from tests.integration.machine.strikes import Strike, strikes
from tests.virtual import VirtualLoop

T = TypeVar("T")

NODES = ("n1", "n2", "n3")
JOBS = ("a", "b", "c")
COMMANDS = (*[["spin"]] * 4, ["sh", "-c", "sleep 40;exit 3"], ["sh", "-c", "sleep 5;exit 0"], ["/no/such"])
MODES = (None, None, MigrationMode.POST_COPY, MigrationMode.POST_COPY, MigrationMode.PRE_COPY)
POLICIES = (RestartPolicy.NEVER, RestartPolicy.NEVER, RestartPolicy.FROM_CHECKPOINT, RestartPolicy.ON_FAILURE)
FENCINGS = (None, None, None, Fencing.KILL, Fencing.KEEP)
PACES = (0.0, 0.02, 0.3, 2.0)
STREAMS = (0.0, 0.3, 5.0, 30.0)
"""Seconds that memory takes to follow a job."""
PAUSES = (0.0, 0.01, 0.05, 0.2, 1.0, 4.0)
DEADLINES = (5.0, 20.0, 60.0)
WAITING = 8
"""Strikes that wait at most; the oldest is given up for a new one."""
OPEN = (MigrationPhase.PENDING, MigrationPhase.MOVING)


def happens(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule; a strike may be laid for what it brings about, and after it a little time passes."""

    def declare(action: Callable[..., None]) -> Any:
        @functools.wraps(action)
        def step(self: "Base", strike: Strike | None, **arguments: Any) -> None:
            if strike is not None:
                self.strikes = [*self.strikes[1 - WAITING :], strike]
            action(self, **arguments)
            self.go_on()

        return rule(strike=st.none() | strikes(NODES), **strategies)(step)

    return declare


class Base(RuleBasedStateMachine):
    """One cluster and its people. ``steps`` counts the rules of all runs."""

    steps = 0
    moved = 0
    """Moves that succeeded, in all runs."""
    counted: ClassVar[Counter[str]] = Counter()
    """Strikes that came true, and how moves ended, in all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="mx-machine-", dir=base))
        self.cluster = Cluster(self.root, self.loop, *NODES)
        self.random = Random(0)
        self.strikes: list[Strike] = []
        self.excused: set[str] = set()
        """uids of jobs that may be gone: their machine went down under them, or memory that was to follow them was cut off, or they
        were deleted."""
        self.restartable: set[str] = set()
        """uids of jobs that are started anew when they fail."""
        self.names = 0
        self.over = False
        """Nothing goes wrong any more."""

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """``seed`` is of what happens whatever rules are taken: traffic, and how much time passes between two rules."""
        self.random = Random(seed)
        words = ("create", "dump", "restore", "resume", "forget", "pre_dump", "serve")
        self.cluster.pace = {word: self.random.choice(PACES) for word in words} | {"pages": self.random.choice(STREAMS)}
        self.cluster.store_delay, self.cluster.store_answer = (self.random.choice((0.0, 0.005, 0.05)) for _ in range(2))
        self.cluster.witness = self._witness
        self.do(self.cluster.start())
        self.do(asyncio.sleep(2))
        self.traffic = self.loop.create_task(self._traffic(), name="people")

    async def _witness(self, node: str, moment: str, copy: Copy) -> None:
        """An agent is at that moment: what was laid for it strikes."""
        if moment == "start.created":
            job_directory(self.cluster.shared, copy).mkdir(parents=True, exist_ok=True)  # as a real sandbox does
        for strike in self.strikes:
            if strike.moment == moment:
                self.strikes.remove(strike)
                await strike.on(self, node, copy)
                return

    # --- people ---

    async def _traffic(self) -> None:
        """People who want jobs to run, and to be elsewhere."""
        while True:
            name = self.random.choice(JOBS)
            if self.random.random() < 0.3:
                await self._create(name, self.random.choice(COMMANDS), None)
            else:
                await self._migrate(name, self.random.choice(NODES), self.random.choice(DEADLINES), self.random.choice(MODES))
            await asyncio.sleep(self.random.choice(PAUSES))

    async def _create(self, name: str, command: list[str], node: str | None) -> None:
        policy = self.random.choice(POLICIES) if command == ["spin"] else RestartPolicy.NEVER
        data = {
            "command": command,
            "placement": {"node": node} if node else {},
            "terminationGrace": 2,
            "restart": {"policy": policy},
            "fencing": self.random.choice(FENCINGS),
        }
        with contextlib.suppress(AlreadyExists):  # one of that name is enough
            job = await self.cluster.store.create(Job(metadata=Metadata(name=name), spec=JobSpec.model_validate(data)))
            if policy == RestartPolicy.ON_FAILURE:
                self.restartable.add(job.metadata.uid or "")
        job = await self.cluster.store.get(Job, name)
        if job.status.phase in FINISHED:
            await self.delete_job(name)

    async def _migrate(self, name: str, to: str | None, deadline: float, mode: MigrationMode | None) -> None:
        self.names += 1
        spec = MigrationSpec(job=name, to=to, deadline=deadline, mode=mode)
        await self.cluster.store.create(Migration(metadata=Metadata(name=f"m{self.names}"), spec=spec))

    async def delete_job(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            job = await self.cluster.store.get(Job, name)
            if job.status.phase not in FINISHED:
                self.excused.add(job.metadata.uid or "")
            await self.cluster.store.delete(Job, name, "default", uid=job.metadata.uid)

    async def cancel_move(self, name: str) -> None:
        """As ``mxctl migrate --cancel``: the move of the job that is under way, or that is to begin."""
        moves = [m for m in (await self.cluster.store.list(Migration)).items if m.spec.job == name and m.status.phase in OPEN]
        moves.sort(key=lambda move: (move.status.phase != MigrationPhase.MOVING, move.name))

        def change(found: Migration) -> None:
            found.spec.cancelled = True

        if moves:
            with contextlib.suppress(NotFound, Conflict):
                await self.cluster.store.change(Migration, moves[0].name, "default", change)

    # --- what may be gone ---

    def shims(self, node: str, name: str | None = None) -> list[Shim]:
        """Living copies on that node."""
        found = [shim for shim in self.cluster.world.shims.values() if shim.node == node and shim.alive]
        return [shim for shim in found if name is None or shim.copy.name == name]

    def kill(self, shim: Shim) -> None:
        """A signal from outside, also to a frozen copy."""
        if shim.alive and shim.job is not None:
            shim.end(137)
            if not self.cluster.world.copies(shim.copy.uid):
                self.excused.add(shim.copy.uid)

    def power_off(self, node: str, back: float) -> None:
        machine = self.cluster.machines[node]
        if machine.life is None or machine.life.over:
            return
        self.excused |= {shim.copy.uid for shim in self.shims(node)}
        machine.life.end()
        going = self.loop.create_task(machine.power_off())
        going.add_done_callback(lambda _: self.loop.call_later(back, self.restart, node))

    def break_stream(self, shim: Shim, end: Callable[[], None]) -> None:
        """Memory that was to follow a job does not: that is what post-copy costs once the job is restored elsewhere."""
        others = [other for other in self.cluster.world.copies(shim.copy.uid) if other.node != shim.node]
        if any(other.stream is not None for other in others):
            self.excused.add(shim.copy.uid)
        end()

    # --- daemons ---

    def crash(self, node: str, back: float) -> None:
        """Now; another one starts after a while."""
        machine = self.cluster.machines[node]
        if machine.life is not None and not machine.life.over:
            machine.life.end()
            self.loop.call_later(back, self.restart, node)

    def restart(self, node: str) -> None:
        if not self.over:
            self.loop.create_task(self.back(node))

    async def back(self, node: str) -> None:
        """Its agent lives, and will."""
        machine = self.cluster.machines[node]
        if machine.life is not None and machine.life.left is not None:
            machine.life.end()  # it was told to die and has not come to it
        async with machine.starting:
            if machine.dead:
                await machine.bury()
                machine.start()

    def replace(self, old: Reconciler) -> None:
        if not self.over:
            old.life.end()
            self.cluster.add_reconciler()

    async def mend(self) -> None:
        """All that is broken."""
        self.strikes.clear()
        self.cluster.network.mend()
        for node in NODES:
            await self.back(node)
        if not self.cluster.candidates:
            self.cluster.add_reconciler()
        for kv in self.clients("all"):
            kv.down, kv.lag, kv.delay, kv.answer = False, 0.0, 0.0, 0.0

    def clients(self, who: str) -> list[Any]:
        """Connections to etcd of a node, of the "reconcilers", or of "all"."""
        machines = [machine.kv for name, machine in self.cluster.machines.items() if who in (name, "all")]
        return machines + [each.kv for each in self.cluster.candidates if who in ("reconcilers", "all")]

    def cut_off(self, who: str, seconds: float) -> None:
        """From etcd."""
        for kv in self.clients(who):
            kv.down = True
            self.loop.call_later(seconds, setattr, kv, "down", False)

    def part(self, one: str, other: str, seconds: float) -> None:
        """No connection between two nodes for a while; those that stand are silent."""
        network, ends = self.cluster.network, {one, other}
        network.forbid(one, other)
        held = [link for link in network.links[-5:] if {link.caller, link.callee} == ends]
        wires = [wire for wire in network.wires[-5:] if {wire.source, wire.destination} == ends]
        for each in (*held, *wires):
            each.hold()

        def heal() -> None:
            network.allow(one, other)
            for each in (*held, *wires):
                each.release()

        self.loop.call_later(seconds, heal)

    # --- time ---

    def turns(self, number: int) -> None:
        """Some turns of the loop, in which (nearly) no time passes."""
        self.do(_turns(number))

    def go_on(self) -> None:
        """Between two rules."""
        if self.random.random() < 0.5:
            self.turns(self.random.randrange(100))
        else:
            self.do(asyncio.sleep(self.random.choice(PAUSES)))


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def in_loop(work: Any, *arguments: Any) -> None:
    """A plain call, from within the loop."""
    work(*arguments)
