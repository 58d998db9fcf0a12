"""How long a bare machine takes from power-on to Ready, beside the kernel's own part of it.

    bench/boot.py --json > boot.json        median of 5 with BIOS
    bench/boot.py --firmware uefi --times 3

In a lab with one emulated machine that is switched off and on. Each time it is bare: it keeps nothing, makes a new key and gets a
new certificate. All times are seconds since QEMU was started, on this machine's clock:

    kernel    the initramfs's first process runs: firmware, DHCP, iPXE, kernel and initramfs over HTTP
    root      the root's first process is started: the same path to its end, with nothing of ours running yet but a shell script
    agent     the agent has made its key
    ready     the reconciler says Ready

Goal: ready is at most twice the time to the first process of the same kernel over the same path, which is ``root``; the ratio to
``kernel`` is told beside it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.model import LabNode, Places

PROJECT = Path(__file__).resolve().parent.parent
NODE = "n1"
FIRST, ROOT = b"has started its first process", b"mx: n1 runs"
STAGES = ("kernel", "root", "agent", "ready")
SECONDS = 900
GOAL = 2.0
POLL = 0.02


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Bench:
    """One lab with one machine."""

    def __init__(self, name: str, config: Path) -> None:
        self.name, self.places = name, Places(name)
        self._environment = {**os.environ, "MXCONFIG": str(config)}

    def mxctl(self, *words: str) -> str:
        command = [str(PROJECT / ".venv/bin/mxctl"), *words]
        done = subprocess.run(
            command, cwd=PROJECT, env=self._environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if done.returncode:
            raise SystemExit(f"mxctl {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    @property
    def node(self) -> LabNode:
        return self.places.load().node(NODE)

    def measure(self) -> dict[str, float]:
        """One boot of the bare machine; seconds from power-on."""
        self.mxctl("lab", "stop-node", "--name", self.name, NODE, "--hard")
        while self._ready()["status"] == "True":  # else it would stay so all the time
            time.sleep(0.2)
        for each in self.places.machine_state(NODE).iterdir():  # the directory itself is exported
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        console = Watch(self.places.node(NODE) / "machine/console.log")
        console.start()
        self.mxctl("lab", "start-node", "--name", self.name, NODE)
        started = _started_at(self.node)
        console.join(timeout=SECONDS)
        at = {"kernel": console.seen[FIRST], "root": console.seen[ROOT], **self._told(started)}
        return {stage: round(at[stage] - started, 2) for stage in STAGES}

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.mxctl("get", "node", NODE, "-o", "json"))["status"]
        return found

    def _ready(self) -> dict[str, str]:
        conditions: list[dict[str, str]] = self._status()["conditions"]
        return next(each for each in conditions if each["type"] == "Ready")

    def _told(self, started: float) -> dict[str, float]:
        """Times of what the cluster knows of the boot; the condition is of this boot when it is later than its power-on."""
        while True:
            status, ready = self._status(), self._ready()
            agent, at = _seconds(status["boot"]["agent"]), _seconds(ready["lastTransitionTime"])
            if ready["status"] == "True" and min(agent, at) > started:
                return {"agent": agent, "ready": at}
            time.sleep(0.2)


class Watch(threading.Thread):
    """Notes when words come up on a console, from now on."""

    def __init__(self, console: Path) -> None:
        super().__init__(daemon=True)
        self._console = console
        self._from = console.stat().st_size
        self.seen: dict[bytes, float] = {}

    def run(self) -> None:
        while len(self.seen) < 2:
            with self._console.open("rb") as file:
                file.seek(self._from)
                text = file.read()
            for words in (FIRST, ROOT):
                if words in text:
                    self.seen.setdefault(words, time.time())
            time.sleep(POLL)


def _started_at(node: LabNode) -> float:
    """When QEMU was started, unix seconds, by the kernel's own record of the process."""
    assert node.init is not None
    ticks = int(Path(f"/proc/{node.init.pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def run(options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="mx-bench-") as directory:
        bench = Bench(options.lab, Path(directory) / "config")
        bench.mxctl("lab", "down", "--name", options.lab)
        say("a lab with one machine: builds what is not there yet")
        bench.mxctl("lab", "up", "--name", options.lab, "--machines", "1", "--firmware", options.firmware)
        try:
            boots = []
            for number in range(1, options.times + 1):
                boots.append(bench.measure())
                say(f"boot {number} of {options.times}: {boots[-1]}")
        finally:
            bench.mxctl("lab", "down", "--name", options.lab)
    median = {stage: round(statistics.median(boot[stage] for boot in boots), 2) for stage in STAGES}
    ratios = {f"ready_to_{stage}": round(median["ready"] / median[stage], 2) for stage in ("root", "kernel")}
    met = ratios["ready_to_root"] <= GOAL
    return {"firmware": options.firmware, "boots": boots, "median": median, **ratios, "goal": GOAL, "met": met}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--times", type=int, default=5, metavar="N", help="boots (default: %(default)s)")
    parser.add_argument("--firmware", choices=("bios", "uefi"), default="bios", help="default: %(default)s")
    parser.add_argument("--lab", default="benchboot", help="name of the lab; one of this name is taken down first")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    result = run(options)
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    median = result["median"]
    assert isinstance(median, dict)
    for stage in STAGES:
        print(f"{stage:8} {median[stage]:6.1f} s")
    print(f"ready / root {result['ready_to_root']}, ready / kernel {result['ready_to_kernel']}; goal {GOAL} for the first")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
