"""``python -m tests.system.faults --lab faultsa --trials 20 --seed 7``: trials in one lab; a line each, JSON lines with --out."""

import argparse
import asyncio
import json
import random
import sys
from pathlib import Path

from tests.system.faults.plan import LONG_STOP, product
from tests.system.faults.runner import Result, run_all
from tests.system.faults.site import Site


def main() -> int:
    """0 when no trial ended with a complaint."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.faults", description=__doc__)
    parser.add_argument("--lab", required=True, help="name of the lab to build for it")
    parser.add_argument("--trials", type=int, default=20, help="how many of the shuffled product (default: %(default)s)")
    parser.add_argument("--skip", type=int, default=0, help="pass over so many of them: goes on with a run that was ended")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the shuffle (default: random, printed)")
    parser.add_argument("--share", default="0/1", help="I/N: every Nth trial from the Ith on, for labs side by side")
    parser.add_argument("--stop", type=float, default=LONG_STOP, help="seconds a stopped process stands (default: %(default)s)")
    parser.add_argument("--modes", default="stop", help="comma-separated (default: %(default)s)")
    parser.add_argument("--only", default="", help="only trials whose line has this word")
    parser.add_argument("--out", type=Path, help="file for results, one JSON object a line")
    parser.add_argument("--logs", type=Path, help="directory for the nodes' logs when something was wrong")
    options = parser.parse_args()
    at, of = (int(part) for part in options.share.split("/"))
    trials = product(random.Random(options.seed), tuple(options.modes.split(",")), stop=options.stop)
    chosen = [trial for trial in trials if options.only in trial.label][options.skip :][: options.trials][at::of]
    print(f"seed {options.seed}: {len(chosen)} of {len(trials)} trials", flush=True)
    bad = 0

    def tell(result: Result) -> None:
        nonlocal bad
        bad += bool(result.complaints)
        print(result.line, flush=True)
        if options.out:
            with options.out.open("a") as out:
                out.write(json.dumps(result.to_data()) + "\n")

    with Site.up(options.lab) as site:
        asyncio.run(run_all(site, chosen, tell))
        if bad and options.logs:
            options.logs.mkdir(parents=True, exist_ok=True)
            for node, service in [("head", "reconciler"), *((worker, "nodeagent") for worker in site.workers)]:
                (options.logs / f"{options.lab}-{node}-{service}.log").write_text(site.log(node, service))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
