"""``scripts/demo``: a lab of four nodes, the play (show.py), and the lab taken down again."""

import argparse
import subprocess
import sys
from collections.abc import Sequence

from clip.progress import reporting
from lab import cluster
from lab.errors import LabError
from lab.model import Places
from lab.node import command_line

# CPUS leaves the daemons, criu and whatever else runs here 0.8 of two cores, so that the nodes get what they are promised.
NAME, NODES, CPUS, MEMORY = "demo", 4, "0.3", "1Gi"
_CHECK_SECONDS = 30


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/demo."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Nine jobs, all started on one node of four, move while they run until the load is even.",
        epilog="examples:  sudo scripts/demo     sudo scripts/demo --batch --json | tail -n 1",
    )
    parser.add_argument("--batch", action="store_true", help="print lines, no live picture")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object in the last line")
    parser.add_argument("--record", metavar="FILE", help="save the picture as SVG")
    return parser.parse_args(words)


def check_criu(lab: str) -> None:
    """LabError with criu's own words when it does not work on this kernel."""
    command = command_line(lab, Places(lab).load().workers[0], ["criu", "check"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise LabError(f"criu check failed on this kernel: {said[-1] if said else 'no reason given'}")


def run(arguments: argparse.Namespace) -> int:
    """Exit code of the play; the lab is down again whatever happened."""
    with reporting("lab", cluster.PHASES + NODES) as report:
        cluster.up(NAME, NODES, CPUS, MEMORY, report=report)
    try:
        check_criu(NAME)
        options = [f"--{word}" for word in ("batch", "json") if getattr(arguments, word)]
        options += ["--record", arguments.record] if arguments.record else []
        return subprocess.run([sys.executable, "-m", "lab.demo.show", NAME, *options], check=False).returncode
    finally:
        cluster.down(NAME)


def main() -> int:
    """Error lines begin with what cannot be done here."""
    try:
        return run(parse(sys.argv[1:]))
    except LabError as error:
        print(f"The demo cannot run here: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
