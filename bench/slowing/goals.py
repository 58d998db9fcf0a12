"""What was promised, and whether it is kept."""

from collections.abc import Mapping
from typing import Any

from bench.slowing.cases import AGED, OTHERS, STREAM

PUBLISHED = {"pvm": 14.33, "enhanced-pvm": 9.79}
"""Mean slowdown by execution (Amir et al. 2000)."""
THEIRS = {"by execution": 7.48, "by job": 8.20}
"""Their Enhanced MOSIX."""


def judge(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All goals whose case was run; ``found`` by the case's name."""
    goals = []
    if STREAM in found:
        goals += _stream(found[STREAM])
    goals += [_wasted(name, one) for name, one in found.items()]
    if "exponential" in found:
        ratio = found["exponential"]["ratios"]["mx/none"]
        goals.append(_goal("exponential: no worse than placement only", ratio["mean"], "<= 1", ratio["low"] <= 1.0))
    if "oscillator" in found:
        mx = found["oscillator"]["methods"]["mx"]
        goals.append(_goal("oscillator: moves a minute", mx["moves_a_minute"], "<= 2", mx["moves_a_minute"] <= 2))
        goals.append(_goal("oscillator: wasted moves", mx["wasted"], "0", mx["wasted"] == 0))
    return goals


def _stream(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    methods, ratios = one["methods"], one["ratios"]
    better = min(OTHERS, key=lambda name: methods[name]["by_execution"]["mean"])
    goals = []
    for name, published in PUBLISHED.items():
        if name in methods:
            mean = methods[name]["by_execution"]["mean"]
            goals.append(_goal(f"calibrated: {name}, published {published}", mean, "within 10 %", abs(mean / published - 1) <= 0.1))
    with_, without = ratios[f"mx{AGED}/{better}"], ratios[f"mx/{better}"]
    goals.append(_goal(f"aged, to {better}, seed by seed: upper end", with_["high"], "<= 0.9", with_["high"] <= 0.9))
    mine, best = methods[f"mx{AGED}"]["by_execution"], methods[better]["by_execution"]
    goals.append(_goal(f"aged, to {better}: intervals apart", mine["high"], f"< {best['low']}", mine["high"] < best["low"]))
    goals.append(_goal(f"fair, to {better}, seed by seed", without["mean"], "<= 1", without["mean"] <= 1.0))
    p99 = methods[better]["p99"]
    goals += [_goal(f"{name}: p99", methods[name]["p99"], f"<= {p99}", methods[name]["p99"] <= p99) for name in ("mx", f"mx{AGED}")]
    mine = methods[f"mx{AGED}"]
    goals.append(
        _goal("ours by execution", mine["by_execution"]["mean"], "< 7.48", mine["by_execution"]["mean"] < THEIRS["by execution"])
    )
    goals.append(_goal("ours by job", mine["by_job"], "< 8.20", mine["by_job"] < THEIRS["by job"]))
    return goals


def _wasted(name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    mine = [figures for method, figures in one["methods"].items() if method.startswith("mx")]
    moves, wasted = (sum(figures[which] for figures in mine) for which in ("moves", "wasted"))
    share = wasted / moves if moves else 0.0
    return _goal(f"{name}: wasted moves", round(share, 4), "< 0.01", share < 0.01)


def _goal(goal: str, measured: float, wanted: str, met: bool) -> dict[str, Any]:
    return {"goal": goal, "measured": measured, "wanted": wanted, "met": met}
