"""Rollouts over the whole reconciler: nodes come to another image one after the other, and no job is killed."""

import pytest

from crds.assignment import Mount
from crds.cluster import Cluster, ClusterSpec, NetworkSpec
from crds.job import Job, JobPhase
from crds.meta import Metadata, Truth, find_condition
from crds.node import IMAGE_DRIFT, Node
from crds.rollout import Rollout, RolloutPhase, UpdateStep

from .house import House
from .machine_room import room

pytestmark = pytest.mark.asyncio


async def test_nodes_come_to_another_image_one_after_the_other_and_their_jobs_live_on() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2", "n3")
        for number in range(6):
            await house.run(f"w{number}", on=f"n{number % 3 + 1}")
        await house.settle()
        await machines.image("v1", "v2")
        await house.settle()
        assert drift(await house.node("n1")) == (Truth.TRUE, "ByRollout")
        await machines.rollout(image="numpy")
        await house.advance(600)
        state = await machines.state()
        assert (state.status.phase, state.status.updated, state.status.total) == (RolloutPhase.COMPLETE, 3, 3)
        assert machines.running_revisions() == {"n1": "v2", "n2": "v2", "n3": "v2"}
        assert machines.resets == [("n1", "v2"), ("n2", "v2"), ("n3", "v2")]
        assert machines.violations == []
        for number in range(6):
            assert (await house.job(f"w{number}")).phase == JobPhase.RUNNING
            assert len(house.running(f"default/w{number}")) == 1
        assert drift(await house.node("n1")) == (Truth.FALSE, "UpToDate")


async def test_drift_lists_packages_and_files_that_a_boot_would_change() -> None:
    async with House() as house:
        machines = await room(house, "n1")
        await machines.image("v1", "v2")
        await machines.content("v1", {"curl": "8.1", "tree": "2.2"}, files={"/etc/motd": "aa"})
        assert message(await house.node("n1")) == "mxctl rollout node n1 changes image: numpy v1 -> numpy v2"
        await machines.content("v2", {"curl": "8.2"}, files={"/etc/motd": "bb"})
        assert message(await house.node("n1")) == (
            "mxctl rollout node n1 changes image: numpy v1 -> numpy v2 "
            "(package curl 8.1 -> 8.2, package tree removed, file /etc/motd changed)"
        )
        await machines.content("v2", {f"p{number}": "1" for number in range(9)})
        told = message(await house.node("n1"))
        assert "(package curl removed, package p0 added (1), " in told
        assert told.endswith(", package p3 added (1), and 7 more: mxctl image diff numpy:1 numpy:2)")


async def test_drift_lists_what_differs_when_a_machine_runs_something_else_of_its_image() -> None:
    async with House() as house:
        machines = await room(house, "n1")
        await machines.image("v0", "v1")
        await machines.content("v0", {"curl": "8.0"})
        await machines.content("v1", {"curl": "8.1"})
        house.agents["n1"].beat(image="v0", assigned="")  # somebody booted it by hand
        await house.settle()
        node = await house.node("n1")
        assert drift(node) == (Truth.TRUE, "AtNextBoot")
        assert message(node) == "image: v0 -> numpy v1 (package curl 8.0 -> 8.1)"


async def test_an_image_that_does_not_boot_stops_the_rollout_and_its_node_goes_back_by_itself() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2", "n3")
        for number in range(6):
            await house.run(f"w{number}", on=f"n{number % 3 + 1}")
        machines.broken.add("bad")
        await machines.image("v1", "bad")
        await machines.rollout(image="numpy", deadline="2m")
        await house.advance(900)
        state = (await machines.state()).status
        assert state.phase == RolloutPhase.STOPPED
        assert "n1: not Ready within 120 s" in state.message
        assert machines.running_revisions() == {"n1": "v1", "n2": "v1", "n3": "v1"}
        assert machines.resets == [("n1", "bad"), ("n1", "v1")]
        n1 = await house.node("n1")
        assert n1.status.update is not None
        assert n1.status.update.step == UpdateStep.REVERTED
        assert n1.status.assigned == n1.status.good
        assert machines.violations == []
        for number in range(6):
            assert len(house.running(f"default/w{number}")) == 1
        # and what was repaired goes on from there
        machines.broken.clear()
        await house.change(Rollout, "r", lambda r: setattr(r.spec, "attempt", 1))
        await house.advance(600)
        assert (await machines.state()).status.phase == RolloutPhase.COMPLETE
        assert machines.running_revisions() == {"n1": "bad", "n2": "bad", "n3": "bad"}


async def test_a_node_whose_job_cannot_leave_is_not_restarted() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await house.run("w", placement={"node": "n1", "pinned": True})
        await house.settle()
        await machines.image("v1", "v2")
        await machines.rollout(image="numpy", drainDeadline="1m")
        await house.advance(300)
        state = (await machines.state()).status
        assert state.phase == RolloutPhase.STOPPED
        assert "job/w cannot be moved away: it is pinned to node n1" in state.message
        assert machines.resets == []
        assert house.running("default/w") == ["n1"]
        await house.run("x", on="n1")  # the node takes jobs again
        await house.settle()
        assert house.running("default/x") == ["n1"]


async def test_no_job_comes_to_a_node_that_is_being_updated() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await machines.image("v1", "v2")
        await machines.rollout(nodes=["n1"])
        assert [node for node, _ in machines.resets] == ["n1"]
        await house.advance(10)
        await house.run("w", on="n1")
        await house.settle()
        assert (await house.job("w")).phase == JobPhase.PENDING
        await house.advance(60)
        assert house.running("default/w") == ["n1"]
        assert machines.running_revisions() == {"n1": "v2", "n2": "v1"}


async def test_undo_brings_the_nodes_back_in_the_same_way() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await house.run("w", on="n1")
        await machines.image("v1", "v2")
        await machines.rollout(image="numpy")
        await house.advance(300)
        assert machines.running_revisions() == {"n1": "v2", "n2": "v2"}
        await house.change(Rollout, "r", lambda r: setattr(r.spec, "undo", True))
        await house.advance(300)
        state = (await machines.state()).status
        assert (state.phase, state.undone) == (RolloutPhase.COMPLETE, True)
        assert machines.running_revisions() == {"n1": "v1", "n2": "v1"}
        assert machines.violations == []
        assert len(house.running()) == 1
        assert drift(await house.node("n1")) == (Truth.TRUE, "ByRollout")


async def test_a_paused_rollout_finishes_the_node_it_is_at_and_begins_no_other() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await machines.image("v1", "v2")
        await machines.rollout(image="numpy")
        await house.change(Rollout, "r", lambda r: setattr(r.spec, "paused", True))
        await house.advance(300)
        assert machines.running_revisions() == {"n1": "v2", "n2": "v1"}
        assert (await machines.state()).status.phase == RolloutPhase.PAUSED
        await house.change(Rollout, "r", lambda r: setattr(r.spec, "paused", False))
        await house.advance(300)
        assert machines.running_revisions() == {"n1": "v2", "n2": "v2"}


async def test_another_reconciler_goes_on_where_the_first_was_killed() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await house.run("w", on="n1")
        await house.settle()
        await machines.image("v1", "v2")
        await machines.rollout(image="numpy")
        for _ in range(20):
            await house.stop()
            await house.start()
            await house.advance(7)
        await house.advance(300)
        assert machines.running_revisions() == {"n1": "v2", "n2": "v2"}
        assert machines.resets == [("n1", "v2"), ("n2", "v2")]
        assert machines.violations == []


async def test_a_node_that_cannot_be_switched_stays_as_it_is() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await machines.image("v1", "v2")
        machines.deaf.add("n1")
        await machines.rollout(image="numpy", deadline="1m")
        await house.advance(200)
        state = (await machines.state()).status
        assert state.phase == RolloutPhase.STOPPED
        assert "no route to it" in state.message
        assert "never restarted" in state.message
        node = await house.node("n1")
        assert node.status.assigned == node.status.good
        assert machines.resets == []


async def test_a_request_nobody_took_up_is_taken_back() -> None:
    """An mx-clip that comes back an hour later must not restart a node that has jobs again."""
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await machines.image("v1", "v2")
        machines.ignored.add("n1")
        await machines.rollout(image="numpy", deadline="1m")
        await house.advance(200)
        assert "does mx-clip run?" in (await machines.state()).status.message
        await house.run("w", on="n1")
        await house.settle()
        machines.ignored.clear()
        await house.advance(200)
        assert machines.resets == []
        assert house.running() == ["n1"]


async def test_a_machine_that_is_off_boots_the_new_image_when_it_is_switched_on() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        house.agents["n2"].die()
        await house.advance(60)
        await machines.image("v1", "v2")
        await machines.rollout(image="numpy")
        await house.advance(120)
        assert (await machines.state()).status.phase == RolloutPhase.COMPLETE
        assert [node for node, _ in machines.resets] == ["n1"]
        assert machines.assigned("n2").revision == "v2"


async def test_a_machine_that_never_came_up_is_assigned_what_is_current() -> None:
    async with House() as house:
        machines = await room(house, "n1", revision="bad")
        await machines.machine("n2", up=False)
        assert machines.assigned("n2").revision == "bad"
        await machines.image("bad", "v2")
        await house.settle()
        assert machines.assigned("n2").revision == "v2"
        assert machines.assigned("n1").revision == "bad"


async def test_a_change_of_the_cluster_is_drift_and_a_rollout_brings_it_to_the_nodes() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await house.run("w", on="n1")
        await house.store.create(Cluster(metadata=Metadata(name="rack"), spec=ClusterSpec(kernel_arguments=["quiet"])))
        await house.settle()
        condition = find_condition((await house.node("n1")).status.conditions, IMAGE_DRIFT)
        assert condition is not None
        assert condition.message == "mxctl rollout node n1 changes kernel arguments: +quiet"
        await machines.rollout()
        await house.advance(300)
        assert (await machines.state()).status.phase == RolloutPhase.COMPLETE
        assert all(found.kernel_arguments == ["quiet"] for found in machines.runs.values())
        assert machines.violations == []


async def test_network_and_mounts_reach_running_nodes_by_a_rollout_only() -> None:
    """Name servers, gateway, network, mounts, and a node's own address: each is what a boot tells a machine."""
    network = NetworkSpec(cidr="10.77.0.0/23", gateway="10.77.0.2", dns=["10.77.0.3"], domain="rack.local")
    mount = Mount(source="10.77.0.4:/data", target="/data")
    async with House() as house:
        machines = await room(house, "n1", "n2")
        before = machines.assigned("n1")
        await house.store.create(Cluster(metadata=Metadata(name="rack"), spec=ClusterSpec(network=network, mounts=[mount])))
        await house.store.change(Node, "n1", None, lambda node: setattr(node.spec, "address", "10.77.1.9"))
        await house.settle()
        assert machines.assigned("n1") == before
        condition = find_condition((await house.node("n1")).status.conditions, IMAGE_DRIFT)
        assert condition is not None
        for word in ("name servers: +10.77.0.3", "mounts: +10.77.0.4:/data", "10.77.0.0/23", "none -> 10.77.0.2", "-> 10.77.1.9"):
            assert word in condition.message
        await machines.rollout()
        await house.advance(300)
        assert (await machines.state()).status.phase == RolloutPhase.COMPLETE
        for found in machines.runs.values():
            assert (found.cidr, found.gateway, found.dns, found.domain) == (
                "10.77.0.0/23",
                "10.77.0.2",
                ["10.77.0.3"],
                "rack.local",
            )
            assert found.mounts == [mount]
        assert machines.runs["n1"].address == "10.77.1.9" and machines.violations == []


async def test_what_is_built_during_a_rollout_is_another_one_s_matter() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await machines.image("v1", "v2")
        await machines.rollout(image="numpy")
        await machines.image("v1", "v2", "v3")
        await house.advance(300)
        assert machines.running_revisions() == {"n1": "v2", "n2": "v2"}
        assert (await machines.state()).status.phase == RolloutPhase.COMPLETE


async def test_nothing_is_brought_to_a_revision_that_was_removed() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await machines.image("v1", "v2")
        await machines.rollout(image="numpy")
        await house.advance(300)
        assert machines.running_revisions() == {"n1": "v2", "n2": "v2"}
        await machines.image("v2")
        await house.change(Rollout, "r", lambda r: setattr(r.spec, "undo", True))
        await house.advance(60)
        assert (await machines.state()).status.message.startswith("image/numpy has no revision v1 any more")
        await machines.rollout("b", image="numpy", revision="v1")
        await house.advance(60)
        assert (await machines.state("b")).status.message.startswith("image/numpy has no revision v1 any more")
        assert machines.running_revisions() == {"n1": "v2", "n2": "v2"}
        assert len(machines.resets) == 2


async def test_a_deleted_rollout_leaves_no_node_half_updated() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await machines.image("v1", "v2")
        await machines.rollout(image="numpy")
        await house.store.delete(Rollout, "r")
        await house.advance(5)
        assert (await machines.state()).metadata.deletion_timestamp is not None
        await house.advance(120)
        assert machines.running_revisions() == {"n1": "v2", "n2": "v1"}
        assert house.world.all(Rollout) == []


async def test_a_node_that_falls_over_after_its_update_counts_as_away() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await machines.image("v1", "v2")
        await machines.rollout(image="numpy")
        await house.advance(29)
        house.agents["n1"].die()  # it comes up at 30 s, and is gone again in the moment n2's turn has come
        machines.booting.clear()
        machines.up("n1", machines.assigned("n1"))
        await house.change(Rollout, "r", lambda r: setattr(r.spec, "paused", True))
        await house.settle()
        house.agents["n1"].die()
        await house.advance(60)
        await house.change(Rollout, "r", lambda r: setattr(r.spec, "paused", False))
        await house.advance(60)
        assert [node for node, _ in machines.resets] == ["n1"]
        machines.up("n1", machines.assigned("n1"))
        await house.advance(60)
        assert [node for node, _ in machines.resets] == ["n1", "n2"]


async def test_two_rollouts_do_not_touch_one_node_at_once() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await machines.image("v1", "v2")
        await machines.rollout("a", nodes=["n1"])
        await machines.image("v1", "v2", "v3")
        await house.advance(1)
        await machines.rollout("b", nodes=["n1"])
        await house.advance(300)
        assert machines.resets == [("n1", "v2"), ("n1", "v3")]
        assert (await machines.state("b")).status.phase == RolloutPhase.COMPLETE


async def test_jobs_that_are_under_way_are_waited_for() -> None:
    async with House() as house:
        machines = await room(house, "n1", "n2")
        await house.run("w", on="n2")
        await house.settle()
        house.agents["n1"].holds.add("commit")
        await house.migrate("w", "n1")
        await house.settle()
        await machines.image("v1", "v2")
        await machines.rollout(nodes=["n1"])
        await house.advance(20)
        assert machines.resets == []
        house.agents["n1"].holds.clear()
        await house.advance(100)
        assert machines.violations == []
        assert len(house.running()) == 1
        assert (await house.store.get(Job, "w")).status.phase == JobPhase.RUNNING


def message(node: Node) -> str:
    condition = find_condition(node.status.conditions, IMAGE_DRIFT)
    assert condition is not None
    return condition.message


def drift(node: Node) -> tuple[Truth, str]:
    condition = find_condition(node.status.conditions, IMAGE_DRIFT)
    assert condition is not None
    return condition.status, condition.reason
