"""The simulated cluster against figures worked out by hand."""

from dataclasses import replace

import pytest

from reconciler.planning.types import NodeView, PlacementRequest, Plan, PlannedMove, Snapshot
from reconciler.simulation.cluster import Endless, Simulation
from reconciler.simulation.outcome import Outcome, jain, quantile, slowdowns
from reconciler.simulation.sharing import shares
from reconciler.simulation.work import Linear, MoveModel, Physics, Work

MIB = 2**20
N1, N2 = NodeView("n1", 1.0, 100 * MIB), NodeView("n2", 1.0, 100 * MIB, speed=0.5)
SIMPLE = Physics(MoveModel(freeze=Linear(1.0)), thrash=4.0)


def run(works: list[Work], physics: Physics = SIMPLE, moves: dict[float, PlannedMove] | None = None, **more: object) -> Outcome:
    left = dict(moves or {})

    def decide(snapshot: Snapshot) -> Plan:
        return Plan(tuple(left.pop(moment) for moment in list(left) if moment <= simulation.now))

    simulation = Simulation([N1, N2], works, decide, _first, physics=physics, interval=1.0, **more)  # type: ignore[arg-type]
    return simulation.run()


def _first(snapshot: Snapshot, request: PlacementRequest) -> str | None:
    """n1 as long as it has memory."""
    used = sum(job.memory for job in snapshot.jobs if job.node == "n1")
    return "n1" if used + request.memory <= N1.memory_capacity else None


def go(job: str, source: str = "n1", destination: str = "n2") -> PlannedMove:
    return PlannedMove(f"default/{job}", source, destination, "a test")


def test_half_the_speed_takes_twice_as_long() -> None:
    assert run([Work("a", 3.0, "n1"), Work("b", 3.0, "n2")]).ends == pytest.approx({"a": 3.0, "b": 6.0})


def test_more_memory_in_use_than_there_is_slows_all_down_until_it_fits_again() -> None:
    ends = run([Work("a", 1.0, "n1", memory=60 * MIB), Work("b", 2.0, "n1", memory=60 * MIB)]).ends
    assert ends == pytest.approx({"a": 8.0, "b": 9.0})


def test_growing_memory_slows_down_from_the_moment_it_no_longer_fits() -> None:
    ends = run([Work("a", 3.0, "n1", memory=80 * MIB, grows_to=110 * MIB, growth=10 * MIB)]).ends
    assert ends["a"] == pytest.approx(2.0 + 4.0, abs=1e-3)


def test_a_move_runs_stands_and_runs_on() -> None:
    physics = replace(SIMPLE, move=MoveModel(Linear(0.5), Linear(1.0), Linear(2.0)))
    outcome = run([Work("a", 4.0, "n1")], physics, {1.0: go("a")})
    assert outcome.ends["a"] == pytest.approx(2.5 + 2.5 / 0.5)
    assert [(move.time, move.end, move.ok) for move in outcome.moves] == [(1.0, pytest.approx(4.5), True)]
    assert outcome.frozen == pytest.approx(1.0)


def test_what_a_moved_job_leaves_behind_takes_memory_until_the_move_is_over() -> None:
    physics = replace(SIMPLE, move=MoveModel(freeze=Linear(1.0), after=Linear(2.0)))
    works = [Work("a", 10.0, "n1", memory=60 * MIB), Work("b", 3.0, "n1", arrival=2.5, memory=60 * MIB)]
    assert run(works, physics, {1.0: go("a")}).ends["b"] == pytest.approx(2.5 + 1.5 + (3.0 - 1.5 / 4))


def test_a_failed_move_costs_its_freeze_and_is_remembered() -> None:
    physics = replace(SIMPLE, move=MoveModel(freeze=Linear(1.0), failures=1.0))
    outcome = run([Work("a", 3.0, "n1")], physics, {1.0: go("a")})
    assert outcome.ends["a"] == pytest.approx(4.0)
    assert outcome.failed == 1 and outcome.returns() == []


def test_a_job_that_fits_nowhere_waits_for_one_to_end() -> None:
    outcome = run([Work("a", 3.0, memory=60 * MIB), Work("b", 1.0, memory=60 * MIB, arrival=1.0)])
    assert outcome.starts["b"] == pytest.approx(3.0) and outcome.ends["b"] == pytest.approx(4.0)


def test_a_job_that_never_fits_is_an_error_and_no_endless_run() -> None:
    with pytest.raises(Endless, match="a never starts"):
        run([Work("a", 3.0, memory=101 * MIB)])


def test_a_job_that_sleeps_leaves_its_core_to_others() -> None:
    ends = run([Work("a", 2.0, "n1", busy=1.0, idle=3.0), Work("b", 2.0, "n1")]).ends
    assert ends == pytest.approx({"b": 3.0, "a": 6.0})


def test_aged_time_sharing_lets_a_young_job_pass_and_starves_nobody() -> None:
    works = [Work("old", 100.0, "n1"), Work("young", 1.0, "n1", arrival=50.0)]
    fair, aged = run(works).ends, run(works, replace(SIMPLE, aged=True)).ends
    assert fair["young"] == pytest.approx(52.0)
    assert 51.0 < aged["young"] < 51.2
    assert aged["old"] == fair["old"] == pytest.approx(101.0)


def test_late_samples_say_how_old_they_are_and_show_what_was() -> None:
    views: list[NodeView] = []

    def decide(snapshot: Snapshot) -> Plan:
        views.append(snapshot.nodes[0])
        return Plan()

    Simulation([N1], [Work("a", 20.0, "n1")], decide, _first, physics=replace(SIMPLE, stale=5.0), interval=1.0).run()
    assert views[12].sample_age == pytest.approx(5.0, abs=1.0) and views[12].cpu_demand == pytest.approx(1.0)
    assert views[0].cpu_demand <= 1.0


def test_samples_that_are_zero_by_mistake_say_zero() -> None:
    demands: set[float] = set()

    def decide(snapshot: Snapshot) -> Plan:
        demands.add(snapshot.nodes[0].cpu_demand)
        return Plan()

    Simulation([N1], [Work("a", 50.0, "n1")], decide, _first, physics=replace(SIMPLE, zeroes=0.3), interval=1.0, seed=1).run()
    assert 0.0 in demands and any(demand == pytest.approx(1.0) for demand in demands)


def test_equal_seeds_give_equal_runs() -> None:
    works = [Work(f"j{i}", 5.0 + i, "n1") for i in range(4)]
    physics = Physics(MoveModel(failures=0.5), noise=0.2, stale=2.0)
    moves = {float(i): go(f"j{i}") for i in range(1, 4)}
    first, again, other = (run(works, physics, moves, seed=seed) for seed in (1, 1, 2))
    assert (first.ends, first.moves) == (again.ends, again.moves)
    assert first.moves != other.moves


def test_shares_are_by_weight_with_one_core_at_most() -> None:
    assert shares(2.0, [1, 1, 1], [1.0, 1.0, 1.0]) == pytest.approx([2 / 3] * 3)
    assert shares(2.0, [1, 1, 1], [10.0, 1.0, 1.0]) == pytest.approx([1.0, 0.5, 0.5])
    assert shares(1.0, [2, 1], [1.0, 2.0]) == pytest.approx([0.5, 0.5])
    assert shares(4.0, [2, 1, 0], [1.0, 9.0, 1.0]) == [2.0, 1.0, 0.0]


def test_slowdown_is_against_being_alone_on_the_best_node() -> None:
    works = [Work("a", 4.0, "n2"), Work("b", 2.0, "n1", busy=1.0, idle=1.0)]
    assert slowdowns(run(works), works, [N1, N2]) == pytest.approx([2.0, 1.0])


def test_figures() -> None:
    assert (quantile([3, 1, 2], 0.5), quantile([3, 1, 2], 0.99), quantile([], 0.5)) == (2, 3, 0.0)
    assert jain([1.0, 1.0]) == 1.0 and jain([1.0, 0.0]) == 0.5
