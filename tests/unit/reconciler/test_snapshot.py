"""The snapshot: what decisions know of jobs and nodes is what people declared and agents told."""

from crds import keys
from crds.job import MigrationMode
from crds.load import JobLoad, LoadVector
from crds.node import Node
from reconciler.controllers.snapshot import take_snapshot
from reconciler.planning.types import JobView, NodeView, Snapshot
from store.kv import Put

from .house import House


async def look(house: House) -> Snapshot:
    await house.advance(1)
    return take_snapshot(house.world, house.clock.now())


def job_of(snapshot: Snapshot, name: str) -> JobView:
    return next(job for job in snapshot.jobs if job.key == f"default/{name}")


def node_of(snapshot: Snapshot, name: str) -> NodeView:
    return next(node for node in snapshot.nodes if node.name == name)


def log_in(house: House, node: str, **users: int) -> None:
    loads = {"default/w": JobLoad(cpu_demand=1.0, attained=12.5)}
    vector = LoadVector(time=house.clock.now(), cpu_capacity=1.0, cpu_demand=1.0, memory_capacity=2**30, jobs=loads, users=users)
    house.kv.server.txn([], [Put(keys.load(node), vector.to_json())], [])


async def test_what_people_declare() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", placement={"node": "n1", "home": "n2", "near": ["v"]}, priority=7, migration={"mode": "post-copy"})
        await house.advance(5)
        log_in(house, "n1")
        job = job_of(await look(house), "w")
        assert (job.priority, job.home, job.near, job.mode) == (7, "n2", frozenset({"default/v"}), MigrationMode.POST_COPY)
        assert job.attained == 12.5 and not job.guest


async def test_a_declared_speed_holds() -> None:
    async with House("n1", "n2") as house:
        await house.store.change(Node, "n1", None, lambda n: setattr(n.spec, "speed", 2.5))
        house.agents["n1"].beat(speed=1.0)
        found = await look(house)
        assert (node_of(found, "n1").speed, node_of(found, "n2").speed) == (2.5, 1.0)


async def test_an_owner_and_his_guests() -> None:
    async with House("n1", "n2") as house:
        await house.store.change(Node, "n1", None, lambda n: setattr(n.spec, "owner", "ann"))
        await house.run("w", on="n1", user={"uid": 1000})
        await house.advance(5)
        log_in(house, "n1", bob=1001)
        found = await look(house)
        assert not node_of(found, "n1").owner_present and job_of(found, "w").guest
        log_in(house, "n1", bob=1001, ann=1002)
        found = await look(house)
        assert node_of(found, "n1").owner_present and job_of(found, "w").guest
        log_in(house, "n1", ann=1000)
        assert not job_of(await look(house), "w").guest


async def test_at_home_nobody_is_a_guest() -> None:
    async with House("n1", "n2") as house:
        await house.store.change(Node, "n1", None, lambda n: setattr(n.spec, "owner", "ann"))
        await house.run("w", placement={"node": "n1", "home": "n1"})
        await house.advance(5)
        log_in(house, "n1", ann=1002)
        assert not job_of(await look(house), "w").guest


async def test_moves_that_failed_in_a_row_are_counted() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1")
        house.agents["n2"].refuses = "no"
        for number in range(3):
            await house.migrate("w", "n2", name=f"m{number}")
            await house.advance(5)
        assert job_of(await look(house), "w").failed_moves == 3
        house.agents["n2"].refuses = ""
        await house.migrate("w", "n2")
        await house.advance(5)
        assert job_of(await look(house), "w").failed_moves == 0


async def test_jobs_that_nobody_has_room_for() -> None:
    async with House("n1") as house:
        await house.run("big", resources={"memory": "64Gi"}, priority=3)
        await house.advance(1)
        found = await look(house)
        assert [(each.job, each.memory, each.priority) for each in found.pending] == [("default/big", 64 * 2**30, 3)]
