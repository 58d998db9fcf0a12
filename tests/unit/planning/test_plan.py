"""plan_moves by tables: what moves, what stays, and what is said about it."""

import math
from dataclasses import replace

import pytest

from crds.balancepolicy import BalancePolicySpec, Goal, MemoryWater, MoveBudget
from reconciler.planning.balance import plan_moves
from reconciler.planning.types import JobView, MoveCost, MoveView, Plan, Snapshot
from tests.unit.planning.clusters import MIB, POLICY, carried_out, cluster, counts, node, of, with_job, with_node


def settle(snapshot: Snapshot, policy: BalancePolicySpec = POLICY) -> tuple[Snapshot, list[Plan]]:
    plans = []
    for _ in range(50):
        plans.append(plan_moves(snapshot, policy))
        if not plans[-1].moves:
            return snapshot, plans
        snapshot = carried_out(snapshot, plans[-1])
    raise AssertionError("still moving after 50 plans")


def why(plan: Plan, job: str) -> str:
    return next(kept.reason for kept in plan.kept if kept.job == job)


@pytest.mark.parametrize(
    ("before", "cores", "after"),
    [
        ([9, 0, 0, 0], [0.35] * 4, [3, 2, 2, 2]),
        ([0, 0, 0, 9], [0.35] * 4, [2, 2, 2, 3]),
        ([3, 2, 2, 2], [0.35] * 4, [3, 2, 2, 2]),
        ([2, 0], [0.35] * 2, [1, 1]),
        ([2, 1], [0.35] * 2, [2, 1]),
        ([3, 1], [0.35] * 2, [2, 2]),
        ([3, 1, 2, 2], [0.35] * 4, [2, 2, 2, 2]),
        ([1, 2, 0, 1], [0.35] * 4, [1, 1, 1, 1]),
        ([3, 0], [0.4, 0.2], [2, 1]),
        ([0, 3], [0.4, 0.2], [2, 1]),
        ([6, 0, 0], [0.4, 0.2, 0.4], [3, 1, 2]),
        ([20, 10], [1.0, 1.0], [16, 14]),
        ([4, 0], [8.0, 8.0], [4, 0]),
        ([0, 0, 0], [0.35] * 3, [0, 0, 0]),
        ([5], [0.35], [5]),
    ],
)
def test_where_cpu_bound_jobs_come_to_rest(before: list[int], cores: list[float], after: list[int]) -> None:
    rest, plans = settle(cluster(before, cores))
    assert counts(rest) == after
    assert plans[-1].balanced


def test_the_demo_spreads_in_three_plans_of_two_moves_and_no_job_moves_twice() -> None:
    rest, plans = settle(cluster([9, 0, 0, 0]))
    moved = [move.job for plan in plans for move in plan.moves]
    assert [len(plan.moves) for plan in plans] == [2, 2, 2, 0]
    assert len(set(moved)) == 6
    assert counts(rest) == [3, 2, 2, 2]


def test_several_overloaded_nodes_share_the_budget_of_the_cluster() -> None:
    plan = plan_moves(cluster([6, 6, 0, 0, 0, 0]), POLICY)
    assert [move.source for move in plan.moves].count("n1") == 2
    assert len(plan.moves) == 4


def test_a_move_says_why_in_figures() -> None:
    plan = plan_moves(cluster([9, 0, 0, 0]), POLICY)
    assert plan.moves[0].reason == "n1 has 9.0 runnable on 0.35 cores, n2 none on 0.35: finishes 9.0x sooner for 0.3 s of freeze"
    assert plan.moves[0].gain == pytest.approx(8 / 9, abs=1e-3)
    assert not plan.balanced
    assert plan.reason == "Moving"
    assert plan.imbalance == pytest.approx(3.0)


def test_a_job_that_stays_says_why_in_figures() -> None:
    plan = plan_moves(cluster([2, 1]), POLICY)
    assert (plan.balanced, plan.reason) == (True, "NoMoveGains")
    assert (
        why(plan, "default/j001")
        == "no gain: n1 has 2.0 runnable on 0.35 cores, n2, the least loaded, 1.0 runnable on 0.35 cores already"
    )
    assert {kept.job for kept in plan.kept} == {"default/j001", "default/j002", "default/j003"}


def test_noise_in_the_samples_moves_nothing() -> None:
    jobs = [
        JobView(f"default/j{i}", f"n{1 + i // 2}", demand) for i, demand in enumerate((0.93, 1.0, 1.05, 1.0, 1.1, 1.02, 0.9, 0.99))
    ]
    assert settle(of(jobs, ["n1", "n2", "n3", "n4"]))[1][0].moves == ()
    two_and_one = [JobView("default/a", "n1", 1.15), JobView("default/b", "n1", 1.1), JobView("default/c", "n2", 0.85)]
    plan = plan_moves(of(two_and_one, ["n1", "n2"]), POLICY)
    assert (plan.moves, plan.reason) == ((), "NoMoveGains")


def test_idle_jobs_are_not_moved_for_cpu() -> None:
    jobs = [JobView(f"default/idle{i}", "n1", 0.02) for i in range(5)] + [JobView("default/busy", "n1", 1.0)]
    plan = plan_moves(of(jobs, ["n1", "n2"]), POLICY)
    assert [move.job for move in plan.moves] in ([], ["default/busy"])
    assert why(plan, "default/idle0") == "idle: 0.02 runnable"


def test_within_the_target_nothing_is_even_considered() -> None:
    plan = plan_moves(cluster([10, 11, 10, 10]), POLICY)
    assert (plan.moves, plan.kept, plan.balanced, plan.reason) == ((), (), True, "WithinTarget")


def test_goal_none_moves_nothing() -> None:
    plan = plan_moves(cluster([9, 0]), BalancePolicySpec(goal=Goal.NONE))
    assert (plan.moves, plan.balanced, plan.reason) == ((), False, "SwitchedOff")
    assert plan.imbalance == pytest.approx(1.0)


# --- what holds a move up ---


def test_budgets_count_the_moves_under_way() -> None:
    one = BalancePolicySpec(budget=MoveBudget(per_node=1, cluster=4))
    snapshot = replace(cluster([9, 0, 0, 0]), moves=(MoveView("default/j001", "n1", "n2"),))
    plan = plan_moves(snapshot, one)
    assert plan.moves == ()
    assert why(plan, "default/j002") == "waits: n1's budget of 1 moves at once is used up"
    full = BalancePolicySpec(budget=MoveBudget(per_node=4, cluster=1))
    assert why(plan_moves(snapshot, full), "default/j002") == "waits: the cluster's budget of 1 moves at once is used up"


def test_moves_under_way_count_at_their_destination() -> None:
    snapshot = replace(cluster([2, 0, 1]), moves=(MoveView("default/j001", "n1", "n2"),))
    plan = plan_moves(snapshot, POLICY)
    assert (plan.moves, plan.balanced, plan.reason, plan.imbalance) == ((), False, "Moving", 0.0)


def test_a_job_on_its_way_is_no_candidate() -> None:
    snapshot = replace(cluster([4, 0, 0]), moves=(MoveView("default/j001", "n1", "n2"),))
    plan = plan_moves(snapshot, POLICY)
    assert [(move.job, move.destination) for move in plan.moves] == [("default/j002", "n3")]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"resident_for": 3.0}, "waits: on n1 for 3.0 s, stays at least 10 s"),
        ({"since_failed_move": 5.0}, "waits: its move failed 5 s ago, left alone for 30 s"),
    ],
)
def test_what_passes_by_itself_is_waited_for(change: dict[str, float], text: str) -> None:
    snapshot = cluster([2, 0])
    for key in ("default/j001", "default/j002"):
        snapshot = with_job(snapshot, key, **change)
    plan = plan_moves(snapshot, POLICY)
    assert plan.moves == ()
    assert (plan.balanced, plan.reason) == (False, "Waiting")
    assert why(plan, "default/j001") == text


def test_waiting_jobs_that_gain_nothing_leave_it_balanced() -> None:
    snapshot = with_job(cluster([2, 1]), "default/j001", resident_for=1.0)
    assert plan_moves(snapshot, POLICY).reason == "NoMoveGains"


def test_jobs_that_may_not_move_stay() -> None:
    snapshot = with_job(cluster([2, 0]), "default/j001", movable=False, why_not_movable="it is pinned to its node")
    plan = plan_moves(snapshot, POLICY)
    assert [move.job for move in plan.moves] == ["default/j002"]
    assert why(plan, "default/j001") == "it is pinned to its node"


def test_a_move_must_save_more_than_its_freeze() -> None:
    young = [JobView(f"default/j{i}", "n1", 1.0, 200 * MIB, resident_for=11, age=11) for i in (1, 2)]
    snapshot = of(young, ["n1", "n2"])
    assert len(plan_moves(snapshot, POLICY).moves) == 1
    slow = plan_moves(replace(snapshot, move_cost=MoveCost(fixed=2.0, bandwidth=50e6)), POLICY)
    assert slow.moves == ()
    assert why(slow, "default/j1") == "no gain: on n2 it ends at most 2.00x sooner, for 6.2 s of freeze"


def test_of_equal_jobs_the_smallest_moves() -> None:
    jobs = [JobView(f"default/j{i}", "n1", 1.0, size * MIB, age=100) for i, size in enumerate((300, 5, 40))]
    jobs = [replace(job, resident_for=100.0) for job in jobs]
    assert [move.job for move in plan_moves(of(jobs, ["n1", "n2"]), POLICY).moves] == ["default/j1"]


def test_a_newcomer_counts_in_full_before_its_sample_shows_it() -> None:
    jobs = [JobView("default/a", "n1"), JobView("default/b", "n1"), JobView("default/new", "n2", 0.1, resident_for=1.0)]
    assert plan_moves(of(jobs, ["n1", "n2"]), POLICY).moves == ()


def test_a_job_frozen_by_its_move_counts_in_full_where_it_goes() -> None:
    jobs = [JobView("default/a", "n1"), JobView("default/b", "n1"), JobView("default/frozen", "n1", 0.0)]
    snapshot = replace(of(jobs, ["n1", "n2"]), moves=(MoveView("default/frozen", "n1", "n2"),))
    assert plan_moves(snapshot, POLICY).moves == ()


def test_demand_that_fades_after_a_departure_drives_nobody_out() -> None:
    snapshot = with_node(cluster([2, 1]), "n1", cpu_demand=2.9)
    assert plan_moves(snapshot, POLICY).moves == ()


@pytest.mark.parametrize(
    ("source", "destination", "text"),
    [("n3", "n1", "waits: n1 is about to receive a job"), ("n2", "n3", "waits: n2 is about to give a job away")],
)
def test_a_node_gives_or_takes_but_never_both(source: str, destination: str, text: str) -> None:
    jobs = [*cluster([4, 0]).jobs, JobView("default/other", source, 0.0)]
    snapshot = replace(of(jobs, ["n1", "n2", "n3"]), moves=(MoveView("default/other", source, destination),))
    snapshot = with_node(snapshot, "n3", schedulable=False)
    plan = plan_moves(snapshot, POLICY)
    assert plan.moves == ()
    assert why(plan, "default/j001") == text


def test_a_job_waits_for_its_best_destination_rather_than_go_to_a_worse_one() -> None:
    policy = BalancePolicySpec(budget=MoveBudget(per_node=1, cluster=8))
    jobs = [*cluster([6]).jobs, JobView("default/other", "n4", 1.0)]
    snapshot = of(jobs, ["n1", "n2", "n3", "n4"], [1.0, 4.0, 0.35, 1.0])
    busy = with_node(replace(snapshot, moves=(MoveView("default/other", "n4", "n2"),)), "n4", schedulable=False)
    plan = plan_moves(busy, policy)
    assert plan.moves == ()
    assert why(plan, "default/j001") == "waits: n2's budget of 1 moves at once is used up"
    alike = with_node(busy, "n3", cpu_capacity=4.0)
    assert [move.destination for move in plan_moves(alike, policy).moves] == ["n3"]


def test_nodes_above_the_mean_give_first() -> None:
    policy = BalancePolicySpec(budget=MoveBudget(per_node=1, cluster=8))
    plan = plan_moves(cluster([9, 2, 0, 0]), policy)
    assert [(move.source, move.destination) for move in plan.moves] == [("n1", "n3")]
    assert why(plan, "default/j010") == "waits: n2 is below the mean load, nodes above it go first"
    pinned = cluster([9, 2, 0, 0])
    for job in pinned.jobs[:9]:
        pinned = with_job(pinned, job.key, movable=False)
    assert [move.source for move in plan_moves(pinned, policy).moves] == ["n2"]


# --- who is never a destination ---


@pytest.mark.parametrize(
    ("change", "ignored"),
    [
        ({"schedulable": False}, ""),
        ({"ready": False}, "n2: not ready"),
        ({"sample_age": None}, "n2: never reported its load"),
        ({"sample_age": 11.0}, "n2: its load sample is 11 s old, more than 10 s"),
        ({"sample_age": math.nan}, "n2: impossible sample: it is nan s old"),
        ({"cpu_capacity": 0.0}, "n2: impossible sample: it has 0 cores"),
        ({"cpu_capacity": math.inf}, "n2: impossible sample: it has inf cores"),
        ({"memory_capacity": 0}, "n2: impossible sample: it has 0 bytes of memory"),
        ({"cpu_demand": -1.0}, "n2: impossible sample: -1 runnable tasks"),
        ({"cpu_demand": math.nan}, "n2: impossible sample: nan runnable tasks"),
        ({"cpu_demand": 1e12}, "n2: impossible sample: 1e+12 runnable tasks"),
        ({"memory_used": -5}, "n2: impossible sample: -5 of 536870912 bytes used"),
        ({"taints": ("gpu",)}, ""),
    ],
)
def test_such_a_node_is_never_a_destination(change: dict[str, object], ignored: str) -> None:
    snapshot = with_node(cluster([2, 0]), "n2", **change)
    plan = plan_moves(snapshot, POLICY)
    assert plan.moves == ()
    assert plan.ignored == ((ignored,) if ignored else ())


@pytest.mark.parametrize("change", [{"ready": False}, {"sample_age": 99.0}, {"cpu_demand": math.nan}])
def test_jobs_on_such_a_node_are_no_candidates(change: dict[str, object]) -> None:
    plan = plan_moves(with_node(cluster([9, 0, 0]), "n1", **change), POLICY)
    assert (plan.moves, plan.kept) == ((), ())


def test_a_job_stays_where_its_features_are() -> None:
    """Of four nodes only the full one and one other can give jobs a network of their own."""
    snapshot = cluster([4, 0, 0, 0])
    for name in ("n1", "n3"):
        snapshot = with_node(snapshot, name, features=frozenset({"network"}))
    for job in snapshot.jobs:
        snapshot = with_job(snapshot, job.key, needs=frozenset({"network"}))
    assert counts(settle(snapshot)[0]) == [2, 0, 2, 0]


def test_labels_and_taints_are_kept_to() -> None:
    snapshot = cluster([3, 0, 0])
    for key in ("default/j001", "default/j002", "default/j003"):
        snapshot = with_job(snapshot, key, node_selector={"disk": "ssd"}, tolerations=("gpu",))
    assert plan_moves(snapshot, POLICY).moves == ()
    snapshot = with_node(snapshot, "n3", labels={"disk": "ssd"}, taints=("gpu",))
    assert {move.destination for move in plan_moves(snapshot, POLICY).moves} == {"n3"}


# --- bad samples move nothing ---


@pytest.mark.parametrize("where", ["n1", "n2", "n3", "n4"])
@pytest.mark.parametrize("zero_jobs", [True, False])
def test_one_sample_of_zeros_moves_nothing(where: str, zero_jobs: bool) -> None:
    snapshot = with_node(cluster([2, 2, 2, 2]), where, cpu_demand=0.0, memory_used=0)
    for job in snapshot.jobs:
        if zero_jobs and job.node == where:
            snapshot = with_job(snapshot, job.key, cpu_demand=0.0, memory=0)
    plan = plan_moves(snapshot, POLICY)
    assert plan.moves == ()
    assert [line.partition(":")[0] for line in plan.ignored] == [where]


def test_zeros_everywhere_move_nothing() -> None:
    snapshot = cluster([4, 0, 0])
    for view in snapshot.nodes:
        snapshot = with_node(snapshot, view.name, cpu_demand=0.0)
    for job in snapshot.jobs:
        snapshot = with_job(snapshot, job.key, cpu_demand=0.0)
    assert plan_moves(snapshot, POLICY).moves == ()


@pytest.mark.parametrize("missing", ["n1", "n2", "n3", "n4"])
def test_a_missing_node_moves_nothing(missing: str) -> None:
    snapshot = cluster([3, 2, 2, 2])
    plan = plan_moves(replace(snapshot, nodes=tuple(view for view in snapshot.nodes if view.name != missing)), POLICY)
    assert plan.moves == ()
    assert len(plan.ignored) == sum(job.node == missing for job in snapshot.jobs)
    assert all(line.endswith(f"its node {missing} is unknown") for line in plan.ignored)


def test_a_job_with_an_impossible_figure_makes_its_nodes_sample_worthless() -> None:
    plan = plan_moves(with_job(cluster([3, 0]), "default/j002", cpu_demand=math.nan), POLICY)
    assert plan.moves == ()
    assert plan.ignored == ("n1: impossible sample: nan runnable tasks of default/j002",)


def test_no_usable_sample_is_not_called_balanced() -> None:
    plan = plan_moves(with_node(with_node(cluster([1, 1]), "n1", ready=False), "n2", ready=False), POLICY)
    assert (plan.balanced, plan.reason, plan.imbalance) == (False, "Waiting", 0.0)


# --- memory ---

WATER = POLICY.model_copy(update={"memory": MemoryWater(high_water=0.9, low_water=0.75)})


def hogs(*sizes: int, on: str = "n1", demand: float = 0.0) -> list[JobView]:
    return [JobView(f"default/{on}-{size}", on, demand, size * MIB) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "moved"),
    [
        ([470], []),
        ([300, 180], ["default/n1-180"]),
        ([300, 100, 80], ["default/n1-100"]),
        ([60, 50, 41, 31, 290], ["default/n1-290"]),
        ([200, 201, 50], []),
    ],
)
def test_memory_moves_the_smallest_job_that_suffices(sizes: list[int], moved: list[str]) -> None:
    jobs = hogs(*sizes)
    plan = plan_moves(of(jobs, ["n1", "n2"]), WATER)
    assert [move.job for move in plan.moves] == moved


def test_memory_decides_even_if_cpu_says_otherwise() -> None:
    jobs = [*hogs(300, 170), JobView("default/a", "n2", 1.0, MIB), JobView("default/b", "n2", 1.0, MIB)]
    plan = plan_moves(of(jobs, ["n1", "n2"]), WATER)
    assert plan.moves[0].job == "default/n1-170"
    assert plan.moves[0].destination == "n2"
    assert "0.92 of its memory in use, above high water 0.9: 170Mi go to n2" in plan.moves[0].reason


def test_memory_takes_the_best_fit() -> None:
    jobs = [*hogs(300, 170), *hogs(100, on="n2"), *hogs(200, on="n3"), *hogs(300, on="n4")]
    plan = plan_moves(of(jobs, ["n1", "n2", "n3", "n4"]), WATER)
    assert [move.destination for move in plan.moves] == ["n3"]


def test_memory_without_room_anywhere_is_said() -> None:
    jobs = [*hogs(300, 170), *hogs(350, on="n2")]
    plan = plan_moves(of(jobs, ["n1", "n2"]), WATER)
    assert plan.moves == ()
    assert why(plan, "default/n1-170") == "no node has room for it: n2: memory would be 1.02 of 512Mi, above low water 0.75"
    assert "n1 has 0.92 of its memory in use, above high water 0.9" in plan.message


def test_memory_on_its_way_out_counts_as_relief() -> None:
    jobs = hogs(300, 170)
    snapshot = replace(of(jobs, ["n1", "n2", "n3"]), moves=(MoveView("default/n1-170", "n1", "n2"),))
    assert plan_moves(snapshot, WATER).moves == ()


def test_no_move_for_cpu_passes_the_low_water() -> None:
    jobs = [JobView(f"default/j{i}", "n1", 1.0, 100 * MIB) for i in range(3)] + hogs(350, on="n2")
    plan = plan_moves(of(jobs, ["n1", "n2"]), WATER)
    assert plan.moves == ()
    assert why(plan, "default/j0") == "no node where it gains: n2: memory would be 0.88 of 512Mi, above low water 0.75"


def test_a_cordoned_idle_node_does_not_make_the_others_unbalanced() -> None:
    snapshot = with_node(cluster([2, 2, 0]), "n3", schedulable=False)
    assert plan_moves(snapshot, POLICY).imbalance == 0.0


def test_a_node_of_other_size_is_judged_by_its_cores() -> None:
    jobs = [JobView(f"default/j{i}", "big", 1.0) for i in range(4)]
    snapshot = Snapshot((node("big", jobs, cores=4.0), node("small", jobs, cores=0.5)), tuple(jobs))
    plan = plan_moves(snapshot, POLICY)
    assert plan.moves == ()
    assert why(plan, "default/j0") == "big has 4.0 runnable on 4 cores: enough for all"
