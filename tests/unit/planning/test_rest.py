"""Plans come to rest, whatever the cluster: nothing oscillates, nothing exceeds the budget, every move makes it better."""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from crds.balancepolicy import BalancePolicySpec, MemoryWater, MoveBudget
from reconciler.planning.balance import plan_moves
from reconciler.planning.cost import Scale, scale
from reconciler.planning.types import JobView, MoveCost, NodeView, Plan, Snapshot
from tests.unit.planning.clusters import MIB, carried_out, node, of

SIZES = (0.0, 0.05, 0.3, 0.5, 0.95, 1.0, 1.0, 1.0, 1.05, 2.0, 4.0)
DEMAND = st.sampled_from(SIZES)
CORES = st.sampled_from([0.2, 0.35, 0.35, 0.4, 1.0, 2.0, 8.0])
POLICIES = st.builds(
    lambda each, total: BalancePolicySpec(budget=MoveBudget(per_node=each, cluster=total)), st.integers(1, 4), st.integers(1, 8)
)
HOGS = POLICIES.map(lambda policy: policy.model_copy(update={"memory": MemoryWater(high_water=0.9, low_water=0.75)}))


@st.composite
def clusters(
    draw: st.DrawFn,
    *,
    demand: st.SearchStrategy[float] = DEMAND,
    job_memory: tuple[int, ...] = (1, 20, 300),
    node_memory: int = 100_000,
) -> Snapshot:
    names = [f"n{i}" for i in range(1, draw(st.integers(2, 7)) + 1)]
    jobs = [
        JobView(f"default/j{i:02}", draw(st.sampled_from(names)), draw(demand), draw(st.sampled_from(job_memory)) * MIB)
        for i in range(draw(st.integers(0, 24)))
    ]
    same = draw(st.booleans())
    cores = [draw(CORES)] * len(names) if same else [draw(CORES) for _ in names]
    open_ = [draw(st.sampled_from([True, True, True, False])) for _ in names]
    nodes = [
        node(
            name,
            jobs,
            cores=size,
            memory=node_memory * MIB,
            schedulable=free,
            memory_used=sum(j.memory for j in jobs if j.node == name) + MIB,
        )
        for name, size, free in zip(names, cores, open_, strict=True)
    ]
    return Snapshot(tuple(nodes), tuple(jobs), move_cost=MoveCost(0.2, 400e6))


def rounds(snapshot: Snapshot, policy: BalancePolicySpec, limit: int = 400) -> list[tuple[Snapshot, Plan]]:
    """Plans, each carried out before the next, until one is empty."""
    history = []
    for _ in range(limit):
        plan = plan_moves(snapshot, policy)
        history.append((snapshot, plan))
        if not plan.moves:
            return history
        snapshot = carried_out(snapshot, plan)
    raise AssertionError(f"still moving after {limit} plans: {history[-1][1].moves}")


@given(clusters(), POLICIES)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_it_comes_to_rest_within_a_bounded_number_of_plans(snapshot: Snapshot, policy: BalancePolicySpec) -> None:
    history = rounds(snapshot, policy)
    assert len(history) <= 1 + 2 * len(snapshot.jobs)
    last = history[-1][1]
    assert last.balanced and last.reason in ("WithinTarget", "NoMoveGains")


@given(clusters(demand=st.just(1.0)), POLICIES)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_no_job_visits_a_node_twice(snapshot: Snapshot, policy: BalancePolicySpec) -> None:
    for nodes in routes(rounds(snapshot, policy)).values():
        assert len(set(nodes)) == len(nodes), nodes


def routes(history: list[tuple[Snapshot, Plan]]) -> dict[str, list[str]]:
    """The nodes each moved job was on, in order."""
    visited: dict[str, list[str]] = {}
    for _, plan in history:
        for move in plan.moves:
            visited.setdefault(move.job, [move.source]).append(move.destination)
    return visited


def test_jobs_of_all_sizes_hardly_ever_move_twice() -> None:
    """No plan can know all later ones, so with mixed sizes and a tight budget a second hop happens, a return hardly ever."""
    hops = seconds = returns = 0
    for seed in range(80):
        random = Random(seed)
        jobs = [
            JobView(f"default/j{i:02}", f"n{random.randint(1, 6)}", random.choice(SIZES), MIB) for i in range(random.randint(6, 24))
        ]
        snapshot = of(jobs, [f"n{i}" for i in range(1, 7)], [random.choice((0.2, 0.35, 0.4, 1.0)) for _ in range(6)])
        policy = BalancePolicySpec(budget=MoveBudget(per_node=random.randint(1, 3), cluster=random.randint(1, 6)))
        for nodes in routes(rounds(snapshot, policy)).values():
            hops += len(nodes) - 1
            seconds += len(nodes) - 2
            returns += len(nodes) - len(set(nodes))
    assert hops > 200
    assert seconds <= hops / 50
    assert returns <= hops / 200


@given(clusters(job_memory=(1, 100, 250, 400), node_memory=1000), HOGS)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_with_scarce_memory_it_comes_to_rest_and_no_move_passes_the_low_water(
    snapshot: Snapshot, policy: BalancePolicySpec
) -> None:
    for before, plan in rounds(snapshot, policy):
        after = {view.name: view for view in carried_out(before, plan).nodes}
        for move in plan.moves:
            assert after[move.destination].memory_used <= policy.memory.low_water * after[move.destination].memory_capacity


@given(clusters(), POLICIES)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_every_move_lowers_the_cost_and_the_larger_load_of_its_nodes(snapshot: Snapshot, policy: BalancePolicySpec) -> None:
    for before, plan in rounds(snapshot, policy):
        demand = {job.key: job.cpu_demand for job in before.jobs}
        views = {view.name: view for view in before.nodes}
        loads = {view.name: view.cpu_demand / view.cpu_capacity for view in before.nodes}
        measure = scale(list(loads.values()), [v.cpu_capacity for v in before.nodes], [v.memory_capacity for v in before.nodes])
        for move in plan.moves:
            cost, larger = total(measure, loads, views), loads[move.source]
            loads[move.source] -= demand[move.job] / views[move.source].cpu_capacity
            loads[move.destination] += demand[move.job] / views[move.destination].cpu_capacity
            assert total(measure, loads, views) < cost
            assert max(loads[move.source], loads[move.destination]) < larger
            assert move.gain > policy.min_gain


def total(measure: Scale, loads: dict[str, float], views: dict[str, NodeView]) -> float:
    return sum(measure.cpu(load, views[name].cpu_capacity) for name, load in loads.items())


@given(clusters(job_memory=(1, 100, 250, 400), node_memory=1000), POLICIES)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_plan_keeps_its_budget_and_goes_to_open_nodes_only(snapshot: Snapshot, policy: BalancePolicySpec) -> None:
    plan = plan_moves(snapshot, policy)
    parts = Counter(name for move in plan.moves for name in (move.source, move.destination))
    assert len(plan.moves) <= policy.budget.cluster
    assert all(count <= policy.budget.per_node for count in parts.values())
    assert {move.destination for move in plan.moves} <= {view.name for view in snapshot.nodes if view.schedulable}
    assert not {move.source for move in plan.moves} & {move.destination for move in plan.moves}
    assert len({move.job for move in plan.moves}) == len(plan.moves)
    assert not {move.job for move in plan.moves} & {kept.job for kept in plan.kept}


@given(clusters(), POLICIES)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_the_next_plan_undoes_nothing(snapshot: Snapshot, policy: BalancePolicySpec) -> None:
    plan = plan_moves(snapshot, policy)
    following = plan_moves(carried_out(snapshot, plan), policy)
    undone = {(move.job, move.destination, move.source) for move in plan.moves}
    assert not undone & {(move.job, move.source, move.destination) for move in following.moves}


@given(clusters(), POLICIES, st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_order_of_the_input_does_not_matter(snapshot: Snapshot, policy: BalancePolicySpec, random: Random) -> None:
    nodes, jobs = list(snapshot.nodes), list(snapshot.jobs)
    random.shuffle(nodes)
    random.shuffle(jobs)
    assert plan_moves(Snapshot(tuple(nodes), tuple(jobs)), policy) == plan_moves(snapshot, policy)
