"""What would move a job: each answer is a plan that was really made."""

from dataclasses import replace

from crds.balancepolicy import BalancePolicySpec
from reconciler.planning.balance import plan_moves
from reconciler.planning.counterfactual import what_would_move
from reconciler.planning.types import JobView, MoveView, NodeView, Snapshot

POLICY = BalancePolicySpec()


def cluster(*jobs: JobView, **nodes: NodeView) -> Snapshot:
    demand = {name: sum(job.cpu_demand for job in jobs if job.node == name) for name in nodes}
    return Snapshot(tuple(replace(node, cpu_demand=demand[name]) for name, node in nodes.items()), jobs)


def node(name: str, **figures: object) -> NodeView:
    return NodeView(name, 1.0, 2**30, **figures)  # type: ignore[arg-type]


def changes(snapshot: Snapshot, policy: BalancePolicySpec = POLICY, job: int = 0) -> list[str]:
    view = snapshot.jobs[job]
    assert not [move for move in plan_moves(snapshot, policy).moves if move.job == view.key], "it moves anyway"
    return [answer.change for answer in what_would_move(plan_moves, snapshot, policy, view)]


def a(**figures: object) -> JobView:
    return JobView("default/a", "n1", age=600.0, **figures)  # type: ignore[arg-type]


B = JobView("default/b", "n1", age=600.0, movable=False, why_not_movable="it is pinned to its node")


def test_patience() -> None:
    found = changes(cluster(a(resident_for=4.0), B, n1=node("n1"), n2=node("n2")))
    assert found[0] == "in 6 s, when it has been here for minResidency"


def test_a_closed_node() -> None:
    found = changes(cluster(a(), B, n1=node("n1"), n2=node("n2", schedulable=False)))
    assert "if n2 were open for jobs" in found


def test_a_node_that_is_too_busy_and_more_load_here() -> None:
    c = JobView("default/c", "n2", age=600.0)
    found = changes(cluster(a(), B, c, n1=node("n1"), n2=node("n2")))
    assert "if n2 had nothing to do" in found
    assert found[-1] == "if 1 more task ran on n1"


def test_the_job_itself() -> None:
    snapshot = cluster(a(), B, n1=node("n1"), n2=node("n2"))
    assert [move.job for move in plan_moves(snapshot, POLICY).moves] == ["default/a"]
    found = changes(snapshot, job=1)
    assert found[0] == "if it could be moved (it is pinned to its node), and no other job of n1 went first"


def test_the_budget() -> None:
    snapshot = replace(cluster(a(), B, n1=node("n1"), n2=node("n2")), moves=(MoveView("default/x", "n1", "n3"),))
    found = changes(snapshot)
    assert "when the moves under way are over" in found and "if the budget allowed more moves at once" in found


def test_a_lonely_job_moves_with_no_single_change() -> None:
    assert changes(cluster(a(), n1=node("n1"), n2=node("n2", ready=False))) == []
