"""What keeps a job from being moved: seen by its node, told by its condition, heeded by everybody who would move it."""

from typing import Any

import pytest

from crds.job import MIGRATABLE
from crds.meta import Condition, find_condition
from crds.migration import MigrationPhase
from crds.report import Obstacle
from tests.unit.reconciler.house import House
from tests.unit.reconciler.test_balance import policy_of
from tests.unit.reconciler.test_moves import reason

RING = Obstacle(reason="IoUring", message="node (pid 2) uses io_uring: start it with UV_USE_IO_URING=0 in spec.env")
SESSION = Obstacle(reason="ExecSession", message="a session of mxctl exec is open in it")
DEVICE = Obstacle(reason="DeviceFile", message="node (pid 2) uses the device /dev/kvm")


async def condition(house: House) -> Condition:
    found = find_condition((await house.job("w")).conditions, MIGRATABLE)
    assert found is not None
    return found


async def running(house: House, *found: Obstacle, **spec: Any) -> None:
    await house.run("w", on=None if "placement" in spec else "n1", **spec)
    await house.settle()
    house.agents["n1"].finds("default/w", *found)
    await house.settle()


async def test_nobody_has_looked_yet() -> None:
    async with House("n1") as house:
        await house.run("w", on="n1")
        await house.settle()
        assert find_condition((await house.job("w")).conditions, MIGRATABLE) is None


@pytest.mark.parametrize(
    ("found", "spec", "expected"),
    [
        ([], {}, ("True", "NoObstacles")),
        ([RING, DEVICE], {}, ("False", "IoUring")),
        ([SESSION], {}, ("True", "ExecSession")),
        ([SESSION, DEVICE], {}, ("False", "ExecSession")),
        ([], {"migration": {"allowed": False}}, ("True", "OnlyByHand")),
        ([DEVICE], {"migration": {"allowed": False}}, ("False", "DeviceFile")),
        ([], {"placement": {"node": "n1", "pinned": True}}, ("False", "Pinned")),
    ],
)
async def test_the_condition_says_it(found: list[Obstacle], spec: dict[str, Any], expected: tuple[str, str]) -> None:
    async with House("n1") as house:
        await running(house, *found, **spec)
        told = await condition(house)
        assert (str(told.status), told.reason) == expected
        if expected[0] == "False" and found:
            assert all(each.message in told.message for each in found)


async def test_a_move_is_refused_until_the_obstacle_is_gone() -> None:
    async with House("n1", "n2") as house:
        await running(house, RING)
        await house.migrate("w", "n2", name="a")
        await house.settle()
        refused = await house.migration("a")
        assert (refused.phase, reason(refused)) == (MigrationPhase.FAILED, "NotMigratable")
        assert RING.message in refused.message and house.running() == ["n1"]
        house.agents["n1"].finds("default/w")
        await house.settle()
        await house.migrate("w", "n2", name="b")
        await house.settle()
        assert house.running() == ["n2"]


@pytest.mark.parametrize("requested_by", ["user", "drain"])
async def test_a_session_beside_it_keeps_nobody_from_moving_it(requested_by: str) -> None:
    async with House("n1", "n2") as house:
        await running(house, SESSION)
        await house.migrate("w", "n2", requested_by=requested_by)
        await house.settle()
        assert house.running() == ["n2"]


@pytest.mark.parametrize(("requested_by", "moves"), [("user", True), ("drain", False), ("default", False)])
async def test_what_may_not_be_moved_is_moved_by_people_only(requested_by: str, moves: bool) -> None:
    async with House("n1", "n2") as house:
        await running(house, migration={"allowed": False})
        await house.migrate("w", "n2", requested_by=requested_by)
        await house.settle()
        assert house.running() == (["n2"] if moves else ["n1"])
        if not moves:
            refused = await house.migration()
            assert reason(refused) == "NotMigratable" and f"{requested_by} does not move it" in refused.message


async def test_after_a_move_the_new_node_has_the_say() -> None:
    async with House("n1", "n2") as house:
        await running(house)
        await house.migrate("w", "n2")
        await house.settle()
        house.agents["n2"].finds("default/w", DEVICE)
        await house.settle()
        assert (await condition(house)).reason == "DeviceFile"


async def test_the_balancer_keeps_it_and_says_why() -> None:
    async with House("n1", "n2") as house:
        await running(house, RING)
        await house.run("v", on="n1")
        await house.settle()
        house.agents["n1"].finds("default/v", SESSION)
        await house.settle()
        await house.policy(imbalance_target=0.1, min_residency=0.0)
        for _ in range(10):
            for agent in house.agents.values():
                agent.load()
            await house.advance(5)
        decision = (await policy_of(house)).status.last_decision
        assert decision is not None and not decision.moves
        kept = {each.job: each.reason for each in decision.kept}
        assert "IoUring" in kept["default/w"] and "mxctl exec" in kept["default/v"]
        assert house.running() == ["n1"] and house.running("default/v") == ["n1"]
