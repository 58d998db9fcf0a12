"""``python -m tests.integration.machine --seed 7 --runs 4``: one part of the state machine's runs; the last line counts."""

import argparse
import asyncio
import logging
import sys

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.machine.base import Base
from tests.integration.machine.defects import DEFECTS, planted
from tests.integration.machine.rules import Cloud


def main() -> int:
    """0 when nothing was found; else the shortest way to it that was found, and 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.machine", description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="draws the runs")
    parser.add_argument("--runs", type=int, default=4, help="clusters, one after another (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=250, help="rules for each (default: %(default)s)")
    parser.add_argument("--shrink", action="store_true", help="look for a shorter way to what was found; that may take long")
    parser.add_argument("--log", help="file for what the daemons of all runs log, with the cluster's own time")
    parser.add_argument("--plant", choices=sorted(DEFECTS), help="a defect that is to be found")
    parser.add_argument("--verbose", action="store_true", help="say how moves ended, and what struck at named steps of them")
    options = parser.parse_args()
    _log_to(options.log)
    chosen = settings(
        max_examples=options.runs,
        stateful_step_count=options.steps,
        deadline=None,
        database=None,
        derandomize=False,
        report_multiple_bugs=False,
        phases=[Phase.generate, *([Phase.shrink] if options.shrink else [])],
        suppress_health_check=list(HealthCheck),
    )
    try:
        with planted(options.plant):
            run_state_machine_as_test(seed(options.seed)(Cloud), settings=chosen)
    except BaseException:
        print(f"seed {options.seed}: found after {Base.steps} steps, {Base.moved} moves", file=sys.stderr)
        raise
    if options.verbose:
        print(", ".join(f"{kind}: {number}" for kind, number in sorted(Base.counted.items())))
    print(f"seed {options.seed}: {Base.steps} steps, {Base.moved} moves")
    return 0


def _log_to(path: str | None) -> None:
    if path is None:
        logging.disable(logging.CRITICAL)
        return
    handler = logging.FileHandler(path, mode="w")
    handler.setFormatter(_InClusterTime("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


class _InClusterTime(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{asyncio.get_event_loop().time():.3f} {record.name} {super().format(record)}"


if __name__ == "__main__":
    sys.exit(main())
