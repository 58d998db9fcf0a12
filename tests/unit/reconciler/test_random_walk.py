"""Whatever agents and leaders do and whenever they die: one copy at most runs, and none is lost.

A walk takes agents' steps one by one in any order, lets time pass, kills leaders and nodes' sessions, ends jobs, deletes them, asks
for moves. After every single write to a placement the house checks its rule: a job holds one ``run``, or one ``leave`` and one
``arrive`` of the same epoch. After every step of the walk the copies that run are counted. At the end everybody is well again, and
the job must run exactly once, or have ended.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crds.job import FINISHED, Job
from crds.meta import Metadata
from crds.migration import Migration, MigrationSpec
from store.errors import NotFound

from .house import House

NODES = ("n1", "n2", "n3")
JOB = "default/w"

Step = tuple[str, int]

steps = st.one_of(
    st.tuples(st.just("agent"), st.integers(0, 20)),
    st.tuples(st.just("agent"), st.integers(0, 20)),
    st.tuples(st.just("agent"), st.integers(0, 20)),
    st.tuples(st.just("reconcile"), st.just(0)),
    st.tuples(st.just("reconcile"), st.just(0)),
    st.tuples(st.just("migrate"), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.sampled_from([1, 8, 25])),
    st.tuples(st.just("leader"), st.just(0)),
    st.tuples(st.just("silence"), st.integers(0, 2)),
    st.tuples(st.just("return"), st.integers(0, 2)),
    st.tuples(st.just("lost answer"), st.just(0)),
    st.tuples(st.just("finish"), st.just(0)),
    st.tuples(st.just("delete"), st.just(0)),
    st.tuples(st.just("forget moves"), st.just(0)),
)


class Walk:
    """One walk through a house."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.asked = 0
        self.ended = False

    async def take(self, step: Step) -> None:
        word, number = step
        match word:
            case "agent":
                self._agent(number)
            case "reconcile":
                await self.house.reconciled()
            case "migrate":
                await self._migrate(NODES[number])
            case "wait":
                self.house.clock.move_to(self.house.clock.seconds + number)
                await self.house.reconciled()
            case "leader":
                await self.house.stop()
                await self.house.start()
            case "silence":
                self.house.agents[NODES[number]].die()
            case "return":
                self._return(NODES[number])
            case "lost answer":
                self.house.kv.fail_next("txn", applied=True)
            case "finish":
                self._finish()
            case "delete":
                await self._delete()
            case "forget moves":
                await self._forget_moves()
        assert len(self.house.running(JOB)) <= 1, f"after {step}: runs on {self.house.running(JOB)}"

    async def end_well(self) -> None:
        """Everybody returns and does his duty."""
        self.house.kv._faults.clear()
        for name in NODES:
            self._return(name)
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

    def _agent(self, number: int) -> None:
        found = [step for agent in self.house.agents.values() for step in agent.steps().values()]
        if found:
            found[number % len(found)]()

    def _return(self, name: str) -> None:
        agent = self.house.agents[name]
        agent.up = True
        if name not in self.house.world.alive:
            agent.beat()

    async def _migrate(self, to: str) -> None:
        self.asked += 1
        spec = MigrationSpec(job="w", to=to, deadline=20)
        await self._past_faults(Migration(metadata=Metadata(name=f"m{self.asked}"), spec=spec))

    async def _past_faults(self, obj: Migration) -> None:
        """People's own requests do not get the failures that are meant for the reconciler."""
        faults, self.house.kv._faults[:] = list(self.house.kv._faults), []
        await self.house.store.create(obj)
        self.house.kv._faults[:] = faults

    def _finish(self) -> None:
        for name in self.house.running(JOB):
            self.house.agents[name].finish(JOB)
            self.ended = True

    async def _delete(self) -> None:
        faults, self.house.kv._faults[:] = list(self.house.kv._faults), []
        try:
            await self.house.store.delete(Job, "w", "default")
        except NotFound:
            return
        finally:
            self.house.kv._faults[:] = faults

    async def _forget_moves(self) -> None:
        faults, self.house.kv._faults[:] = list(self.house.kv._faults), []
        for migration in (await self.house.store.list(Migration)).items:
            await self.house.store.delete(Migration, migration.name, "default")
        self.house.kv._faults[:] = faults


async def walk(path: list[Step]) -> None:
    async with House(*NODES) as house:
        await house.run("w", on="n1")
        await house.settle()
        walker = Walk(house)
        for step in path:
            await walker.take(step)
        await walker.end_well()


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=5, max_size=40))
def test_one_copy_at_most_runs_and_none_is_lost(path: list[Step]) -> None:
    asyncio.run(walk(path))


@pytest.mark.soak
@settings(max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=20, max_size=120))
def test_long_walks(path: list[Step]) -> None:
    asyncio.run(walk(path))
