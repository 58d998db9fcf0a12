"""How long one decision takes, for five sizes of cluster, with nothing left out: from the snapshot's plain views to the plan.

Measured is one call of plan_moves on one core, CPU time of the process, median and worst of the repeats: drawing the columns from
the views (a list of dataclasses, as the reconciler makes them), judging all samples, and choosing the moves with their reasons. Not
in it: making the views from the objects in etcd, and the reasons of the jobs that stay, which are worked out when somebody reads
them (``reasons_20``: as many as the policy's status shows; ``reasons_1000``: what each one costs). ``place``: one placement.

uneven: ten jobs a node thrown at random on nodes of three sizes, budget of 4 moves. wide: the same with a budget of one move for
every 50 nodes. at rest: no move gains, so that every job must be ruled out.
"""

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from crds.balancepolicy import BalancePolicySpec, MoveBudget
from reconciler.planning.balance import plan_moves
from reconciler.planning.placement import choose_node
from reconciler.planning.types import JobView, NodeView, PlacementRequest, Plan, Snapshot

MIB = 2**20
SIZES = (500, 1000, 2000, 5000, 10_000)
JOBS = 10
"""By node."""
LIMITS = {5000: 250.0, 10_000: 1000.0}
"""Milliseconds within which a decision has to be made."""


def uneven(nodes: int) -> Snapshot:
    """Jobs thrown at random on nodes of 1, 2 and 4 cores."""
    random = Random(1)
    where = [random.randrange(nodes) for _ in range(JOBS * nodes)]
    sizes = [random.choice((1.0, 2.0, 4.0)) for _ in range(nodes)]
    return _cluster(where, sizes, lambda _: random.uniform(0.9, 1.1), random)


def at_rest(nodes: int) -> Snapshot:
    """Nodes alike, with four or five jobs that compute and others that idle: uneven by more than the target, but no move gains."""
    where = [number // JOBS for number in range(JOBS * nodes)]
    return _cluster(where, [2.0] * nodes, lambda number: 1.0 if number % JOBS < 4 + number // JOBS % 2 else 0.02, Random(2))


def _cluster(where: list[int], sizes: list[float], demand: Callable[[int], float], random: Random) -> Snapshot:
    names = [f"n{number:05}" for number in range(len(sizes))]
    flags = frozenset({"avx", "avx2", "sse4_2"})
    jobs = [
        JobView(
            f"default/j{i:06}", names[node], demand(i), random.randrange(10, 300) * MIB, 9e3, 9e3, attained=900.0, cpu_flags=flags
        )
        for i, node in enumerate(where)
    ]
    tasks, memory = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    for job in jobs:
        tasks[job.node] += job.cpu_demand
        memory[job.node] += job.memory
    views = [NodeView(n, c, 16384 * MIB, tasks[n], memory[n], cpu_flags=flags) for n, c in zip(names, sizes, strict=True)]
    return Snapshot(tuple(views), tuple(jobs))


def measure(nodes: int, repeat: int) -> dict[str, Any]:
    """Milliseconds for one size."""
    usual, wide = BalancePolicySpec(), BalancePolicySpec(budget=MoveBudget(cluster=max(4, nodes // 50)))
    restful, thrown = at_rest(nodes), uneven(nodes)
    plan = plan_moves(thrown, usual)
    request = PlacementRequest("default/new", 1.0, 100 * MIB)
    jobs = len(thrown.jobs)
    return {
        "nodes": nodes,
        "jobs": jobs,
        "uneven": _time(lambda: plan_moves(thrown, usual), repeat),
        "wide": _time(lambda: plan_moves(thrown, wide), repeat),
        "moves": len(plan_moves(thrown, wide).moves),
        "at_rest": _time(lambda: plan_moves(restful, usual), repeat),
        "moves_at_rest": sum(move.cause != "rotation" for move in plan_moves(restful, usual).moves),
        "reasons_20": _time(lambda: _read(plan, 20), 1),
        "reasons_1000": _time(lambda: _read(plan, 1000), 1),
        "place": _time(lambda: choose_node(thrown, request), repeat),
    }


def _read(plan: Plan, count: int) -> int:
    return sum(bool(kept.reason) for kept in islice(plan.kept, count))


def _time(call: Callable[[], object], repeat: int) -> dict[str, float]:
    taken = []
    for _ in range(repeat):
        gc.collect()
        begin = time.process_time()
        call()
        taken.append((time.process_time() - begin) * 1000)
    return {"median": round(statistics.median(taken), 1), "max": round(max(taken), 1)}


def growth(rows: list[dict[str, Any]], case: str) -> float:
    """By how much faster than n log n the time grew from the smallest size to the largest; 1 or less is not faster."""
    first, last = rows[0], rows[-1]
    expected = (last["jobs"] * math.log(last["jobs"])) / (first["jobs"] * math.log(first["jobs"]))
    return round(last[case]["median"] / first[case]["median"] / expected, 2)


def main() -> int:
    """Runs all and prints; 1 when a decision takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeat", type=int, default=5, help="decisions of each kind (default 5)")
    arguments = parser.parse_args()
    rows = [measure(nodes, arguments.repeat) for nodes in SIZES]
    cases = ("uneven", "wide", "at_rest")
    late = [
        f"{row['nodes']} nodes, {case}"
        for row in rows
        for case in cases
        if row[case]["median"] > LIMITS.get(row["nodes"], math.inf)
    ]
    result = {"sizes": rows, "growth_over_n_log_n": {case: growth(rows, case) for case in cases}, "too_slow": late}
    if arguments.json:
        print(json.dumps(result))
        return bool(late)
    print(__doc__)
    print(f"{'nodes':>6} {'jobs':>7}  milliseconds, median (max)")
    for row in rows:
        figures = "  ".join(
            f"{case} {row[case]['median']:.1f} ({row[case]['max']:.1f})" for case in (*cases, "place", "reasons_20", "reasons_1000")
        )
        print(f"{row['nodes']:>6} {row['jobs']:>7}  {figures}; {row['moves']} and {row['moves_at_rest']} moves")
    print(f"growth from the first to the last, by n log n: {result['growth_over_n_log_n']}; too slow: {late or 'none'}")
    return bool(late)


if __name__ == "__main__":
    sys.exit(main())
