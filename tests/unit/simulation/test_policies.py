"""What the policy is worth in virtual time: near the ideal, and no move for nothing."""

from random import Random

import pytest

from crds.balancepolicy import BalancePolicySpec, MoveBudget
from reconciler.planning.balance import plan_moves
from reconciler.planning.placement import choose_node
from reconciler.planning.types import NodeView, PlacementRequest, Plan, Snapshot
from reconciler.simulation.cluster import Simulation
from reconciler.simulation.outcome import Moved, Outcome, ideal
from reconciler.simulation.work import Linear, MoveModel, Physics, Work
from tests.unit.planning.clusters import MIB

POLICY = BalancePolicySpec(budget=MoveBudget(per_node=2, cluster=4), min_residency=3.0)


def nodes(*cores: float) -> list[NodeView]:
    return [NodeView(f"n{i}", size, 512 * MIB) for i, size in enumerate(cores, 1)]


def place(snapshot: Snapshot, request: PlacementRequest) -> str:
    node = choose_node(snapshot, request).node
    assert node is not None
    return node


def run(
    where: list[NodeView],
    works: list[Work],
    policy: BalancePolicySpec | None = POLICY,
    physics: Physics | None = None,
    seed: int = 0,
) -> Outcome:
    def decide(snapshot: Snapshot) -> Plan:
        return plan_moves(snapshot, policy) if policy else Plan()

    return Simulation(where, works, decide, place, interval=1.0, physics=physics, seed=seed).run()


def demo(seconds: float = 15.0) -> list[Work]:
    """Nine CPU-bound jobs on n1, one of them with 300 MiB."""
    return [Work(f"j{i}", seconds, "n1", memory=(300 if i == 0 else 20) * MIB) for i in range(9)]


NOISY = Physics(noise=0.05)


def test_without_moves_jobs_share_a_node_evenly() -> None:
    outcome = run(nodes(0.5, 0.5), [Work("a", 1.0, "n1"), Work("b", 2.0, "n1"), Work("c", 1.0, "n2", arrival=3.0)], None)
    assert outcome.ends == pytest.approx({"a": 4.0, "b": 6.0, "c": 5.0})
    assert outcome.moves == []


def test_a_task_never_has_more_than_one_core() -> None:
    assert run(nodes(4.0), [Work("a", 3.0, "n1"), Work("b", 6.0, "n1", tasks=2)], None).ends == pytest.approx({"a": 3.0, "b": 3.0})


def test_the_demo_ends_near_the_ideal_without_a_wasted_move() -> None:
    where, works = nodes(0.35, 0.35, 0.35, 0.35), demo()
    outcome = run(where, works)
    assert outcome.makespan < 1.15 * ideal(where, works)
    assert outcome.makespan < 0.5 * run(where, works, None).makespan
    assert outcome.returns() == []
    assert 6 <= len(outcome.moves) <= 12


@pytest.mark.parametrize("seed", range(5))
def test_noise_costs_little_and_wastes_no_move(seed: int) -> None:
    where, works = nodes(0.35, 0.35, 0.35, 0.35), demo()
    outcome = run(where, works, physics=NOISY, seed=seed)
    assert outcome.makespan < 1.2 * ideal(where, works)
    assert outcome.wasted() == 0


@pytest.mark.parametrize("seed", range(5))
def test_jobs_of_different_length_on_nodes_of_different_speed(seed: int) -> None:
    random = Random(seed)
    where = nodes(0.4, 0.2, 0.4, 0.3)
    works = [Work(f"j{i}", random.uniform(2, 30), f"n{random.randint(1, 4)}", memory=20 * MIB) for i in range(14)]
    outcome = run(where, works)
    assert outcome.makespan < 1.35 * ideal(where, works)
    assert outcome.makespan < run(where, works, None).makespan
    assert outcome.wasted() == 0


def test_a_steady_load_that_fits_evenly_moves_nothing() -> None:
    works = [Work(f"j{i}", 100.0, f"n{1 + i % 4}", memory=20 * MIB) for i in range(8)]
    assert run(nodes(0.35, 0.35, 0.35, 0.35), works, physics=NOISY).moves == []


def test_short_jobs_are_not_worth_a_long_freeze() -> None:
    works = [Work(f"j{i}", 2.0, "n1", memory=200 * MIB) for i in range(2)]
    assert run(nodes(0.5, 0.5), works, physics=Physics(MoveModel(freeze=Linear(5.0)))).moves == []


def test_a_job_without_a_node_is_placed() -> None:
    works = [Work("a", 10.0, "n1"), Work("b", 1.0, arrival=1.0)]
    assert run(nodes(0.5, 0.5), works, None).ends["b"] == pytest.approx(3.0)


def test_a_move_back_is_wasted_unless_a_job_came_or_ended_in_between() -> None:
    there_and_back = [Moved(0, "a", "n1", "n2"), Moved(599, "a", "n2", "n1"), Moved(1300, "a", "n1", "n2")]
    assert Outcome(moves=there_and_back).returns() == [(0, 599)]
    assert Outcome(moves=there_and_back).wasted() == 1
    assert Outcome(ends={"b": 700.0}, moves=there_and_back).wasted() == 1
    assert Outcome(ends={"b": 300.0}, moves=there_and_back).wasted() == 0
