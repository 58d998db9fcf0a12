"""CPU features: a job goes only where all are that it may be using."""

import pytest

from crds.balancepolicy import BalancePolicySpec
from reconciler.planning.balance import plan_moves
from reconciler.planning.placement import choose_node
from reconciler.planning.types import JobView, PlacementRequest, Snapshot
from tests.unit.planning.clusters import node

OLD, NEW = frozenset({"sse2"}), frozenset({"sse2", "avx2"})
SEVEN = frozenset(f"f{n}" for n in range(7))


@pytest.mark.parametrize(
    ("there", "needed", "why"),
    [
        (NEW, OLD, ""),
        (OLD, NEW, "its processor lacks avx2"),
        (frozenset(), NEW, ""),
        (OLD, frozenset(), ""),
        (OLD, SEVEN, "its processor lacks f0, f1, f2, f3, f4, f5 and 1 more"),
    ],
    ids=["more", "less", "unknown there", "runs nowhere yet", "many"],
)
def test_a_destination_must_have_all_features(there: frozenset[str], needed: frozenset[str], why: str) -> None:
    choice = choose_node(Snapshot((node("n1", cpu_flags=there),)), PlacementRequest("default/w", 1.0, 0, cpu_flags=needed))
    assert choice.rejected.get("n1", "") == why and (choice.node is None) == bool(why)


def test_the_balancer_keeps_to_it() -> None:
    jobs = tuple(JobView(f"default/j{n}", "n1", 1.0, 1000, cpu_flags=NEW) for n in range(4))
    nodes = (node("n1", jobs, cpu_flags=NEW), node("n2", jobs, cpu_flags=OLD), node("n3", jobs, cpu_flags=NEW))
    moves = plan_moves(Snapshot(nodes, jobs), BalancePolicySpec()).moves
    assert moves and {move.destination for move in moves} == {"n3"}
    alone = plan_moves(Snapshot(nodes[:2], jobs), BalancePolicySpec())
    assert not alone.moves and any("lacks avx2" in kept.reason for kept in alone.kept)
