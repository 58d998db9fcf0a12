"""The table of N jobs on M nodes: what others reach, what nobody beats, and how what was measured is judged."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.slowing.measure import interval

STATIC, IDLE_ONLY, MX = "static", "idle-only", "mx"
MOSIX_OPTIMAL = {16: 300.0, 17: 450.0, 20: 450.0, 24: 450.0, 25: 525.0, 28: 525.0, 33: 700.0, 40: 750.0, 48: 900.0}
"""Seconds for N jobs of 300 s on 16 nodes that MOSIX's authors call optimal: jobs move only when a node falls idle."""
BELOW_OPTIMAL = (17, 20, 25, 33)


def static(lengths: Sequence[float], nodes: int) -> float:
    """Makespan when jobs are dealt out one by one, longest first to the least loaded, and never move."""
    loads = [0.0] * nodes
    for length in sorted(lengths, reverse=True):
        loads[loads.index(min(loads))] += length
    return max(loads)


def bound(lengths: Sequence[float], nodes: int) -> float:
    """No schedule ends sooner: all nodes busy all the time, or the longest job alone."""
    return max(sum(lengths) / nodes, max(lengths))


def row(jobs: int, runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """One line: for each method the ratio of its makespan to the bound. ``runs`` are seconds by method, and ``bound``."""
    names = [name for name in runs[0] if name not in ("bound", "moves", "wasted")]
    ratios = {name: interval([run[name] / run["bound"] for run in runs]) for name in names}
    counts = {name: sum(run.get(name, 0.0) for run in runs) / len(runs) for name in ("moves", "wasted")}
    seconds = {name: round(statistics.mean(run[name] for run in runs), 2) for name in (*names, "bound")}
    return {"jobs": jobs, "runs": len(runs), "seconds": seconds, "ratio": ratios, **counts}


def lines(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """For people."""
    names = list(rows[0]["ratio"])
    yield f"{title}: makespan / bound"
    yield f"{'jobs':>6}{'bound':>10}" + "".join(f"{name:>12}" for name in names) + f"{'moves':>8}{'wasted':>8}"
    for one in rows:
        cells = "".join(f"{one['ratio'][name]['mean']:12.3f}" for name in names)
        yield f"{one['jobs']:6}{one['seconds']['bound']:9.1f}s{cells}{one['moves']:8.1f}{one['wasted']:8.1f}"
    means = "".join(f"{statistics.mean(one['ratio'][name]['mean'] for one in rows):12.3f}" for name in names)
    yield f"{'mean':>6}{'':10}{means}"


def judge_simulated(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was promised of the table for 16 nodes and equal jobs."""
    mean = statistics.mean(one["ratio"][MX]["mean"] for one in rows)
    goals = [{"goal": "16 nodes: mean of makespan / bound", "measured": round(mean, 4), "wanted": "<= 1.02", "met": mean <= 1.02}]
    for one in rows:
        if one["jobs"] in BELOW_OPTIMAL:
            ours, theirs = one["seconds"][MX], MOSIX_OPTIMAL[one["jobs"]]
            goal = f"16 nodes, {one['jobs']} jobs: below MOSIX's optimal"
            goals.append({"goal": goal, "measured": ours, "wanted": f"< {theirs:g}", "met": ours < theirs})
    return goals
