"""How long N jobs take on M nodes, as ratio to the bound max(sum / M, longest): in simulation on 16 nodes, or in a real lab.

static: dealt out and never moved. idle-only: ours without rotation, so jobs move when a node falls idle, or has too much. mx: the
default policy. Others as in bench/slowdown.py. The jobs are all there at the start and are placed by each method itself.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.spanning import real, simulated
from bench.spanning.table import judge_simulated, lines
from reconciler.simulation.work import STOP


def main() -> None:
    """Runs all and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", type=int, default=5, help="runs with random jobs (default 5; equal jobs need one)")
    real.add_options(parser)
    arguments = parser.parse_args()
    if arguments.lab:
        real.measure(arguments)
        return
    equal, random = simulated.rows(arguments.seeds, equal=True), simulated.rows(arguments.seeds, equal=False)
    goals = judge_simulated(equal)
    result = {
        "assumptions": {"a move": STOP.describe(), "nodes": "one core each"},
        "equal": equal,
        "random": random,
        "goals": goals,
    }
    if arguments.json:
        print(json.dumps(result))
        return
    print("\n".join(lines(f"{simulated.NODES} nodes, jobs of {simulated.LENGTH:g} s", equal)))
    print("\n".join(lines(f"\n{simulated.NODES} nodes, jobs of 50 to 550 s", random)))
    for goal in goals:
        print(f"{'met   ' if goal['met'] else 'MISSED'} {goal['goal']}: {goal['measured']} (wanted {goal['wanted']})")


if __name__ == "__main__":
    main()
