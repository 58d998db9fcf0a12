"""Whatever agents and leaders do and whenever they die: one copy at most runs, and none is lost.

A walk takes agents' steps one by one in any order, lets time pass, kills leaders and nodes' sessions, ends jobs, deletes them, asks
for moves. After every single write to a placement the house checks its rule: a job holds one ``run``, or one ``leave`` and one
``arrive`` of the same epoch. After every step of the walk the copies that run are counted. At the end everybody is well again, and
the job must run exactly once, or have ended.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crds.job import FINISHED, Job
from crds.meta import Metadata
from crds.migration import Migration, MigrationSpec
from store import transaction
from store.errors import NotFound

from .fake_agent import OPTIONAL
from .house import House

NODES = ("n1", "n2", "n3")
JOB = "default/w"

Step = tuple[str, int]


@pytest.fixture(autouse=True, scope="module")
def impatient() -> Iterator[None]:
    """Lost answers are repeated at once, so that a walk waits for no real clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "PAUSE", 0.0)
        yield


WEIGHTS = {
    "agent": 10,
    "reconcile": 6,
    "race": 3,
    "migrate": 3,
    "wait": 2,
    "leader": 1,
    "silence": 1,
    "return": 1,
    "lost answer": 1,
    "finish": 0.2,
    "delete": 0.2,
    "forget moves": 0.5,
}
"""How often each step is taken, relative to the others. What ends the walk early comes seldom."""

RELUCTANCE = 4
"""One in so many steps of an agent is one that it takes only when something failed."""


def draw_path(random: Random, length: int) -> list[Step]:
    """Drawn by ourselves: hypothesis prefers short lists of small numbers, which end before anything has moved."""
    words = random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=length)
    return [(word, random.randrange(1000)) for word in words]


class Walk:
    """One walk through a house."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.asked = 0
        self.ended = False

    async def take(self, step: Step) -> None:
        word, number = step
        actions: dict[str, Callable[[int], Awaitable[None]]] = {
            "agent": self._act,
            "reconcile": lambda _: self.house.reconciled(),
            "race": self._race,
            "migrate": self._migrate,
            "wait": self._wait,
            "leader": self._change_leader,
            "silence": self._silence,
            "return": self._return,
            "lost answer": self._lose_answer,
            "finish": self._finish,
            "delete": self._delete,
            "forget moves": self._forget_moves,
        }
        await actions[word](number)
        assert len(self.house.running(JOB)) <= 1, f"after {step}: runs on {self.house.running(JOB)}"

    async def end_well(self) -> None:
        """Everybody returns and does his duty."""
        self.house.kv._faults.clear()
        self.house.kv.hook = None
        for name in NODES:
            self._come_back(name)
        for _ in range(10):
            await self.house.advance(10)
            assert len(self.house.running(JOB)) <= 1
        try:
            job = await self.house.job("w")
        except NotFound:
            assert self.house.running(JOB) == [] and self.house.placements() == {}
            return
        assert job.phase in FINISHED or self.house.running(JOB) == [job.node]
        assert (job.phase in FINISHED) == self.ended, f"{job.phase}: {job.message}"
        assert len(self.house.placements()) == 1 and job.migration is None

    # --- the steps ---

    async def _act(self, number: int) -> None:
        self._agent(number)

    def _agent(self, number: int) -> None:
        found = {name: step for agent in self.house.agents.values() for name, step in agent.steps().items()}
        reluctant = number % RELUCTANCE == 0
        names = [name for name in found if (name.split()[1] in OPTIONAL) == reluctant]
        if names:
            found[names[number // RELUCTANCE % len(names)]]()

    async def _race(self, number: int) -> None:
        """Somebody acts between the reconciler's decision and its next write."""

        def strike(call: str, moment: str) -> None:
            if call == "txn" and moment == "before":
                self.house.kv.hook = None
                self._agent(number)

        self.house.kv.hook = strike

    async def _wait(self, number: int) -> None:
        """Without the agents: what is due for the reconciler."""
        self.house.clock.move_to(self.house.clock.seconds + (1, 8, 25)[number % 3])
        await self.house.reconciled()

    async def _change_leader(self, _: int) -> None:
        await self.house.stop()
        await self.house.start()

    async def _silence(self, number: int) -> None:
        self.house.agents[NODES[number % len(NODES)]].die()

    async def _return(self, number: int) -> None:
        self._come_back(NODES[number % len(NODES)])

    def _come_back(self, name: str) -> None:
        agent = self.house.agents[name]
        agent.up = True
        if name not in self.house.world.alive:
            agent.beat()

    async def _lose_answer(self, _: int) -> None:
        self.house.kv.fail_next("txn", applied=True)

    async def _finish(self, _: int) -> None:
        for name in self.house.running(JOB):
            self.house.agents[name].finish(JOB)
            self.ended = True

    async def _migrate(self, number: int) -> None:
        self.asked += 1
        spec = MigrationSpec(job="w", to=NODES[number % len(NODES)], deadline=20)
        with self._unharmed():
            await self.house.store.create(Migration(metadata=Metadata(name=f"m{self.asked}"), spec=spec))

    async def _delete(self, _: int) -> None:
        with self._unharmed(), suppress(NotFound):
            await self.house.store.delete(Job, "w", "default")

    async def _forget_moves(self, _: int) -> None:
        with self._unharmed():
            for migration in (await self.house.store.list(Migration)).items:
                await self.house.store.delete(Migration, migration.name, "default")

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        """What people do themselves does not get the failures that are meant for the reconciler."""
        kv = self.house.kv
        faults, hook = list(kv._faults), kv.hook
        kv._faults[:], kv.hook = [], None
        try:
            yield
        finally:
            kv._faults[:], kv.hook = faults, hook


async def walk(path: list[Step]) -> None:
    async with House(*NODES) as house:
        await house.run("w", on="n1")
        await house.settle()
        walker = Walk(house)
        for step in path:
            await walker.take(step)
        await walker.end_well()


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_one_copy_at_most_runs_and_none_is_lost(seed: int) -> None:
    asyncio.run(walk(draw_path(Random(seed), 60)))


@pytest.mark.soak
@pytest.mark.timeout(900)
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_long_walks(seed: int) -> None:
    asyncio.run(walk(draw_path(Random(seed), 200)))
