"""What our decisions are worth beside those of others: mean slowdown in simulation, with 95 % intervals over the seeds.

Slowdown is (completion - arrival) / the time a job takes alone on the best node. All methods get the same jobs, nodes and samples;
ours is the decision code of the cluster with the default policy. Where we lose, it says so.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.slowing.cases import POLICY, cases
from bench.slowing.goals import judge
from bench.slowing.measure import run_all, summary
from reconciler.simulation.work import STOP
from reconciler.simulation.workloads import Stream


def assumptions() -> dict[str, str]:
    """All that had to be assumed."""
    stream = Stream()
    return {
        "machines of the MOSIX stream": f"speeds {stream.speeds}, MiB {stream.memories}",
        "arrivals": f"exponential, one each {stream.every:g} s for {stream.seconds:g} s; memory known at arrival, CPU time never",
        "parallel jobs": "1-20 parts of 20/r s each, each with the whole job's memory; each part counts as a job",
        "memory": f"1/m % of the largest machine's, at most {stream.most_memory:.0%}",
        "thrash": f"a machine that overcommits its memory is {stream.thrash:g} times slower (the authors' slides say 10)",
        "PVM": "round robin; Enhanced PVM: least rise of n^(memory used) + n^(load/L), L the power of two above the largest load",
        "Enhanced MOSIX": "placed by Enhanced PVM; then greedily all moves that lower the sum of that cost",
        "mosix, threshold, none": "goals of our BalancePolicy on our placement: the cluster's own code",
        "our policy": f"the default: decided every {POLICY.interval:g} s, resident {POLICY.min_residency:g} s or more; others"
        f" every {POLICY.interval:g} s too",
        "time between decisions": "while nothing happens and the last plan was empty, it grows to 10 s at most",
        "a move": STOP.describe(),
        "samples": "exact unless said otherwise; CPU demand smoothed over 15 s, as agents do",
        "aged time-sharing": "weights 1 / (0.5 s + attained), no less than those of 60 s attained; set every second",
        "lower bound": "all nodes as one machine, memory enough, everything known beforehand",
    }


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """For people."""
    for one in result["cases"]:
        bound = one["bound"]["mean"]
        yield f"\n{one['case']} ({one['executions']} executions, {one['seeds']} seeds); no schedule is below {bound:.2f}"
        yield f"  {'':22}{'by execution':>22}{'by job':>9}{'p95':>8}{'p99':>9}{'moves':>8}{'undone':>8}{'wasted':>8}{'jain':>7}"
        for name, of in sorted(one["methods"].items(), key=lambda pair: pair[1]["by_execution"]["mean"]):
            mean = of["by_execution"]
            figures = (
                f"{mean['mean']:8.2f} [{mean['low']:5.2f},{mean['high']:6.2f}]{of['by_job']:9.2f}{of['p95']:8.1f}{of['p99']:9.1f}"
            )
            yield f"  {name:22}{figures}{of['moves_an_execution']:8.1f}{of['undone']:8}{of['wasted']:8}{of['jain']:7.2f}"
        worse = [pair for pair, ratio in one["ratios"].items() if ratio["low"] > 1 and not pair.partition("/")[2].startswith("mx")]
        if worse:
            yield "  we lose: " + ", ".join(f"{pair} {one['ratios'][pair]['mean']:.3f}" for pair in worse)
    yield ""
    for goal in result["goals"]:
        yield f"{'met   ' if goal['met'] else 'MISSED'} {goal['goal']}: {goal['measured']} (wanted {goal['wanted']})"


def main() -> None:
    """Runs all and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of each case (default 20)")
    parser.add_argument("--only", default="", help="cases whose name begins so, with commas: MOSIX,osc")
    parser.add_argument("--quick", action="store_true", help="three seeds: to see whether it runs")
    arguments = parser.parse_args()
    known = cases()
    wanted = [text.strip() for text in arguments.only.split(",") if text.strip()]
    numbers = [i for i, case in enumerate(known) if not wanted or any(case.name.startswith(text) for text in wanted)]
    seeds = 3 if arguments.quick else arguments.seeds
    total = len(numbers) * seeds

    def done(count: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{count} of {total}", end="" if count < total else "\n", file=sys.stderr, flush=True)

    found = run_all(numbers, seeds, done)
    summaries = [summary(known[number], of) for number, of in found.items()]
    goals = judge({one["case"]: one for one in summaries})
    result = {"assumptions": assumptions(), "cases": summaries, "goals": goals}
    if arguments.json:
        print(json.dumps(result))
        return
    for what, text in result["assumptions"].items():
        print(f"{what}: {text}")
    print("\n".join(lines(result)))


if __name__ == "__main__":
    main()
