"""Moves: how they begin, succeed, fail, and that every failure leaves exactly one copy."""

import pytest

from crds import keys
from crds.job import Job, JobPhase
from crds.meta import find_condition
from crds.migration import Migration, MigrationPhase, MigrationStatus
from crds.node import Node
from crds.placement import Role
from store.errors import NotFound
from store.kv import Delete

from .house import House

RUN, LEAVE, ARRIVE = Role.RUN, Role.LEAVE, Role.ARRIVE


def reason(status: MigrationStatus) -> str:
    found = find_condition(status.conditions, "Failed")
    return found.reason if found else ""


async def running_job(house: House, **spec: object) -> None:
    await house.run("w", on="n1", **spec)
    await house.settle()
    assert (await house.job("w")).phase == JobPhase.RUNNING


async def test_a_move_succeeds() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        await house.migrate("w", "n2", reason="because")
        await house.settle()
        job, migration = await house.job("w"), await house.migration()
        assert (job.phase, job.node, job.epoch, job.migration, job.move_count) == (JobPhase.RUNNING, "n2", 2, None, 1)
        assert (job.moves[0].source, job.moves[0].destination, job.moves[0].freeze_ms) == ("n1", "n2", 120.0)
        assert (migration.phase, migration.bytes, migration.freeze_ms) == (MigrationPhase.SUCCEEDED, 5_000_000, 120.0)
        assert (job.reason, migration.source, migration.destination) == ("because", "n1", "n2")
        assert house.placements() == {"n2": (RUN, 2)} and house.running() == ["n2"]
        assert house.world.claims.of_job("default/w") == {} and list(house.world.reports.of_job("default/w")) == ["n2"]
        assert "Moved w" in await house.events()


async def test_both_ends_get_the_same_order_with_the_peer_of_the_other() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        for agent in house.agents.values():
            agent.holds = {"send", "prepare"}
        await house.migrate("w", "n2")
        await house.settle()
        leave, arrive = (house.world.placements.find(node, "default/w") for node in ("n1", "n2"))
        assert leave and arrive and leave.value.move and arrive.value.move
        assert house.placements() == {"n1": (LEAVE, 2), "n2": (ARRIVE, 2)} and leave.revision == arrive.revision
        assert (leave.value.move.peer, arrive.value.move.peer) == ("n2:7950", "n1:7950")
        assert leave.value.move.ticket == arrive.value.move.ticket != ""
        assert ((await house.job("w")).phase, (await house.job("w")).migration) == (JobPhase.MOVING, "m")


async def test_there_and_back_again() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        await house.migrate("w", "n2", name="a")
        await house.settle()
        await house.migrate("w", "n1", name="b")
        await house.settle()
        assert house.placements() == {"n1": (RUN, 3)} and house.running() == ["n1"]


async def test_a_destination_that_refuses_sends_the_job_back() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n2"].refuses = "no room under /run"
        await house.migrate("w", "n2")
        await house.settle()
        job, migration = await house.job("w"), await house.migration()
        assert (migration.phase, reason(migration)) == (MigrationPhase.FAILED, "Refused")
        assert "no room under /run" in migration.message
        assert (job.phase, job.node, job.epoch, job.migration) == (JobPhase.RUNNING, "n1", 3, None)
        assert house.placements() == {"n1": (RUN, 3)} and house.running() == ["n1"]
        assert "MoveFailed w" in await house.events()


async def test_a_move_that_stands_still_is_called_off_after_its_deadline() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n2"].holds = {"commit"}
        await house.migrate("w", "n2", deadline=30)
        await house.advance(31)
        assert (await house.migration()).phase == MigrationPhase.MOVING and house.running() == []
        await house.advance(2)
        assert reason(await house.migration()) == "DeadlineExceeded"
        assert house.placements() == {"n1": (RUN, 3)} and house.running() == ["n1"]
        assert house.agents["n2"].copies == {}


async def test_after_the_commit_no_deadline_counts() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n2"].holds = {"continue"}
        await house.migrate("w", "n2", deadline=30)
        await house.advance(10)
        house.agents["n2"].die()
        await house.advance(600)
        assert (await house.migration()).phase == MigrationPhase.MOVING and house.running() == []
        house.agents["n2"].up, house.agents["n2"].holds = True, set()
        house.agents["n2"].beat()
        await house.settle()
        assert (await house.migration()).phase == MigrationPhase.SUCCEEDED and house.running() == ["n2"]


async def test_a_destination_that_dies_before_the_commit_gives_the_job_back() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n2"].holds = {"commit"}
        await house.migrate("w", "n2", deadline=3600)
        await house.settle()
        house.agents["n2"].die()
        await house.advance(30)
        assert reason(await house.migration()) == "NodeNotReady" and house.running() == ["n1"]


async def test_a_source_that_gives_up_ends_the_move_at_once() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n1"].holds = {"send"}
        await house.migrate("w", "n2")
        await house.settle()
        house.agents["n1"].steps()["n1 abort default/w"]()
        await house.settle()
        assert "dump failed" in (await house.migration()).message
        assert house.placements() == {"n1": (RUN, 3)} and house.running() == ["n1"]


async def test_a_job_that_ends_while_it_should_move_has_ended() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n1"].holds = {"send"}
        await house.migrate("w", "n2")
        await house.settle()
        house.agents["n1"].finish("default/w", 4)
        await house.settle()
        job = await house.job("w")
        assert reason(await house.migration()) == "JobEnded"
        assert (job.phase, job.exit_code, job.node) == (JobPhase.FAILED, 4, "n1")
        assert house.placements() == {"n1": (RUN, 3)}


async def test_a_commit_at_the_moment_of_calling_off_wins_or_loses_but_never_both() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n2"].holds = {"commit"}
        await house.migrate("w", "n2", deadline=30)
        await house.settle()
        commit = house.agents["n2"].steps()["n2 commit default/w"]
        raced = []

        def race(call: str, moment: str) -> None:
            """The destination commits just before the reconciler's transaction arrives."""
            if call == "txn" and moment == "before" and not raced and house.clock.seconds > 30:
                raced.append(True)
                commit()

        house.kv.hook = race
        await house.advance(40)
        house.kv.hook = None
        assert raced and (await house.migration()).phase == MigrationPhase.SUCCEEDED
        assert house.running() == ["n2"]


async def test_a_destination_is_chosen_when_none_is_named() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        await house.migrate("w")
        await house.settle()
        assert (await house.job("w")).node == "n2"


async def test_moves_that_cannot_begin_say_why() -> None:
    async with House("n1", "n2", "n3") as house:
        await running_job(house)
        await house.change(Node, "n2", lambda node: setattr(node.spec, "unschedulable", True))
        house.agents["n3"].die()
        await house.advance(30)
        await house.migrate("w", "n1", name="same")
        await house.migrate("w", "n2", name="cordoned")
        await house.migrate("w", "n3", name="silent")
        await house.migrate("w", "n9", name="unknown")
        await house.migrate("w", name="nowhere")
        await house.migrate("v", "n2", name="nobody")
        await house.settle()
        found = {
            name: reason(await house.migration(name)) for name in ("same", "cordoned", "silent", "unknown", "nowhere", "nobody")
        }
        assert found == {
            "same": "AlreadyThere",
            "cordoned": "NoDestination",
            "silent": "NodeNotReady",
            "unknown": "NoDestination",
            "nowhere": "NoDestination",
            "nobody": "JobNotFound",
        }
        assert house.placements() == {"n1": (RUN, 1)}


async def test_a_pinned_job_stays() -> None:
    async with House("n1", "n2") as house:
        await house.run("w", placement={"node": "n1", "pinned": True})
        await house.settle()
        await house.migrate("w", "n2")
        await house.settle()
        assert "pinned" in (await house.migration()).message and house.placements() == {"n1": (RUN, 1)}


async def test_an_ended_job_cannot_be_moved() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n1"].finish("default/w")
        await house.settle()
        await house.migrate("w", "n2")
        await house.settle()
        assert reason(await house.migration()) == "JobEnded"


async def test_a_second_move_waits_for_the_first() -> None:
    async with House("n1", "n2", "n3") as house:
        await running_job(house)
        house.agents["n2"].holds = {"commit"}
        await house.migrate("w", "n2", name="a")
        await house.settle()
        await house.migrate("w", "n3", name="b")
        await house.settle()
        assert (await house.migration("b")).phase == MigrationPhase.PENDING
        house.agents["n2"].holds = set()
        await house.advance(5)
        assert (await house.migration("a")).phase == (await house.migration("b")).phase == MigrationPhase.SUCCEEDED
        assert house.placements() == {"n3": (RUN, 3)}


async def test_a_move_asked_for_while_the_job_starts_begins_when_it_runs_or_gives_up() -> None:
    async with House("n1", "n2") as house:
        house.agents["n1"].holds = {"started"}
        await house.run("w", on="n1")
        await house.migrate("w", "n2", name="patient")
        await house.migrate("w", "n2", name="hasty", deadline=5)
        await house.advance(10)
        assert reason(await house.migration("hasty")) == "DeadlineExceeded"
        house.agents["n1"].holds = set()
        await house.advance(2)
        assert (await house.migration("patient")).phase == MigrationPhase.SUCCEEDED


async def test_deleting_a_moving_job_waits_until_the_move_is_decided() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n2"].holds = {"commit"}
        await house.migrate("w", "n2")
        await house.settle()
        await house.store.delete(Job, "w", "default")
        await house.settle()
        assert set(house.placements()) == {"n1", "n2"} and "move is decided" in (await house.job("w")).message
        house.agents["n2"].holds = set()
        await house.settle()
        with pytest.raises(NotFound):
            await house.job("w")
        assert house.placements() == {} and house.running() == []


async def test_deleting_the_migration_of_a_move_under_way_does_not_stop_the_move() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n2"].holds = {"commit"}
        await house.migrate("w", "n2")
        await house.settle()
        await house.store.delete(Migration, "m", "default")
        await house.settle()
        house.agents["n2"].holds = set()
        await house.settle()
        assert house.placements() == {"n2": (RUN, 2)} and (await house.job("w")).node == "n2"


async def test_a_leader_that_dies_in_the_middle_leaves_a_move_that_the_next_one_finishes() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n2"].holds = {"continue"}
        await house.migrate("w", "n2")
        await house.settle()
        await house.stop()
        house.agents["n2"].holds = set()
        while any(agent.act() for agent in house.agents.values()):
            pass
        await house.start()
        await house.settle()
        assert (await house.migration()).phase == MigrationPhase.SUCCEEDED and house.running() == ["n2"]


async def test_an_unknown_outcome_of_the_decision_is_found_out() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.kv.fail_next("txn", applied=True)
        await house.migrate_by_force("w", "n2")
        house.kv.fail_next("txn", applied=True)
        await house.advance(10)
        assert (await house.migration()).phase == MigrationPhase.SUCCEEDED and house.running() == ["n2"]


async def test_a_broken_claim_decides_nothing() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n2"].holds = {"commit", "refuse"}
        await house.migrate("w", "n2", deadline=10)
        await house.settle()
        house.agents["n2"].up = False
        await house.put(keys.claim("n2", "default", "w"), b"{")
        await house.advance(60)
        assert set(house.placements()) == {"n1", "n2"}
        await house.kv.txn([], [Delete(keys.claim("n2", "default", "w"))])
        await house.advance(1)
        assert house.placements() == {"n1": (RUN, 3)}


# --- cancelling ---


async def cancel(house: House) -> None:
    def change(migration: Migration) -> None:
        migration.spec.cancelled = True

    await house.change(Migration, "m", change)


@pytest.mark.parametrize("holds", ["send", "prepare", "commit"])
async def test_a_cancelled_move_sends_the_job_back(holds: str) -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        for agent in house.agents.values():
            agent.holds = {holds}
        await house.migrate("w", "n2")
        await house.settle()
        await cancel(house)
        await house.settle()
        assert reason(await house.migration()) == "Cancelled"
        assert house.placements() == {"n1": (RUN, 3)} and house.running() == ["n1"]
        assert (await house.job("w")).phase == JobPhase.RUNNING


async def test_after_the_commit_it_is_too_late_to_cancel() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        house.agents["n2"].holds = {"continue"}
        await house.migrate("w", "n2")
        await house.settle()
        await cancel(house)
        await house.settle()
        assert (await house.migration()).message == "too late to cancel: node/n2 has taken the job"
        house.agents["n2"].holds = set()
        await house.settle()
        migration = await house.migration()
        assert migration.phase == MigrationPhase.SUCCEEDED and "too late to cancel" in migration.message
        assert house.running() == ["n2"]


async def test_a_migration_that_waits_is_cancelled_at_once() -> None:
    async with House("n1", "n2", "n3") as house:
        await running_job(house)
        house.agents["n2"].holds = {"commit"}
        await house.migrate("w", "n2", name="first")
        await house.settle()
        await house.migrate("w", "n3")
        await house.settle()
        assert (await house.migration()).phase == MigrationPhase.PENDING
        await cancel(house)
        await house.settle()
        assert reason(await house.migration()) == "Cancelled"
        assert (await house.migration("first")).phase == MigrationPhase.MOVING


async def test_a_migration_that_cannot_be_decided_can_be_cancelled() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        await house.put(keys.claim("n9", "default", "w"), b"nonsense")
        await house.migrate("w", "n2")
        await house.settle()
        found = find_condition((await house.migration()).conditions, "Reconciled")
        assert found is not None and "cannot be read" in found.message
        await cancel(house)
        await house.settle()
        assert reason(await house.migration()) == "Cancelled"


async def test_what_ended_stays_as_it_ended() -> None:
    async with House("n1", "n2") as house:
        await running_job(house)
        await house.migrate("w", "n2")
        await house.settle()
        await cancel(house)
        await house.settle()
        assert (await house.migration()).phase == MigrationPhase.SUCCEEDED and house.running() == ["n2"]
