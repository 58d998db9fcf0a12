"""choose_node and the cost it goes by."""

import math
from dataclasses import replace

import pytest

from reconciler.planning import fit
from reconciler.planning.cost import power_of_two_above, scale
from reconciler.planning.placement import choose_node
from reconciler.planning.types import Choice, JobView, MoveView, NodeView, PlacementRequest, Snapshot
from tests.unit.planning.clusters import MIB, cluster, node, of, with_node

ASKED = PlacementRequest("default/x", cpu=1.0, memory=100 * MIB)


def test_the_least_loaded_is_taken_and_equal_ones_go_by_name() -> None:
    assert choose_node(cluster([1, 1, 0]), ASKED).node == "n3"
    assert choose_node(cluster([0, 0, 0]), ASKED).node == "n1"
    reverse = cluster([0, 0, 0])
    assert choose_node(replace(reverse, nodes=reverse.nodes[::-1]), ASKED).node == "n1"


@pytest.mark.parametrize(("jobs", "chosen"), [([0, 0], "n2"), ([0, 1], "n1"), ([0, 2], "n1"), ([1, 1], "n2"), ([1, 2], "n2")])
def test_the_faster_node_is_worth_more(jobs: list[int], chosen: str) -> None:
    assert choose_node(cluster(jobs, [0.2, 0.4]), ASKED).node == chosen


def test_a_free_core_of_a_fast_node_beats_an_idle_slow_node() -> None:
    fast, slow = NodeView("a", 2.0, 512 * MIB, cpu_demand=1.0), NodeView("b", 2.0, 512 * MIB, speed=0.5)
    choice = choose_node(Snapshot((fast, slow)), ASKED)
    assert choice.node == "a"
    crowded = choose_node(Snapshot((replace(fast, cpu_demand=6.0), slow)), ASKED)
    assert crowded.node == "b"
    assert "2 cores of speed 0.5" in crowded.reason


def test_reported_demand_counts_without_jobs() -> None:
    nodes = (NodeView("n1", 1.0, 512 * MIB, cpu_demand=3.0), NodeView("n2", 1.0, 512 * MIB, cpu_demand=1.0))
    assert choose_node(Snapshot(nodes), ASKED).node == "n2"


def test_memory_decides_between_equally_loaded_nodes() -> None:
    assert choose_node(with_node(cluster([1, 1]), "n1", memory_used=300 * MIB), ASKED).node == "n2"


def test_the_reason_has_figures() -> None:
    choice = choose_node(cluster([2, 1]), ASKED)
    assert choice == Choice("n2", "cheapest of 2 nodes: 1.0 runnable on 0.35 cores, 492Mi memory free", {})


@pytest.mark.parametrize(
    ("change", "request_change", "reason"),
    [
        ({"ready": False}, {}, "not ready"),
        ({"schedulable": False}, {}, "cordoned"),
        ({"taints": ("gpu",)}, {}, "taint gpu is not tolerated"),
        ({"taints": ("gpu",)}, {"tolerations": ("disk",)}, "taint gpu is not tolerated"),
        ({"labels": {"disk": "hdd"}}, {"node_selector": {"disk": "ssd"}}, "label disk=ssd is missing"),
        ({"features": frozenset({"a"})}, {"needs": frozenset({"b"})}, "feature b is missing"),
        ({}, {"needs": frozenset({"network"})}, fit.LACKS["network"]),
        ({}, {"exclude": frozenset({"n1"})}, "excluded"),
        ({"memory_used": 450 * MIB}, {}, "62Mi of 512Mi memory free, 100Mi wanted"),
        ({"memory_used": 600 * MIB}, {}, "0 of 512Mi memory free, 100Mi wanted"),
        ({"cpu_capacity": 0.0}, {}, "impossible sample: it has 0 cores"),
        ({"cpu_demand": math.nan}, {}, "impossible sample: nan runnable tasks"),
    ],
)
def test_each_node_that_does_not_fit_says_why(change: dict[str, object], request_change: dict[str, object], reason: str) -> None:
    request = replace(ASKED, **request_change)  # type: ignore[arg-type]
    choice = choose_node(with_node(cluster([0]), "n1", **change), request)
    assert choice == Choice(None, f"none of 1 nodes fits: n1: {reason}", {"n1": reason})


@pytest.mark.parametrize("tolerations", [("gpu",), ("*",)])
def test_a_tolerated_taint_does_not_matter(tolerations: tuple[str, ...]) -> None:
    assert choose_node(with_node(cluster([0]), "n1", taints=("gpu",)), replace(ASKED, tolerations=tolerations)).node == "n1"


def test_an_old_sample_does_not_keep_a_job_from_starting() -> None:
    assert choose_node(with_node(cluster([0]), "n1", sample_age=None), ASKED).node == "n1"


def test_the_node_that_was_asked_for() -> None:
    snapshot = cluster([5, 0])
    assert choose_node(snapshot, replace(ASKED, node="n1")).node == "n1"
    assert choose_node(snapshot, replace(ASKED, node="n9")).reason == "n9: there is no such node"
    assert choose_node(with_node(snapshot, "n1", ready=False), replace(ASKED, node="n1")).reason == "n1: not ready"
    refused = choose_node(snapshot, replace(ASKED, node="n1", memory=900 * MIB))
    assert refused.rejected == {"n1": "412Mi of 512Mi memory free, 900Mi wanted", "n2": "the job must run on n1"}


def test_no_nodes_at_all() -> None:
    assert choose_node(Snapshot(()), ASKED) == Choice(None, "there are no nodes", {})


def test_moves_under_way_take_room_and_load_where_they_go() -> None:
    big = JobView("default/big", "n1", 1.0, 450 * MIB)
    snapshot = of([big], ["n1", "n2", "n3"])
    moving = replace(snapshot, moves=(MoveView("default/big", "n1", "n2"),))
    choice = choose_node(moving, ASKED)
    assert choice.node == "n3"
    assert choice.rejected == {
        "n1": "62Mi of 512Mi memory free, 100Mi wanted",
        "n2": "62Mi of 512Mi memory free, 100Mi wanted",
    }


def test_a_job_placed_a_moment_ago_takes_room_although_no_sample_shows_it() -> None:
    starting = JobView("default/new", "n1", 1.0, 450 * MIB, resident_for=0.0)
    late = replace(node("n1", [starting]), memory_used=0, cpu_demand=0.0)
    choice = choose_node(Snapshot((late, node("n2")), (starting,)), ASKED)
    assert (choice.node, set(choice.rejected)) == ("n2", {"n1"})


@pytest.mark.parametrize(("load", "power"), [(0.0, 1), (0.9, 1), (1.0, 2), (1.5, 2), (2.0, 4), (25.7, 32), (32.0, 64)])
def test_l_is_the_smallest_power_of_two_above_the_load(load: float, power: float) -> None:
    assert power_of_two_above(load) == power


def test_on_equal_nodes_the_cost_is_the_published_one() -> None:
    measure = scale([3.0, 1.0], [1.0] * 4, [512] * 4)
    assert measure.cpu(3.0, 1.0) == pytest.approx(4 ** (3 / 4))
    assert measure.memory(128, 512) == pytest.approx(4**0.25)
    assert measure.cpu_rise(1.0, 1.0, 1.0) == pytest.approx(4 ** (2 / 4) - 4 ** (1 / 4))
