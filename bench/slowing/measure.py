"""Runs cases on two processes and makes figures of what came out."""

import statistics
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from random import Random
from typing import Any

from bench.slowing.cases import AGED, Case, aged, cases
from reconciler.simulation.bounds import least_mean_slowdown
from reconciler.simulation.compare import simulate
from reconciler.simulation.methods import Method, method
from reconciler.simulation.outcome import jain, quantile, slowdowns

BOUND = "lower bound"


@dataclass(slots=True)
class Tally:
    """One method on one seed's executions."""

    executions: list[float] = field(default_factory=list)
    """Mean slowdown of each."""
    slow: list[float] = field(default_factory=list)
    """Of each job."""
    fair: list[float] = field(default_factory=list)
    moves: int = 0
    failed: int = 0
    undone: int = 0
    wasted: int = 0
    rotations: int = 0
    seconds: float = 0.0
    """Virtual."""


def run_seed(work: tuple[int, int]) -> tuple[int, dict[str, Tally]]:
    """All methods of a case (by its number) on one seed."""
    number, seed = work
    case = cases()[number]
    tallies: dict[str, Tally] = {}
    for run in range(case.runs):
        key = zlib.crc32(f"{case.name.partition(',')[0]} {seed} {run}".encode())
        nodes, works = case.make(Random(key))
        for name in case.methods:
            one = _method(name, case)
            outcome = simulate(one, nodes, works, case.physics, seed=key, patient=True)
            tally = tallies.setdefault(name, Tally())
            slow = slowdowns(outcome, works, nodes)
            tally.executions.append(statistics.mean(slow))
            tally.slow += slow
            tally.fair.append(jain(slow))
            tally.moves += len(outcome.moves)
            tally.failed += outcome.failed
            tally.undone += len(outcome.returns())
            tally.wasted += outcome.wasted()
            tally.rotations += sum(move.cause == "rotation" for move in outcome.moves)
            tally.seconds += outcome.makespan
        tallies.setdefault(BOUND, Tally()).executions.append(least_mean_slowdown(nodes, works))
    return number, tallies


def _method(name: str, case: Case) -> Method:
    return method(name.removesuffix(AGED), aged(case.policy) if name.endswith(AGED) else case.policy)


def run_all(numbers: Sequence[int], seeds: int, done: Callable[[int], None]) -> dict[int, list[dict[str, Tally]]]:
    """By case its seeds. ``done`` is told how many seeds are through."""
    work = [(number, seed) for number in numbers for seed in range(seeds)]
    found: dict[int, list[dict[str, Tally]]] = {number: [] for number in numbers}
    with get_context("spawn").Pool(2) as pool:
        for count, (number, tallies) in enumerate(pool.imap(run_seed, work), 1):
            found[number].append(tallies)
            done(count)
    return found


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95 % interval (Student's t, approximated)."""
    mean, count = statistics.mean(values), len(values)
    if count < 2:
        return {"mean": round(mean, 3), "low": round(mean, 3), "high": round(mean, 3)}
    free = count - 1
    half = (1.96 + 2.37 / free + 2.8 / free**2) * statistics.stdev(values) / count**0.5
    return {"mean": round(mean, 3), "low": round(mean - half, 3), "high": round(mean + half, 3)}


def summary(case: Case, seeds: Sequence[dict[str, Tally]]) -> dict[str, Any]:
    """Figures of each method; for ours also the ratio to others, seed by seed."""
    methods = {name: _figures([one[name] for one in seeds]) for name in case.methods}
    ratios = {
        f"{ours}/{other}": interval([_mean(one[ours]) / _mean(one[other]) for one in seeds])
        for ours in case.methods
        for other in case.methods
        if ours.startswith("mx") and other != ours
    }
    bound = interval([_mean(one[BOUND]) for one in seeds])
    return {
        "case": case.name,
        "seeds": len(seeds),
        "executions": len(seeds) * case.runs,
        "bound": bound,
        "methods": methods,
        "ratios": ratios,
    }


def _mean(tally: Tally) -> float:
    return statistics.mean(tally.executions)


def _figures(tallies: Sequence[Tally]) -> dict[str, Any]:
    jobs = [value for tally in tallies for value in tally.slow]
    total = {name: sum(getattr(tally, name) for tally in tallies) for name in ("moves", "failed", "undone", "wasted", "rotations")}
    executions = sum(len(tally.executions) for tally in tallies)
    return {
        "by_execution": interval([_mean(tally) for tally in tallies]),
        "by_job": round(statistics.mean(jobs), 3),
        "p95": round(quantile(jobs, 0.95), 2),
        "p99": round(quantile(jobs, 0.99), 2),
        "jain": round(statistics.mean([value for tally in tallies for value in tally.fair]), 3),
        "moves_an_execution": round(total["moves"] / executions, 1),
        "moves_a_job": round(total["moves"] / len(jobs), 3),
        "moves_a_minute": round(60 * total["moves"] / sum(tally.seconds for tally in tallies), 2),
        **total,
    }
