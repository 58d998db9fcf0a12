"""The table on real nodes. ``static`` deals the jobs out in turn and leaves them there, ``idle-only`` moves one only to a node that
has fallen idle, ``mx`` is the balancer.

A lab's nodes have a CPU quota each, and share this machine: run nothing else on it. The unit is one job alone on one node, measured
first.
"""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from statistics import mean
from typing import Any

from bench.spanning.bounds import idle_only, lengths_of, preemptive, static
from bench.spanning.lab import Bench, bench_lab

ROWS = (8, 9, 10, 12, 13, 16, 17, 20, 24)
METHODS = ("static", "idle-only", "mx")


def table(bench: Bench, rows: list[int], methods: list[str], kinds: list[str], seconds: float) -> dict[str, Any]:
    """All cells. ``seconds``: how long a job takes alone on a node."""
    rate = bench.prepare() * bench.cores
    alone = bench.run("static", [seconds * rate]).seconds
    found: list[dict[str, Any]] = []
    for kind in kinds:
        for count in rows:
            lengths = lengths_of(kind, count, seconds, count)
            scale = alone / seconds
            bound = preemptive(lengths, bench.nodes) * scale
            row: dict[str, Any] = {"kind": kind, "n": count, "bound": round(bound, 1)}
            row["theory"] = {"static": static(lengths, bench.nodes) * scale / bound}
            row["theory"]["idle-only"] = idle_only(lengths, bench.nodes) * scale / bound
            for method in methods:
                span = bench.run(method, [length * rate for length in lengths])
                row[method] = {"seconds": round(span.seconds, 1), "ratio": round(span.seconds / bound, 3), "moves": span.moves}
            row["machine_load"] = round(os.getloadavg()[0], 1)
            found.append(row)
            print(_line(row, methods), file=sys.stderr, flush=True)
    ratios = {method: round(mean(row[method]["ratio"] for row in found), 3) for method in methods}
    return {
        "nodes": bench.nodes,
        "cores": bench.cores,
        "alone": round(alone, 2),
        "asked": seconds,
        "rows": found,
        "mean_ratio": ratios,
    }


def _line(row: dict[str, Any], methods: list[str]) -> str:
    cells = "  ".join(f"{method} {row[method]['ratio']:.3f} ({row[method]['moves']} moves)" for method in methods)
    theory = "  ".join(f"{name} {ratio:.3f}" for name, ratio in row["theory"].items())
    return (
        f"{row['kind']:6} n={row['n']:<3} bound {row['bound']:6.1f} s  {cells}   in theory: {theory}   load {row['machine_load']}"
    )


def add_options(parser: ArgumentParser) -> None:
    """What --lab can be told."""
    parser.add_argument("--lab", action="store_true", help="on real nodes instead; needs root")
    lab = parser.add_argument_group("with --lab")
    lab.add_argument("--n", default=",".join(map(str, ROWS)), help="rows: numbers of jobs (default %(default)s)")
    lab.add_argument("--methods", default=",".join(METHODS), help="of %(default)s")
    lab.add_argument("--kinds", default="equal,random", help="of %(default)s")
    lab.add_argument(
        "--seconds",
        type=float,
        default=90.0,
        help="how long a job takes alone (default %(default)g); in less, starts and freezes weigh more than the schedule",
    )
    lab.add_argument("--nodes", type=int, default=8, help="default %(default)s")
    lab.add_argument("--cores", type=float, default=0.2, help="of each node (default %(default)s)")
    lab.add_argument("--name", default="makespan", help="of the lab (default %(default)s)")


def measure(given: Namespace) -> None:
    """Runs and prints."""
    with bench_lab(given.name, given.nodes, given.cores) as bench:
        rows = [int(word) for word in given.n.split(",")]
        result = table(bench, rows, given.methods.split(","), given.kinds.split(","), given.seconds)
    print(json.dumps(result) if given.json else f"mean ratio to the bound: {result['mean_ratio']}")
