"""What no plan ever does, whatever the cluster, the policy and the goal: with taints, pinned jobs, old samples, owners, speeds."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from crds.balancepolicy import BalancePolicySpec, Goal, Guests, MemoryWater, MoveBudget, Rotation
from reconciler.planning.balance import plan_moves
from reconciler.planning.types import Cause, JobView, MoveView, NodeView, PlacementRequest, Plan, Snapshot
from tests.unit.planning.clusters import MIB, carried_out, node

NAMES = ("n1", "n2", "n3", "n4", "n5")
POLICIES = st.builds(
    lambda goal, each, total, rotation, guests: BalancePolicySpec(
        goal=goal,
        budget=MoveBudget(per_node=each, cluster=total),
        rotation=rotation,
        guests=guests,
        memory=MemoryWater(high_water=0.9, low_water=0.75),
    ),
    st.sampled_from([goal for goal in Goal if goal is not Goal.NONE]),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from(Rotation),
    st.sampled_from(Guests),
)
JOBS = st.builds(
    lambda on, demand, memory, movable, attained, taint, home, age: JobView(
        "",
        on,
        demand,
        memory * MIB,
        1000.0,
        age,
        movable,
        "pinned",
        attained=attained,
        tolerations=taint,
        home=home,
        guest=not home,
    ),
    st.sampled_from(NAMES),
    st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0, 2.0]),
    st.sampled_from([1, 20, 200, 400]),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([None, 10.0, 100.0, 500.0]),
    st.sampled_from([(), (), ("gpu",)]),
    st.sampled_from(["", "", "n2"]),
    st.sampled_from([0.0, 600.0]),
)
NODES = st.fixed_dictionaries(
    {
        "cores": st.sampled_from([1.0, 1.0, 2.0]),
        "speed": st.sampled_from([1.0, 1.0, 0.5]),
        "schedulable": st.sampled_from([True, True, True, False]),
        "taints": st.sampled_from([(), (), ("gpu",)]),
        "sample_age": st.sampled_from([1.0, 1.0, 1.0, 60.0, None]),
        "owner_present": st.sampled_from([False, False, True]),
        "memory_pressure": st.sampled_from([0.0, 0.0, 30.0]),
    }
)


@st.composite
def clusters(draw: st.DrawFn) -> Snapshot:
    jobs = [replace(job, key=f"default/j{i:02}") for i, job in enumerate(draw(st.lists(JOBS, max_size=14)))]
    nodes = tuple(node(name, jobs, memory=1024 * MIB, **draw(NODES)) for name in NAMES)
    moving = draw(st.sampled_from(jobs)) if jobs and draw(st.booleans()) else None
    moves = (MoveView(moving.key, moving.node, draw(st.sampled_from(NAMES))),) if moving else ()
    pending = (PlacementRequest("default/big", 1.0, draw(st.sampled_from([100, 700, 1000])) * MIB),) if draw(st.booleans()) else ()
    return Snapshot(nodes, tuple(jobs), moves, pending=pending)


@given(clusters(), POLICIES)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_no_plan_breaks_a_promise(snapshot: Snapshot, policy: BalancePolicySpec) -> None:
    plan = plan_moves(snapshot, policy)
    assert plan == plan_moves(replace(snapshot, nodes=snapshot.nodes[::-1], jobs=snapshot.jobs[::-1]), policy)
    within_budget(snapshot, policy, plan)
    jobs, nodes = {job.key: job for job in snapshot.jobs}, {view.name: view for view in snapshot.nodes}
    coming: Counter[str] = Counter()
    for move in plan.moves:
        job, there = jobs[move.job], nodes[move.destination]
        coming[there.name] += job.memory
        allowed(policy, job, there)
        assert there.memory_used + coming[there.name] <= policy.memory.low_water * there.memory_capacity
        assert nodes[move.source].sample_age == 1.0, "its own node's sample is believed"
        assert move.reason and job.node == move.source
    assert {kept.job for kept in plan.kept}.isdisjoint(move.job for move in plan.moves)
    assert all(kept.reason for kept in plan.kept)
    assert policy.rotation is Rotation.AUTO or not any(move.cause is Cause.ROTATION for move in plan.moves)


def within_budget(snapshot: Snapshot, policy: BalancePolicySpec, plan: Plan) -> None:
    """With what is under way; nodes that take part in a move that was there before may be beyond it, but get no more."""
    ends = [(move.source, move.destination) for move in (*snapshot.moves, *plan.moves)]
    assert len(plan.moves) <= max(0, policy.budget.cluster - len(snapshot.moves))
    part = Counter(name for pair in ends for name in set(pair))
    before = Counter(name for move in snapshot.moves for name in (move.source, move.destination))
    assert all(count <= max(policy.budget.per_node, before[name]) for name, count in part.items())


def allowed(policy: BalancePolicySpec, job: JobView, there: NodeView) -> None:
    """Movable, and neither cordoned, tainted, without a fresh sample, nor its owner's while he is there."""
    assert job.movable
    assert there.name != job.node
    assert there.schedulable
    assert set(there.taints) <= set(job.tolerations)
    assert there.sample_age == 1.0
    assert not (there.owner_present and policy.guests is Guests.EVICT)


@given(clusters(), POLICIES)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_every_plan_comes_to_rest(snapshot: Snapshot, policy: BalancePolicySpec) -> None:
    """An owner who does not leave sends every guest away once; all else falls in some order that has an end."""
    snapshot = replace(snapshot, moves=())
    for _ in range(80):
        plan = plan_moves(snapshot, policy)
        if not plan.moves:
            return
        snapshot = carried_out(snapshot, plan)
    raise AssertionError(f"still moving: {plan.moves}")
