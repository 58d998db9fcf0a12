"""The reconciler's own controllers with real agents (their processes are fakes): both sides keep to one contract."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from crds import keys
from crds.job import Job, JobPhase, JobSpec
from crds.meta import Metadata, find_condition
from crds.migration import Migration, MigrationPhase, MigrationSpec
from crds.node import Node
from nodeagent.errors import EngineFailed
from reconciler.daemon import lead
from store.errors import NotFound, StoreError
from store.kv import Compare, Put, Target
from store.memory import MemoryKV
from store.store import Store
from tests.integration.agents import Cluster, cluster_of, until

JOB = "w"


class House:
    """A cluster of real agents, led by the real controllers."""

    def __init__(self, agents: Cluster, kv: MemoryKV) -> None:
        self.agents = agents
        self.store = Store(kv)
        self._kv = kv
        self._leading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._kv.txn([], [Put(keys.LEADER, b"test")])
        held = await self._kv.get(keys.LEADER)
        assert held is not None
        token = Compare(keys.LEADER, Target.CREATE, held.create_revision)
        self._leading = asyncio.create_task(lead(self._kv.client(), token, asyncio.Event().wait))

    async def stop(self) -> None:
        if self._leading is not None:
            self._leading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._leading

    async def run(self, on: str, **spec: Any) -> str:
        """The uid of a job that runs there."""
        data = {"command": ["spin"], "placement": {"node": on}, "termination_grace": 0.2, **spec}
        job = await self.store.create(Job(metadata=Metadata(name=JOB), spec=JobSpec.model_validate(data)))
        await self.job_is(lambda job: job.status.phase == JobPhase.RUNNING, "running")
        return job.metadata.uid or ""

    async def migrate(self, to: str, *, name: str = "m", deadline: float = 15.0) -> None:
        spec = MigrationSpec(job=JOB, to=to, deadline=deadline)
        await self.store.create(Migration(metadata=Metadata(name=name), spec=spec))

    async def decided(self, name: str = "m") -> Migration:
        """The Migration when it is over."""

        async def over() -> bool:
            found = await self.store.get(Migration, name, "default")
            return found.status.phase in (MigrationPhase.SUCCEEDED, MigrationPhase.FAILED)

        await until(over, f"migration {name} to be over")
        return await self.store.get(Migration, name, "default")

    async def job_is(self, what: Callable[[Job], bool], text: str) -> None:
        async def so() -> bool:
            return what(await self.store.get(Job, JOB))

        await until(so, f"the job to be {text}")

    async def gone(self) -> None:
        async def so() -> bool:
            try:
                await self.store.get(Job, JOB)
            except NotFound:
                return True
            return False

        await until(so, "the job to be gone")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    kv = MemoryKV(clock=time.monotonic)
    async with cluster_of(tmp_path, kv, kv.client, "n1", "n2") as agents:
        made = House(agents, kv)
        for name in agents.nodes:
            await made.store.create(Node(metadata=Metadata(name=name)))
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


def reason(migration: Migration) -> str:
    found = find_condition(migration.status.conditions, "Failed")
    return found.reason if found else ""


async def test_a_job_runs_moves_there_and_back_and_is_deleted(house: House) -> None:
    uid = await house.run("n1")
    for number, (source, destination) in enumerate([("n1", "n2"), ("n2", "n1"), ("n1", "n2")]):
        await house.migrate(destination, name=f"m{number}")
        migration = await house.decided(f"m{number}")
        assert migration.status.phase == MigrationPhase.SUCCEEDED, migration.status.message
        assert (migration.status.source, migration.status.destination) == (source, destination)
        assert migration.status.freeze_ms is not None and migration.status.bytes > 0
        await house.agents.only_on(uid, destination)
    await house.job_is(lambda job: (job.status.phase, job.status.node, job.status.epoch) == (JobPhase.RUNNING, "n2", 4), "on n2")
    assert not await house.store.delete(Job, JOB, "default")
    await house.gone()
    assert house.agents.world.copies(uid) == []
    assert (await house.store.kv.list(keys.PLACEMENTS)).items == ()


async def test_a_restore_that_fails_sends_the_job_back_and_it_can_move_later(house: House) -> None:
    uid = await house.run("n1")
    house.agents.nodes["n2"].knobs.errors["restore"].append(EngineFailed("criu says no"))
    await house.migrate("n2", name="a")
    failed = await house.decided("a")
    assert (failed.status.phase, reason(failed)) == (MigrationPhase.FAILED, "Refused")
    assert "criu says no" in failed.status.message
    await house.agents.only_on(uid, "n1")
    await house.migrate("n2", name="b")
    assert (await house.decided("b")).status.phase == MigrationPhase.SUCCEEDED
    await house.agents.only_on(uid, "n2")


async def test_a_dump_that_fails_ends_the_move_long_before_its_deadline(house: House) -> None:
    uid = await house.run("n1")
    house.agents.nodes["n1"].knobs.errors["dump"].append(EngineFailed("cannot dump this"))
    await house.migrate("n2", deadline=3600)
    assert "cannot dump this" in (await house.decided()).status.message
    await house.agents.only_on(uid, "n1")


async def test_a_move_to_an_agent_that_stands_still_is_called_off(house: House) -> None:
    uid = await house.run("n1")
    destination = house.agents.nodes["n2"]
    destination.moments.wait_at["arrive.restored"] = asyncio.Event()
    await house.migrate("n2", deadline=1)
    failed = await house.decided()
    assert reason(failed) in ("DeadlineExceeded", "Refused")
    destination.moments.wait_at["arrive.restored"].set()
    await house.agents.only_on(uid, "n1")
    await house.job_is(lambda job: (job.status.phase, job.status.node) == (JobPhase.RUNNING, "n1"), "back on n1")


@pytest.mark.parametrize("moment", ["arrive.prepared", "arrive.received", "arrive.restored", "arrive.claimed", "arrive.resumed"])
async def test_a_destination_that_dies_and_returns_leaves_one_copy(house: House, moment: str) -> None:
    uid = await house.run("n1")
    destination = house.agents.nodes["n2"]
    destination.moments.crash_at.add(moment)
    await house.migrate("n2", deadline=10)
    await destination.crashed()
    await destination.start()
    migration = await house.decided()
    succeeded = migration.status.phase == MigrationPhase.SUCCEEDED
    assert succeeded == (moment in ("arrive.prepared", "arrive.claimed", "arrive.resumed")), migration.status.message
    await house.agents.only_on(uid, "n2" if succeeded else "n1")


@pytest.mark.parametrize("moment", ["leave.connected", "leave.streamed", "leave.end_sent", "leave.running"])
async def test_a_source_that_dies_and_returns_leaves_one_copy(house: House, moment: str) -> None:
    uid = await house.run("n1")
    source = house.agents.nodes["n1"]
    source.moments.crash_at.add(moment)
    await house.migrate("n2", deadline=10)
    await source.crashed()
    await source.start()
    migration = await house.decided()
    succeeded = migration.status.phase == MigrationPhase.SUCCEEDED
    assert succeeded == (moment in ("leave.end_sent", "leave.running")), migration.status.message
    await house.agents.only_on(uid, "n2" if succeeded else "n1")


async def test_a_leader_that_changes_in_the_middle_of_a_move_changes_nothing(house: House) -> None:
    uid = await house.run("n1")
    destination = house.agents.nodes["n2"]
    destination.moments.wait_at["arrive.restored"] = asyncio.Event()
    await house.migrate("n2")

    async def restored() -> bool:
        return "arrive.restored" in destination.moments.seen

    await until(restored, "the job to be restored")
    await house.stop()
    destination.moments.wait_at["arrive.restored"].set()
    await house.start()
    assert (await house.decided()).status.phase == MigrationPhase.SUCCEEDED
    await house.agents.only_on(uid, "n2")


async def test_the_end_is_mirrored(house: House) -> None:
    await house.store.create(Job(metadata=Metadata(name=JOB), spec=JobSpec(command=["exit", "3"])))
    await house.job_is(lambda job: job.status.phase in (JobPhase.FAILED, JobPhase.SUCCEEDED), "ended")
    job = await house.store.get(Job, JOB)
    assert job.status.exit_code is not None
    with contextlib.suppress(StoreError):
        await house.store.delete(Job, JOB, "default")
    await house.gone()
