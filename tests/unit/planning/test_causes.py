"""Moves for other reasons than load and memory: rotation, owners, room, home; and the goals mosix and threshold."""

from dataclasses import replace

import pytest

from crds.balancepolicy import BalancePolicySpec, Goal, Guests, LoadThresholds, MemoryWater, MoveBudget, Rotation, TimeSharing
from reconciler.planning.balance import plan_moves
from reconciler.planning.placement import choose_node
from reconciler.planning.types import Cause, JobView, MoveView, PlacementRequest, Plan, Snapshot
from tests.unit.planning.clusters import MIB, POLICY, carried_out, cluster, counts, node, of, with_job, with_node


def with_attained(snapshot: Snapshot, *seconds: float) -> Snapshot:
    """The jobs, in their order, have had so much CPU."""
    return replace(snapshot, jobs=tuple(replace(job, attained=had) for job, had in zip(snapshot.jobs, seconds, strict=True)))


def moved(plan: Plan) -> list[tuple[str, str, str]]:
    return [(move.job, move.destination, str(move.cause)) for move in plan.moves]


def why(plan: Plan, job: str) -> str:
    return next(kept.reason for kept in plan.kept if kept.job == job)


# --- rotation ---


def test_of_surplus_jobs_that_which_had_most_goes_where_they_had_more_still() -> None:
    snapshot = with_attained(cluster([2, 1, 1, 1]), 80, 85, 100, 130, 110)
    plan = plan_moves(snapshot, POLICY)
    assert moved(plan) == [("default/j002", "n3", "rotation")]
    assert plan.moves[0].reason == (
        "rotation: 2 equal jobs on n1, 1 on n3, where they had 130 s of CPU, 50 s more than what stays: so all end together"
    )
    assert (plan.balanced, plan.reason) == (True, "Rotating")


def test_a_rotation_comes_to_rest_when_those_that_had_most_share() -> None:
    snapshot = with_attained(cluster([2, 1, 1, 1]), 80, 85, 100, 130, 110)
    for _ in range(10):
        plan = plan_moves(snapshot, POLICY)
        if not plan.moves:
            break
        snapshot = carried_out(snapshot, plan)
    had = {name: [job.attained or 0 for job in snapshot.jobs if job.node == name] for name in ("n1", "n2", "n3", "n4")}
    shared = next(jobs for jobs in had.values() if len(jobs) == 2)
    assert min(shared) >= 100
    assert plan.reason == "NoMoveGains"


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": Rotation.OFF},
        {"goal": Goal.MOSIX},
        {"min_residency": 60.0},
    ],
)
def test_no_rotation_unless_the_policy_wants_it_and_it_pays(change: dict[str, object]) -> None:
    plan = plan_moves(with_attained(cluster([2, 1, 1, 1]), 80, 85, 100, 130, 110), POLICY.model_copy(update=change))
    assert (plan.moves, plan.balanced, plan.reason) == ((), True, "NoMoveGains")


def test_no_rotation_on_evenly_loaded_nodes_nor_of_jobs_of_which_nothing_is_known() -> None:
    assert plan_moves(with_attained(cluster([2, 2]), 10, 10, 500, 500), POLICY).moves == ()
    assert plan_moves(cluster([2, 1, 1]), POLICY).moves == ()
    partly = with_job(with_attained(cluster([2, 1]), 10, 10, 500), "default/j003", attained=None)
    assert plan_moves(partly, POLICY).moves == ()


def test_no_rotation_between_nodes_of_different_speed() -> None:
    slower = with_node(with_attained(cluster([2, 1]), 10, 10, 500), "n2", speed=0.7)
    assert plan_moves(slower, POLICY).moves == ()


def test_with_aged_time_sharing_only_what_began_together_changes_places() -> None:
    aged = POLICY.model_copy(update={"time_sharing": TimeSharing.AGED})
    snapshot = with_attained(cluster([2, 1]), 80, 85, 130)
    together = replace(snapshot, jobs=tuple(replace(job, age=200.0 + i) for i, job in enumerate(snapshot.jobs)))
    assert moved(plan_moves(together, aged)) == [("default/j002", "n2", "rotation")]
    for key in ("default/j001", "default/j003"):
        later = with_job(together, key, age=150.0)
        assert plan_moves(later, aged).moves == ()
        assert len(plan_moves(later, POLICY).moves) == 1


def test_a_rotation_keeps_to_its_budget_and_waits_for_what_is_under_way() -> None:
    snapshot = with_attained(cluster([2, 2, 1, 1, 1, 1]), 10, 10, 10, 10, 500, 500, 500, 500)
    one = POLICY.model_copy(update={"budget": MoveBudget(per_node=1, cluster=1)})
    assert len(plan_moves(snapshot, one).moves) == 1
    assert len({move.destination for move in plan_moves(snapshot, POLICY).moves}) == 2
    under_way = replace(snapshot, moves=(MoveView("default/j001", "n1", "n3", Cause.ROTATION),))
    plan = plan_moves(under_way, one)
    assert (plan.moves, plan.balanced, plan.reason) == ((), True, "Rotating")


# --- the owner of a node ---

EVICT = POLICY.model_copy(update={"guests": Guests.EVICT})


def test_guests_leave_when_the_owner_logs_in_even_if_nothing_is_gained() -> None:
    snapshot = with_node(with_job(cluster([1, 1, 2]), "default/j001", guest=True, resident_for=1.0), "n1", owner_present=True)
    plan = plan_moves(snapshot, EVICT)
    assert moved(plan) == [("default/j001", "n2", "owner")]
    assert plan.moves[0].reason.startswith("the owner of n1 is there, its guests leave: n2 has 1.0 runnable")
    assert plan_moves(snapshot, POLICY).moves == ()


def test_nobody_comes_while_the_owner_is_there_and_his_own_jobs_stay() -> None:
    snapshot = with_node(cluster([1, 4, 1]), "n1", owner_present=True)
    plan = plan_moves(snapshot, EVICT)
    assert {move.destination for move in plan.moves} == {"n3"}
    choice = choose_node(
        with_node(cluster([0, 4]), "n1", owner_present=True), PlacementRequest("default/new", 1, MIB), Guests.EVICT
    )
    assert choice.node == "n2"
    assert choice.rejected == {"n1": "its owner is logged in, and the policy evicts guests"}


def test_a_guest_that_cannot_leave_says_why() -> None:
    snapshot = with_node(with_job(cluster([1, 0]), "default/j001", guest=True, memory=450 * MIB), "n1", owner_present=True)
    plan = plan_moves(snapshot, EVICT)
    assert plan.moves == ()
    assert "no node takes it: n2: memory would be 0.88 of 512Mi" in why(plan, "default/j001")


# --- room ---


def hogs(*sizes: int, on: str) -> list[JobView]:
    return [JobView(f"default/{on}-{size}", on, 0.0, size * MIB) for size in sizes]


def waiting(memory: int, *jobs: JobView, names: tuple[str, ...] = ("n1", "n2", "n3"), **more: object) -> Snapshot:
    request = PlacementRequest("default/big", 1.0, memory * MIB, **more)  # type: ignore[arg-type]
    return replace(of(jobs, names), pending=(request,))


def test_room_is_made_by_the_fewest_moves() -> None:
    jobs = [*hogs(120, 100, 30, on="n1"), *hogs(60, 60, 60, on="n2"), *hogs(200, 50, on="n3")]
    snapshot = replace(waiting(400), jobs=tuple(jobs), nodes=of(jobs, ["n1", "n2", "n3"]).nodes)
    plan = plan_moves(snapshot, POLICY)
    assert moved(plan) == [("default/n3-200", "n1", "room")] or len(plan.moves) == 1
    assert plan.moves[0].reason.startswith("room for default/big, which needs 400Mi: ")
    assert "room for default/big on n" in plan.message
    after = carried_out(snapshot, plan)
    assert choose_node(after, snapshot.pending[0]).node == plan.moves[0].source


def test_room_takes_several_moves_if_it_must_and_goes_on_where_it_began() -> None:
    jobs = [*hogs(101, 102, 103, on="n1"), *hogs(270, on="n2"), *hogs(150, 110, on="n3")]
    snapshot = replace(waiting(400), jobs=tuple(jobs), nodes=of(jobs, ["n1", "n2", "n3"]).nodes)
    one = POLICY.model_copy(update={"budget": MoveBudget(per_node=1, cluster=4)})
    assert plan_moves(snapshot, one).moves
    for _ in range(4):
        plan = plan_moves(snapshot, one)
        if not plan.moves:
            break
        snapshot = carried_out(snapshot, plan)
    assert choose_node(snapshot, snapshot.pending[0]).node is not None


def test_no_room_is_made_where_there_is_room_or_none_can_be() -> None:
    jobs = hogs(300, on="n1")
    assert plan_moves(waiting(500, *jobs), POLICY).moves == ()
    small = waiting(400, *hogs(300, on="n1"), *hogs(300, on="n2"), names=("n1", "n2"))
    plan = plan_moves(small, POLICY)
    assert plan.moves == ()
    assert "default/big waits for 400Mi, which no moves can free on one node" in plan.message
    pinned = tuple(replace(job, movable=False) for job in small.jobs)
    assert plan_moves(replace(small, jobs=pinned), POLICY).moves == ()


def test_nobody_of_higher_priority_makes_room() -> None:
    jobs = [replace(job, priority=5) for job in hogs(200, on="n1")]
    snapshot = waiting(400, *jobs, *hogs(300, on="n2"), names=("n1", "n2"))
    assert plan_moves(snapshot, POLICY).moves == ()
    higher = replace(snapshot, pending=(replace(snapshot.pending[0], priority=5),))
    assert plan_moves(replace(higher, nodes=(*higher.nodes, node("n3", (), memory=300 * MIB))), POLICY).moves


# --- home and friends ---


def test_a_job_goes_home_when_a_core_is_free_for_it_there() -> None:
    jobs = [JobView("default/a", "n1", 1.0, MIB, age=600.0, home="n2"), JobView("default/b", "n1", 1.0, MIB, age=600.0)]
    snapshot = of(jobs, ["n1", "n2"], [4.0, 4.0])
    assert moved(plan_moves(snapshot, POLICY)) == [("default/a", "n2", "home")]
    assert plan_moves(carried_out(snapshot, plan_moves(snapshot, POLICY)), POLICY).moves == ()
    assert plan_moves(of(jobs, ["n1", "n2"], [4.0, 1.2]), POLICY).moves == ()
    assert plan_moves(of([replace(job, age=5.0, resident_for=5.0) for job in jobs], ["n1", "n2"], [4.0, 4.0]), POLICY).moves == ()


def test_among_equally_good_nodes_it_goes_home_or_where_its_friends_are() -> None:
    jobs = [replace(job, home="n3") for job in cluster([3]).jobs]
    assert {move.destination for move in plan_moves(of(jobs, ["n1", "n2", "n3"]), POLICY).moves} >= {"n3"}
    friend = JobView("default/friend", "n3", 0.0, MIB)
    friends = [*(replace(job, near=frozenset({"default/friend"})) for job in cluster([3]).jobs), friend]
    assert plan_moves(of(friends, ["n1", "n2", "n3"]), POLICY).moves[0].destination == "n3"


def test_the_job_of_higher_priority_goes_first() -> None:
    snapshot = with_job(cluster([3, 0]), "default/j003", priority=1)
    assert plan_moves(snapshot, POLICY).moves[0].job == "default/j003"


# --- speed ---


def test_a_job_goes_where_it_runs_faster() -> None:
    snapshot = with_node(cluster([1, 0], [1.0, 1.0]), "n1", speed=0.5)
    plan = plan_moves(snapshot, POLICY)
    assert moved(plan) == [("default/j001", "n2", "load")]
    assert "finishes 2.0x sooner" in plan.moves[0].reason
    assert plan_moves(carried_out(snapshot, plan), POLICY).moves == ()


def test_faster_nodes_have_more() -> None:
    snapshot = with_node(cluster([6, 0], [1.0, 1.0]), "n2", speed=2.0)
    for _ in range(6):
        snapshot = carried_out(snapshot, plan_moves(snapshot, POLICY))
    assert counts(snapshot) == [2, 4]


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_an_impossible_speed_moves_nothing(speed: float) -> None:
    plan = plan_moves(with_node(cluster([3, 0]), "n2", speed=speed), POLICY)
    assert plan.moves == ()
    assert plan.ignored == (f"n2: impossible sample: its cores have speed {speed:g}",)


# --- goals ---


def test_mosix_moves_the_second_largest_by_the_rule_of_130_per_cent() -> None:
    policy = BalancePolicySpec(goal=Goal.MOSIX)
    jobs = [JobView(f"default/j{i}", "n1", demand) for i, demand in enumerate((0.5, 1.0, 0.8))]
    plan = plan_moves(of(jobs, ["n1", "n2"], [1.0, 1.0]), policy)
    assert moved(plan) == [("default/j2", "n2", "load")]
    assert plan_moves(cluster([2, 1], [1.0, 1.0]), policy).moves == ()
    assert len(plan_moves(cluster([3, 1], [1.0, 1.0]), policy).moves) == 1
    assert why(plan_moves(cluster([2, 1], [1.0, 1.0]), policy), "default/j001").startswith("no gain: n1 has 2.0 runnable")


def test_threshold_moves_from_above_one_to_below_the_other() -> None:
    policy = BalancePolicySpec(goal=Goal.THRESHOLD, threshold=LoadThresholds(high=2.5, low=1.5))
    assert len(plan_moves(cluster([3, 1], [1.0, 1.0]), policy).moves) == 1
    assert plan_moves(cluster([2, 0], [1.0, 1.0]), policy).moves == ()
    assert plan_moves(cluster([3, 2], [1.0, 1.0]), policy).moves == ()
    assert why(plan_moves(cluster([2, 0], [1.0, 1.0]), policy), "default/j001").endswith("not above the high load of 2.5")


# --- patience and pressure ---


@pytest.mark.parametrize(
    ("failures", "seconds", "moves"), [(0, 31, 1), (1, 31, 1), (2, 31, 0), (2, 61, 1), (4, 200, 0), (4, 241, 1)]
)
def test_each_further_failure_doubles_the_pause(failures: int, seconds: float, moves: int) -> None:
    snapshot = cluster([2, 0])
    for key in ("default/j001", "default/j002"):
        snapshot = with_job(snapshot, key, since_failed_move=float(seconds), failed_moves=failures)
    plan = plan_moves(snapshot, POLICY)
    assert len(plan.moves) == moves
    if failures == 4 and not moves:
        assert why(plan, "default/j001") == "waits: its move failed 200 s ago, 4 in a row, left alone for 240 s"


def test_tasks_that_wait_for_memory_make_a_node_short_of_it_already_above_the_low_water() -> None:
    water = POLICY.model_copy(update={"memory": MemoryWater(high_water=0.9, low_water=0.75)})
    jobs = hogs(300, 120, on="n1")
    assert plan_moves(of(jobs, ["n1", "n2"]), water).moves == ()
    plan = plan_moves(with_node(of(jobs, ["n1", "n2"]), "n1", memory_pressure=20.0), water)
    assert moved(plan) == [("default/n1-120", "n2", "memory")]
    assert "0.82 of its memory in use, and tasks wait for it" in plan.moves[0].reason
