"""Idle nodes are switched off and woken, where the Cluster wants it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from crds.cluster import Cluster, ClusterSpec, IdleSpec
from crds.meta import Metadata
from reconciler.planning.idle import IdleView, plan_idle

from .house import House
from .machine_room import MachineRoom, room


async def idle(house: House, after: float | None = 60.0, keep: int = 1) -> None:
    spec = ClusterSpec(idle=IdleSpec(after=after, keep=keep))
    await house.store.create(Cluster(metadata=Metadata(name="rack"), spec=spec))


def up(machines: MachineRoom) -> list[str]:
    return sorted(name for name in ("n1", "n2", "n3") if name in machines.house.world.alive)


async def test_by_itself_nothing_is_switched_off() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await house.advance(3600)
        assert machines.off == []


async def test_idle_nodes_go_to_sleep_one_by_one_and_wake_for_jobs() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2", "n3")
        await house.run("w", on="n2")
        await idle(house)
        await house.advance(300)
        assert up(machines) == ["n2"]
        assert machines.violations == []
        assert (await house.node("n1")).status.asleep
        await house.run("big", on="n1")  # only n1 will do
        await house.advance(120)
        assert "n1" in up(machines)
        assert house.running("default/big") == ["n1"]
        assert not (await house.node("n1")).status.asleep


async def test_taking_the_policy_back_wakes_what_sleeps() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await idle(house)
        await house.advance(300)
        assert len(up(machines)) == 1
        await house.change(Cluster, "rack", lambda c: setattr(c.spec.idle, "after", None))
        await house.advance(120)
        assert up(machines) == ["n1", "n2"]
        assert not any(node.status.asleep for node in [await house.node("n1"), await house.node("n2")])


async def test_a_machine_that_cannot_be_switched_off_takes_jobs_again() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        machines.deaf |= {"n1", "n2"}
        await idle(house)
        await house.advance(90)
        await house.run("w", on="n1")
        await house.run("v", on="n2")
        await house.advance(30)
        assert house.running() == ["n1"]
        assert house.running("default/v") == ["n2"]


views = st.builds(
    IdleView,
    name=st.sampled_from("abcdef"),
    ready=st.booleans(),
    open=st.booleans(),
    asleep=st.booleans(),
    idle_for=st.sampled_from([0.0, 59.0, 61.0, 100.0]),
    can_switch=st.booleans(),
    pending=st.booleans(),
    woken=st.booleans(),
    refused=st.booleans(),
)


@given(st.lists(views, max_size=6, unique_by=lambda view: view.name), st.integers(0, 3), st.integers(0, 3))
def test_never_is_more_switched_off_than_may_be(nodes: list[IdleView], waiting: int, keep: int) -> None:
    nodes = [replace(node, open=node.open and not node.asleep) for node in nodes]
    plan = plan_idle(nodes, waiting=waiting, after=60.0, keep=keep)
    known = {node.name: node for node in nodes}
    ready = [node for node in nodes if node.ready and node.open]
    assert len(ready) - len(plan.sleep) >= min(keep, len(ready))
    assert not (plan.sleep and (waiting or plan.wake))
    assert all(known[name].idle_for >= 60 and known[name].can_switch and known[name].ready for name in plan.sleep)
    assert all(known[name].asleep for name in (*plan.wake, *plan.awake))
