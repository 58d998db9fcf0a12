"""Balance: moves are asked for within the budget, explained, and come to rest."""

import pytest

from crds.balancepolicy import BalancePolicy
from crds.job import JobPhase
from crds.load import JobLoad
from crds.meta import Truth, find_condition
from crds.migration import Migration, MigrationPhase

from .fake_agent import GIGA
from .house import House

QUICK = {"min_residency": 1.0, "interval": 1.0, "max_sample_age": 1000.0}


async def pile(house: House, jobs: int, **spec: object) -> None:
    """All jobs on n1, running, with fresh samples."""
    for number in range(jobs):
        await house.run(f"w{number}", on="n1", **spec)
    await house.advance(20)
    sample(house)


def sample(house: House) -> None:
    for agent in house.agents.values():
        agent.load()


async def go_on(house: House, seconds: int) -> None:
    for _ in range(seconds):
        sample(house)
        await house.advance(1)


async def spread(house: House, jobs: int) -> list[str]:
    return sorted([(await house.job(f"w{number}")).node or "" for number in range(jobs)])


async def policy_of(house: House, name: str = "default") -> BalancePolicy:
    return await house.store.get(BalancePolicy, name)


async def balanced(house: House, name: str = "default") -> tuple[Truth, str]:
    condition = find_condition((await policy_of(house, name)).status.conditions, "Balanced")
    assert condition is not None
    return condition.status, condition.reason


async def test_a_pile_is_spread_and_then_nothing_moves() -> None:
    async with House("n1", "n2", "n3", "n4") as house:
        await pile(house, 8)
        await house.policy(**QUICK)
        await go_on(house, 60)
        assert await spread(house, 8) == ["n1", "n1", "n2", "n2", "n3", "n3", "n4", "n4"]
        assert await balanced(house) == (Truth.TRUE, "WithinTarget")
        status = (await policy_of(house)).status
        assert status.imbalance == 0 and status.moves == 6
        await go_on(house, 60)
        assert (await policy_of(house)).status.moves == 6


async def test_migrations_tell_who_asked_why_and_belong_to_the_job() -> None:
    async with House("n1", "n2") as house:
        await pile(house, 2)
        await house.policy(**QUICK)
        await go_on(house, 10)
        migrations = (await house.store.list(Migration)).items
        assert len(migrations) == 1
        migration = migrations[0]
        assert migration.spec.requested_by == "default" and migration.spec.reason
        assert migration.name == f"{migration.spec.job}-2"
        assert [owner.name for owner in migration.metadata.owner_references] == [migration.spec.job]
        decision = (await policy_of(house)).status.last_decision
        assert decision is not None and decision.moves and migration.spec.reason in decision.moves[0]


@pytest.mark.parametrize("most", [1, 2])
async def test_moves_under_way_count_against_the_budget(most: int) -> None:
    async with House("n1", "n2", "n3", "n4") as house:
        await pile(house, 8)
        for agent in house.agents.values():
            agent.holds = {"commit"}
        await house.policy(**QUICK, budget={"per_node": 4, "cluster": most})
        await go_on(house, 10)
        moving = [m for m in (await house.store.list(Migration)).items if m.status.phase == MigrationPhase.MOVING]
        assert len(moving) == most
        assert await balanced(house) == (Truth.FALSE, "Moving")


async def test_a_job_is_never_asked_to_move_twice_at_once() -> None:
    async with House("n1", "n2") as house:
        await pile(house, 4)
        house.agents["n1"].holds = {"send"}
        await house.policy(**QUICK, budget={"per_node": 4, "cluster": 8})
        await go_on(house, 10)
        jobs = [m.spec.job for m in (await house.store.list(Migration)).items]
        assert len(jobs) == len(set(jobs)) > 0


async def test_goal_none_moves_nothing_but_says_how_uneven_it_is() -> None:
    async with House("n1", "n2") as house:
        await pile(house, 4)
        await house.policy(**QUICK, goal="none")
        await go_on(house, 10)
        assert (await house.store.list(Migration)).items == ()
        assert await balanced(house) == (Truth.FALSE, "SwitchedOff")
        assert (await policy_of(house)).status.imbalance == 1.0


async def test_without_a_policy_nothing_moves() -> None:
    async with House("n1", "n2") as house:
        await pile(house, 4)
        await go_on(house, 10)
        assert (await house.store.list(Migration)).items == ()


async def test_the_first_policy_by_name_is_in_force() -> None:
    async with House("n1", "n2") as house:
        await pile(house, 4)
        await house.policy("b", **QUICK)
        await house.policy("a", **QUICK, goal="none")
        await go_on(house, 10)
        assert (await house.store.list(Migration)).items == ()
        assert await balanced(house, "b") == (Truth.UNKNOWN, "AnotherPolicyInForce")
        await house.store.delete(BalancePolicy, "a")
        await go_on(house, 10)
        assert (await balanced(house, "b"))[1] != "AnotherPolicyInForce"
        assert (await house.store.list(Migration)).items != ()


@pytest.mark.parametrize("spec", [{"migration": {"allowed": False}}, {"placement": {"node": "n1", "pinned": True}}])
async def test_jobs_that_must_not_move_do_not(spec: dict[str, object]) -> None:
    async with House("n1", "n2") as house:
        for number in range(4):
            await house.run(f"w{number}", **({"on": "n1"} | spec if "placement" not in spec else spec))
        await house.advance(20)
        await house.policy(**QUICK)
        await go_on(house, 10)
        assert (await house.store.list(Migration)).items == () and await spread(house, 4) == ["n1"] * 4


async def test_a_failed_move_is_not_repeated_at_once() -> None:
    async with House("n1", "n2") as house:
        await pile(house, 2)
        house.agents["n2"].refuses = "no"
        await house.policy(**QUICK, failure_cooldown=30)
        await go_on(house, 20)
        failed = (await house.store.list(Migration)).items
        assert len(failed) == 2 and {m.status.phase for m in failed} == {MigrationPhase.FAILED}
        house.agents["n2"].refuses = ""
        await go_on(house, 30)
        assert await spread(house, 2) == ["n1", "n2"]


async def test_memory_above_the_high_water_moves_a_job_though_load_is_even() -> None:
    async with House("n1", "n2") as house:
        for agent in house.agents.values():
            agent.beat(features=["post-copy"])  # a full node has no memory for the images of a job that is stopped
        await pile(house, 2)
        await house.policy(**QUICK)
        for _ in range(20):
            for agent in house.agents.values():
                mine = [key for key, copy in agent.copies.items() if copy.state == "running"]
                agent.load(jobs={key: JobLoad(cpu_demand=0.0, memory=GIGA * 48 // 100) for key in mine})
            await house.advance(1)
        assert await spread(house, 2) == ["n1", "n2"]


async def test_old_samples_are_ignored_and_named() -> None:
    async with House("n1", "n2") as house:
        await pile(house, 4)
        await house.advance(60)
        await house.policy(**(QUICK | {"max_sample_age": 10.0}))
        await house.advance(5)
        assert (await house.store.list(Migration)).items == ()
        assert any("n1" in line for line in (await policy_of(house)).status.ignored)


async def test_a_job_that_ended_since_the_plan_is_not_asked_to_move() -> None:
    async with House("n1", "n2") as house:
        await pile(house, 2)
        await house.policy(**QUICK, goal="none")
        await go_on(house, 3)
        for number in range(2):
            house.agents["n1"].finish(f"default/w{number}")
        await house.change(BalancePolicy, "default", lambda policy: setattr(policy.spec, "goal", "opportunity-cost"))
        await house.advance(10)
        assert (await house.store.list(Migration)).items == ()
        assert (await house.job("w0")).phase == JobPhase.SUCCEEDED


async def test_the_status_counts_what_was_moved_in_the_last_hour_what_failed_and_what_was_a_mistake() -> None:
    async with House("n1", "n2") as house:
        await pile(house, 2)
        await house.policy(goal="none", **QUICK)
        await house.advance(60)
        for number, to in enumerate(("n2", "n1", "n2"), 1):
            await house.migrate("w0", to, name=f"m{number}", requested_by="default", cause="load")
            await go_on(house, 10)
        await house.migrate("w1", "n2", name="by-hand")
        house.agents["n1"].refuses = "no"
        await house.migrate("w0", "n1", name="m4", requested_by="default")
        await go_on(house, 20)
        status = (await policy_of(house)).status
        assert (status.moves_per_hour, status.failed_per_hour, status.wasted_per_hour) == (3, 1, 2)


async def test_a_rotation_is_no_mistake_and_migrations_name_their_cause() -> None:
    async with House("n1", "n2") as house:
        await pile(house, 2)
        await house.policy(**QUICK)
        await go_on(house, 20)
        [migration] = (await house.store.list(Migration)).items
        assert migration.spec.cause == "load"
        for number, to in enumerate(("n1", "n2"), 1):
            await house.migrate("w0", to, name=f"r{number}", requested_by="default", cause="rotation")
            await go_on(house, 5)
        assert (await policy_of(house)).status.wasted_per_hour == 0


async def test_time_sharing_reaches_the_placements_of_all_jobs_and_of_those_to_come() -> None:
    async def rules(house: House) -> set[str]:
        return {str(seen.value.time_sharing) for _, _, seen in house.world.placements}

    async with House("n1", "n2") as house:
        await pile(house, 2)
        assert await rules(house) == {"fair"}
        await house.policy(goal="none", time_sharing="aged")
        await house.advance(3)
        assert await rules(house) == {"aged"}
        await house.run("late", on="n2")
        await house.migrate("w0", "n2")
        await house.advance(10)
        assert await rules(house) == {"aged"} and (await house.job("w0")).node == "n2"
        await house.store.delete(BalancePolicy, "default")
        await house.advance(3)
        assert await rules(house) == {"fair"}
