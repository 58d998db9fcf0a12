"""What balancing is worth in simulation, and how long a decision takes. One line a workload, or --json as one object.

``ours`` and ``none`` are makespan by the ideal bound, or mean slowdown = (completion - arrival) / CPU seconds. Simulated by
reconciler/planning/simulate.py with the freeze model that is printed; samples are exact, so this is the best case of the decisions,
not a forecast of a real cluster. Mean over the seeds with a 95 % interval (normal approximation).
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from crds.balancepolicy import BalancePolicySpec, MoveBudget
from reconciler.planning.balance import plan_moves
from reconciler.planning.placement import choose_node
from reconciler.planning.simulate import Outcome, Simulation, Work, ideal
from reconciler.planning.types import JobView, MoveCost, NodeView, PlacementRequest, Plan, Snapshot

MIB = 2**20
POLICY = BalancePolicySpec(budget=MoveBudget(per_node=2, cluster=4), min_residency=3.0)
COST = MoveCost(fixed=0.2, bandwidth=400e6)
Case = tuple[list[NodeView], list[Work]]


def equal(count: int, cores: float = 0.35) -> list[NodeView]:
    """Nodes of one size."""
    return [NodeView(f"n{i}", cores, 512 * MIB) for i in range(1, count + 1)]


def demo(random: Random) -> Case:
    """Nine jobs on n1 of four nodes, one with 300 MiB; lengths vary by 5 %."""
    return equal(4), [Work(f"j{i}", 15 * random.uniform(0.95, 1.05), "n1", memory=(300 if i == 0 else 20) * MIB) for i in range(9)]


def scattered(random: Random) -> Case:
    """Equal jobs thrown on eight nodes."""
    return equal(8), [Work(f"j{i:02}", 30.0, f"n{random.randint(1, 8)}", memory=20 * MIB) for i in range(24)]


def mixed(random: Random) -> Case:
    """Jobs of random length thrown on nodes of different speed."""
    nodes = [NodeView(f"n{i}", cores, 512 * MIB) for i, cores in enumerate((0.4, 0.4, 0.2, 0.2, 0.3, 0.3), 1)]
    return nodes, [Work(f"j{i:02}", random.uniform(5, 60), f"n{random.randint(1, 6)}", memory=20 * MIB) for i in range(18)]


def heavy_tailed(random: Random) -> Case:
    """Arrivals at 70 % load, life times 2/r seconds cut at 200: placed on arrival, then moved or not."""
    return equal(6, 1.0), _stream(random, lambda: min(200.0, 2 / max(random.random(), 1e-3)), 12.0, 0.7 * 6)


def exponential(random: Random) -> Case:
    """The same with exponential life times, where moving promises least."""
    return equal(6, 1.0), _stream(random, lambda: random.expovariate(1 / 12.0), 12.0, 0.7 * 6)


def _stream(random: Random, length: Callable[[], float], mean: float, cores: float) -> list[Work]:
    works, now = [], 0.0
    for i in range(150):
        now += random.expovariate(cores / mean)
        works.append(Work(f"j{i:03}", max(0.05, length()), arrival=now, memory=20 * MIB))
    return works


WORKLOADS: dict[str, tuple[Callable[[Random], Case], bool]] = {
    "demo": (demo, True),
    "scattered": (scattered, True),
    "mixed": (mixed, True),
    "heavy-tailed stream": (heavy_tailed, False),
    "exponential stream": (exponential, False),
}


def simulate(case: Case, policy: BalancePolicySpec | None) -> Outcome:
    """One run; without a policy nothing moves."""
    nodes, works = case

    def decide(snapshot: Snapshot) -> Plan:
        return plan_moves(snapshot, policy) if policy else Plan()

    return Simulation(nodes, works, decide, _place, interval=1.0, move_cost=COST).run()


def _place(snapshot: Snapshot, request: PlacementRequest) -> str:
    choice = choose_node(snapshot, request)
    if choice.node is None:
        raise ValueError(f"{request.job}: {choice.reason}")
    return choice.node


def measure(name: str, seeds: int) -> dict[str, Any]:
    """Figures of one workload over the seeds."""
    make, by_makespan = WORKLOADS[name]
    ours, none, moves, wasted, returns = [], [], 0, 0, 0
    for seed in range(seeds):
        case = make(Random(seed))
        balanced, left_alone = simulate(case, POLICY), simulate(case, None)
        figure = _makespan if by_makespan else _slowdown
        ours.append(figure(balanced, case))
        none.append(figure(left_alone, case))
        moves += len(balanced.moves)
        wasted += balanced.wasted()
        returns += len(balanced.returns())
    return {
        "measure": "makespan / ideal bound" if by_makespan else "mean slowdown",
        "ours": _interval(ours),
        "none": _interval(none),
        "worse_seeds": sum(a > b * 1.0001 for a, b in zip(ours, none, strict=True)),
        "moves_a_run": round(moves / seeds, 2),
        "returns_within_600_s": returns,
        "wasted": wasted,
    }


def _makespan(outcome: Outcome, case: Case) -> float:
    return outcome.makespan / ideal(*case)


def _slowdown(outcome: Outcome, case: Case) -> float:
    return statistics.mean((outcome.ends[work.name] - work.arrival) / work.cpu_seconds for work in case[1])


def _interval(values: list[float]) -> dict[str, float]:
    spread = 1.96 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 3), "plus_minus": round(spread, 3), "max": round(max(values), 3)}


def decision_time(nodes: int, jobs: int, repeat: int = 5) -> dict[str, Any]:
    """Milliseconds for one plan (median, worst) with jobs thrown at random on nodes of three sizes, and for one placement."""
    snapshot = _random_cluster(nodes, jobs)
    plans = [_milliseconds(lambda: plan_moves(snapshot, POLICY)) for _ in range(repeat)]
    request = PlacementRequest("default/new", 1.0, 100 * MIB)
    places = [_milliseconds(lambda: choose_node(snapshot, request)) for _ in range(repeat)]
    return {
        "nodes": nodes,
        "jobs": jobs,
        "plan_ms_median": round(statistics.median(plans), 1),
        "plan_ms_max": round(max(plans), 1),
        "place_ms_median": round(statistics.median(places), 1),
    }


def _random_cluster(nodes: int, jobs: int) -> Snapshot:
    random = Random(1)
    names = [f"n{i:04}" for i in range(nodes)]
    views = [
        JobView(f"default/j{i:05}", random.choice(names), random.uniform(0.9, 1.1), random.randrange(10, 300) * MIB)
        for i in range(jobs)
    ]
    demand, memory = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    for job in views:
        demand[job.node] += job.cpu_demand
        memory[job.node] += job.memory
    sizes = [random.choice((1.0, 2.0, 4.0)) for _ in names]
    found = (NodeView(name, size, 8192 * MIB, demand[name], memory[name]) for name, size in zip(names, sizes, strict=True))
    return Snapshot(tuple(found), tuple(views))


def _milliseconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    """Runs all and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", type=int, default=20, help="runs of each workload (default 20)")
    arguments = parser.parse_args()
    result = {
        "freeze": f"{COST.fixed} s + bytes / {COST.bandwidth:g}",
        "seeds": arguments.seeds,
        "workloads": {name: measure(name, arguments.seeds) for name in WORKLOADS},
        "decisions": [decision_time(100, 500), decision_time(1000, 5000)],
    }
    if arguments.json:
        print(json.dumps(result))
        return
    for name, figures in result["workloads"].items():
        print(f"{name:20} {figures['measure']:22} ours {figures['ours']}  none {figures['none']}")
        print(
            f"{'':20} moves {figures['moves_a_run']}, returns {figures['returns_within_600_s']}, wasted {figures['wasted']}, ",
            end="",
        )
        print(f"worse than none in {figures['worse_seeds']} of {arguments.seeds}")
    for line in result["decisions"]:
        print(line)


if __name__ == "__main__":
    main()
