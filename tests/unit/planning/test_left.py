"""A job that moved for load stays while nothing new happens: its load comes and goes."""

from crds.balancepolicy import BalancePolicySpec
from reconciler.planning.balance import plan_moves
from reconciler.planning.types import JobView, NodeView, Snapshot
from reconciler.planning.undone import Step, left_lately

MIB = 2**20


def test_what_a_job_left_is_forgotten_with_time_with_news_and_when_it_was_announced() -> None:
    steps = [Step(100.0, "j", "n1", "n2"), Step(500.0, "j", "n2", "n3"), Step(600.0, "j", "n3", "n4", announced=True)]
    assert left_lately(steps, news=0.0, now=650.0) == {"n1": 550.0, "n2": 150.0}
    assert left_lately(steps, news=300.0, now=650.0) == {"n2": 150.0}
    assert left_lately(steps, news=0.0, now=1200.0) == {}


def test_a_job_that_moved_with_nothing_new_since_is_not_moved_for_load_again() -> None:
    nodes = (NodeView("n1", 1.0, 900 * MIB, cpu_demand=3.0), NodeView("n2", 1.0, 900 * MIB))
    jobs = tuple(JobView(f"default/j{i}", "n1", 1.0, MIB, age=100.0, left={"n2": 50.0}) for i in range(3))
    plan = plan_moves(Snapshot(nodes, jobs), BalancePolicySpec())
    assert plan.moves == ()
    assert "moved 50 s ago" in plan.kept[0].reason
    fresh = (*jobs[:2], JobView("default/j2", "n1", 1.0, MIB, age=100.0))
    assert [move.job for move in plan_moves(Snapshot(nodes, fresh), BalancePolicySpec()).moves] == ["default/j2"]
