"""When a silent node must have stopped its jobs, what the placements say of that, and what becomes of stale copies."""

from datetime import UTC, datetime

import pytest

from crds import keys
from crds.cluster import Cluster, ClusterSpec
from crds.job import FENCED, Fencing, Job, JobPhase, JobSpec
from crds.load import Alive, LoadVector
from crds.meta import Metadata, Model, find_condition
from crds.migration import MigrationPhase
from crds.node import GUARDED
from crds.placement import Placement, Role
from crds.report import JobReport, ReportPhase
from reconciler.controllers.placing import dropped
from reconciler.controllers.readiness import Silence, has_fenced
from reconciler.world import World
from store.kv import Delete, KeyValue, Put

from .house import House

SPEC = JobSpec(command=["x"])
JOB = "default/w"


def seen(*, report: JobReport | None, fencing: Fencing = Fencing.FREEZE, alive: bool = False, epoch: int = 3) -> World:
    """A world in which n1 holds the job, or did."""
    world = World()
    placement = Placement(uid="u", epoch=epoch, role=Role.RUN, spec=SPEC, fencing=fencing)
    heartbeat = Alive(boot_id="b", agent_version="1", address="a:1", since=datetime.now(UTC))
    values: list[tuple[str, Model | None]] = [
        (keys.placement("n1", "default", "w"), placement),
        (keys.report("n1", "default", "w"), report),
        (keys.alive("n1"), heartbeat if alive else None),
    ]
    for revision, (key, value) in enumerate(values, 1):
        if value is not None:
            world.apply(key, None, KeyValue(key, value.to_json(), revision, revision, 1, 0))
    return world


def report(phase: ReportPhase = ReportPhase.RUNNING, *, promise: float | None = 15.0, epoch: int = 3, uid: str = "u") -> JobReport:
    return JobReport(uid=uid, epoch=epoch, phase=phase, boot_id="b", fenced_after=promise)


@pytest.mark.parametrize(
    ("world", "absent", "fenced", "after", "words"),
    [
        (seen(report=report()), 0.0, False, 15.0, "within 15 s of silence"),
        (seen(report=report()), 14.5, False, 0.5, "within 15 s of silence"),
        (seen(report=report()), 15.0, True, None, "stands still there"),
        (seen(report=report(), fencing=Fencing.KILL), 15.0, True, None, "was killed there"),
        (seen(report=report(), alive=True), 99.0, False, None, "answers"),
        (seen(report=None), 1e9, False, None, "never reported"),
        (seen(report=report(uid="another")), 1e9, False, None, "never reported"),
        (seen(report=report(promise=None), fencing=Fencing.KEEP), 1e9, False, None, "fencing: keep"),
        (seen(report=report(promise=None)), 1e9, False, None, "no guard"),
        (seen(report=report(), fencing=Fencing.KEEP), 15.0, True, None, "stands still there"),
        (seen(report=report(promise=None), fencing=Fencing.FREEZE), 1e9, False, None, "may run on there"),
        (seen(report=report(ReportPhase.FAILED, promise=None)), 0.0, True, None, "ended"),
        (seen(report=report(ReportPhase.FAILED, promise=None, epoch=2)), 1e9, False, None, "may run on"),
    ],
)
def test_what_is_known_of_a_silent_node(world: World, absent: float, fenced: bool, after: float | None, words: str) -> None:
    """The promise in the report counts, not the wish in the placement: the node may not have read that any more."""
    found = has_fenced(world, "n1", JOB, absent)
    assert (found.fenced, found.after) == (fenced, after)
    assert words in found.why


def test_an_unreadable_heartbeat_is_one() -> None:
    world = seen(report=report())
    world.apply(keys.alive("n1"), None, KeyValue(keys.alive("n1"), b"no JSON", 9, 9, 1, 0))
    assert has_fenced(world, "n1", JOB, 1e9) == Silence(False, "its node answers")


def test_a_heartbeat_that_came_and_went_begins_the_silence_anew() -> None:
    world = seen(report=report(), alive=True)
    key = keys.alive("n1")
    before = world.sessions["n1"]
    world.apply(key, None, None)
    assert world.sessions["n1"] == before
    world.apply(key, None, KeyValue(key, b"{}", 9, 9, 1, 0))
    world.apply(key, None, None)
    assert world.sessions["n1"] == before + 1


async def placed(house: House, node: str = "n1") -> Placement:
    found = house.kv.server.get(keys.placement(node, "default", "w"))
    assert found is not None
    return Placement.model_validate_json(found.value)


async def test_the_jobs_own_wish_stands_above_the_clusters() -> None:
    async with House("n1") as house:
        await house.store.create(Cluster(metadata=Metadata(name="c"), spec=ClusterSpec(fencing=Fencing.KILL)))
        await house.run("w")
        await house.settle()
        assert (await placed(house)).fencing == Fencing.KILL
    async with House("n1") as house:
        await house.store.create(Cluster(metadata=Metadata(name="c"), spec=ClusterSpec(fencing=Fencing.KILL)))
        await house.store.create(Job(metadata=Metadata(name="w"), spec=SPEC.model_copy(update={"fencing": Fencing.KEEP})))
        await house.settle()
        assert (await placed(house)).fencing == Fencing.KEEP


async def test_a_new_default_reaches_running_jobs_without_another_epoch() -> None:
    async with House("n1") as house:
        await house.store.create(Cluster(metadata=Metadata(name="c")))
        await house.run("w")
        await house.settle()
        before = await placed(house)
        cluster = await house.store.get(Cluster, "c")
        cluster.spec.fencing = Fencing.KILL
        await house.store.update(cluster)
        await house.settle()
        assert await placed(house) == before.model_copy(update={"fencing": Fencing.KILL})
        assert (await house.job("w")).phase == JobPhase.RUNNING


async def test_people_are_told_what_is_known_of_a_job_on_a_silent_node() -> None:
    async with House("n1") as house:
        await house.store.create(Cluster(metadata=Metadata(name="c"), spec=ClusterSpec(node_grace_period=5.0)))
        await house.run("w")
        await house.settle()
        house.agents["n1"].die()
        await house.advance(6)
        status = await house.job("w")
        assert (status.phase, "within 15 s of silence" in status.message) == (JobPhase.UNKNOWN, True)
        await house.advance(10)
        assert "stands still there since its node's lease ran out" in (await house.job("w")).message
        house.agents["n1"].beat()
        house.agents["n1"].up = True
        await house.settle()
        assert (await house.job("w")).phase == JobPhase.RUNNING


async def test_a_job_that_its_node_killed_says_so() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        agent = house.agents["n1"]
        copy = agent.copies[JOB]
        copy.state = "ended"
        agent._report(JOB, copy, ReportPhase.FAILED, exit_code=137, reason=FENCED, message="killed by its node")
        await house.settle()
        status = await house.job("w")
        condition = find_condition(status.conditions, "Failed")
        assert condition is not None
        assert (status.phase, condition.reason, condition.message) == (JobPhase.FAILED, FENCED, "killed by its node")


async def take_away(house: House) -> None:
    """As who starts it elsewhere does."""
    job = await house.store.get(Job, "w", "default")
    epoch = job.status.epoch + 1
    old = await placed(house)
    job.status.node, job.status.epoch = "n2", epoch
    await house.store.update_status(job)
    house.kv.server.txn(
        [],
        [
            Put(keys.placement("n1", "default", "w"), dropped(old, epoch).to_json()),
            Put(keys.placement("n2", "default", "w"), old.model_copy(update={"epoch": epoch}).to_json()),
        ],
        [],
    )


async def test_a_stale_copy_is_ended_when_its_node_is_back_and_only_then_forgotten() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1")
        await house.settle()
        house.agents["n1"].die()
        await take_away(house)
        await house.settle()
        assert (await placed(house)).role == Role.DROP
        assert (await house.node("n1")).status.jobs == 0
        status = await house.job("w")
        assert (status.phase, status.node) == (JobPhase.RUNNING, "n2")
        house.agents["n1"].beat()
        house.agents["n1"].up = True
        await house.settle()
        assert JOB not in house.agents["n1"].copies
        assert house.kv.server.get(keys.placement("n1", "default", "w")) is None
        assert (await house.job("w")).phase == JobPhase.RUNNING


async def test_a_job_is_not_moved_to_a_node_that_has_a_stale_copy_of_it() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1")
        await house.settle()
        house.agents["n1"].die()
        await take_away(house)
        await house.settle()
        house.agents["n1"].beat()  # its agent still does nothing
        await house.settle()
        await house.migrate("w", to="n1")
        await house.settle()
        assert (await house.migration()).phase == MigrationPhase.PENDING
        house.agents["n1"].up = True
        await house.advance(2)
        assert (await house.migration()).phase == MigrationPhase.SUCCEEDED


async def test_a_job_is_not_gone_before_its_stale_copy_is() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1")
        await house.settle()
        house.agents["n1"].die()
        await take_away(house)
        await house.settle()
        await house.store.delete(Job, "w", "default")
        await house.advance(60)
        assert "node/n1" in (await house.job("w")).message
        assert (await placed(house)).role == Role.DROP
        house.agents["n1"].beat()
        house.agents["n1"].up = True
        await house.advance(31)
        assert house.kv.server.get(keys.object_key(Job, "w", "default")) is None
        assert house.kv.server.get(keys.placement("n1", "default", "w")) is None


async def test_a_node_that_was_written_off_is_not_waited_for() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1")
        await house.settle()
        house.agents["n1"].die()
        await take_away(house)
        await house.settle()
        house.kv.server.txn([], [Delete(keys.object_key(type(await house.node("n1")), "n1"))], [])
        await house.advance(6)
        await house.advance(31)
        assert house.kv.server.get(keys.placement("n1", "default", "w")) is None


async def test_a_node_without_a_guard_says_so() -> None:
    async with House("n1") as house:

        async def guarded() -> tuple[str, str]:
            found = find_condition((await house.node("n1")).status.conditions, GUARDED)
            assert found is not None
            return found.status, found.message

        house.agents["n1"].load()
        await house.advance(6)
        assert (await guarded())[0] == "True"
        vector = LoadVector(time=house.clock.now(), unguarded="no guard runs beside the agent: start mx-guard")
        house.kv.server.txn([], [Put(keys.load("n1"), vector.to_json())], [])
        await house.advance(6)
        assert await guarded() == ("False", "no guard runs beside the agent: start mx-guard")
