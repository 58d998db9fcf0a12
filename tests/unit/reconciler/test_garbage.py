"""What belongs to nobody goes; what merely cannot be read stays."""

from datetime import timedelta

from crds import keys
from crds.cluster import Cluster, ClusterSpec
from crds.job import Job, JobSpec
from crds.meta import Metadata
from crds.migration import Migration, MigrationPhase, MigrationSpec
from crds.node import Node
from crds.placement import Placement, Role
from crds.report import JobReport, ReportPhase
from reconciler.controllers import garbage
from store.owners import owner_reference

from .house import House


async def test_migrations_go_with_their_job() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1")
        await house.settle()
        job = await house.store.get(Job, "w")
        owned = Metadata(name="m", owner_references=[owner_reference(job)])
        await house.store.create(Migration(metadata=owned, spec=MigrationSpec(job="w", to="n2")))
        await house.settle()
        await house.store.delete(Job, "w", "default")
        await house.advance(2)
        assert (await house.store.list(Migration)).items == ()


async def test_finished_migrations_are_kept_for_a_while_and_open_ones_for_ever() -> None:
    async with House("n1", "n2") as house:
        await house.store.create(Cluster(metadata=Metadata(name="c"), spec=ClusterSpec(migration_history=600)))
        await house.run("w", on="n1")
        await house.settle()
        await house.migrate("w", "n2", name="old")
        await house.settle()
        house.agents["n1"].holds = {"commit"}
        await house.migrate("w", "n1", name="open", deadline=100_000)
        await house.advance(500)
        assert {m.name for m in (await house.store.list(Migration)).items} == {"old", "open"}
        await house.advance(200)
        assert {m.name for m in (await house.store.list(Migration)).items} == {"open"}


async def test_of_very_many_finished_migrations_the_newest_stay() -> None:
    async with House() as house:
        for number in range(8):
            await house.migrate("nobody", name=f"m{number}")
            await house.advance(1)
        assert len((await house.store.list(Migration)).items) == 8
        previous, garbage.MOST_FINISHED = garbage.MOST_FINISHED, 3
        try:
            await house.advance(60)
        finally:
            garbage.MOST_FINISHED = previous
        assert {m.name for m in (await house.store.list(Migration)).items} == {"m5", "m6", "m7"}


async def test_a_placement_without_job_is_removed_and_told_on_its_node() -> None:
    async with House("n1") as house:
        orphan = Placement(uid="gone", epoch=3, role=Role.RUN, spec=JobSpec(command=["true"]))
        await house.put(keys.placement("n1", "default", "w"), orphan.to_json())
        await house.advance(60)
        assert house.placements() == {} and house.running() == []
        assert "OrphanRemoved n1" in await house.events()


async def test_a_job_that_cannot_be_read_keeps_its_placement() -> None:
    async with House("n1") as house:
        await house.run("w")
        await house.settle()
        await house.put(keys.object_key(Job, "w", "default"), b'{"kind": "Job", "spec": 7}')
        await house.advance(120)
        assert house.placements() == {"n1": (Role.RUN, 1)} and house.running() == ["n1"]


async def test_keys_of_a_machine_that_left_the_cluster_go_when_its_jobs_are_gone() -> None:
    async with House("n1", "n2") as house:
        report = JobReport(uid="gone", epoch=1, phase=ReportPhase.RUNNING, boot_id="b")
        await house.put(keys.report("n2", "default", "old"), report.to_json())
        house.agents["n2"].die()
        await house.advance(60)
        assert house.world.reports.find("n2", "default/old") is not None
        await house.store.delete(Node, "n2")
        await house.advance(2)
        assert house.kv.server.list(keys.node_prefix("n2"), 0).items == ()


def test_a_migration_of_unknown_end_counts_as_the_oldest() -> None:
    migration = Migration(metadata=Metadata(name="m"), spec=MigrationSpec(job="w"))
    migration.status.phase = MigrationPhase.FAILED
    assert garbage._finished(migration) == 0.0


async def test_nothing_goes_while_the_world_is_intact() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", on="n1")
        await house.settle()
        await house.migrate("w", "n2")
        await house.settle()
        before = {kv.key for kv in house.kv.server.list("/mx/", 0).items}
        await house.advance(timedelta(minutes=10).total_seconds())
        assert {kv.key for kv in house.kv.server.list("/mx/", 0).items} == before
