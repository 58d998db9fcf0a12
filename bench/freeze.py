"""How long a job stands still when it is moved, side by side with criu alone and with podman; and what an agent costs at rest.

    bench/freeze.py --json > freeze.json          everything, n = 10: about a quarter of an hour
    bench/freeze.py --quick                       the smallest job, twice: does it work at all
    bench/freeze.py --sizes 200 --jobs idle       one case

In a lab of two nodes a job of 16 MB, 200 MB and 1 GB, idle or writing all over its memory, is moved to and fro. The freeze is
what the job itself sees: the largest gap in its clock (CLOCK_REALTIME), beside the figure that MX reports. In turn with each move
the same job is dumped and restored by the same criu with the same flags on one node's tmpfs (``raw``: no network, no checksums, no
journal), and checkpointed and restored by podman where it can be had; so that noise of the machine meets all of them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.freezing.peer import Podman, PodmanMissing
from lab.model import Places
from nodeagent import criu

PROJECT = Path(__file__).resolve().parent.parent
PARTS = Path(__file__).parent / "freezing"
SIZES = (16, 200, 1024)
JOBS = ("idle", "writing")
MODES = ("stop", "post-copy", "pre-copy")
GOALS = {"stop_to_raw": {200: 1.5, 1024: 1.5}, "stop_ms": {16: 80.0}, "podman_to_stop": 2.5, "post-copy_idle_ms": {1024: 150.0}}
REST_GOALS = {"cpu_percent": 0.5, "rss_mb": 60.0}
SECONDS = 300  # for one command
SETTLE = 0.4  # seconds for a job to write down its last gap


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@dataclass
class Lab:
    """A lab of two nodes, by mxctl as a person would use it."""

    name: str
    config: Path

    def mxctl(self, *words: str, ok: bool = True) -> str:
        environment = {**os.environ, "MXCONFIG": str(self.config)}
        command = [str(PROJECT / ".venv/bin/mxctl"), *words]
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode and ok:
            raise SystemExit(f"mxctl {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def on(self, node: str, *command: str) -> str:
        return self.mxctl("lab", "exec", "--name", self.name, node, "--", *command)

    @property
    def shared(self) -> Path:
        """Of the nodes, as this machine sees it."""
        return self.root / "shared"

    @property
    def root(self) -> Path:
        return Places(self.name).directory


@contextmanager
def lab_of(name: str, memory: str) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="mx-bench-") as directory:
        lab = Lab(name, Path(directory) / "config")
        lab.mxctl("lab", "down", "--name", name)
        lab.mxctl("lab", "up", "--name", name, "--nodes", "2", "--cpus", "0.95", "--memory", memory)
        try:
            (lab.shared / "bench").mkdir(mode=0o777)
            for part in ("job.py", "raw.py"):
                (lab.shared / "bench" / part).write_text((PARTS / part).read_text())
            yield lab
        finally:
            lab.mxctl("lab", "down", "--name", name)


# --- figures ---


@dataclass
class Series:
    """Milliseconds, in the order in which they were measured."""

    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        self.values.append(round(value, 1))

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def to_data(self) -> dict[str, Any]:
        """p99 of few values is their largest."""
        ordered = sorted(self.values)
        p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
        return {"n": len(ordered), "p50": round(self.median, 1), "p99": p99, "least": ordered[0], "values": self.values}


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {SECONDS} s in vain for {what}")
        time.sleep(0.05)


def largest_gap(witness: Path, since: float) -> float:
    """What the job saw after that time, in milliseconds."""
    rows = [line.split() for line in witness.read_text().splitlines()]
    return max((float(gap) for when, gap in rows if float(when) > since), default=0.0)


# --- one job, moved to and fro ---


class Moved:
    """A running job."""

    def __init__(self, lab: Lab, megabytes: int, how: str) -> None:
        self.lab, self.name = lab, f"{how}{megabytes}"
        self.witness = lab.shared / "bench" / f"{self.name}.gaps"
        program = ["python3", "/shared/bench/job.py", str(megabytes), how, f"/shared/bench/{self.name}.gaps"]
        lab.mxctl("run", "--name", self.name, "--on", "n1", "--memory", f"{megabytes + 32}Mi", "--", *program)
        until(lambda: self.witness.exists() and bool(self.witness.read_text()), f"job {self.name} to have its memory")
        self.node = "n1"

    def move(self, mode: str | None) -> tuple[float, float] | str:
        """The freeze as the job saw it and as it is reported, milliseconds; or why it was not moved."""
        target = "n2" if self.node == "n1" else "n1"
        began = time.time()
        options = ["--mode", mode] if mode else []
        said = self.lab.mxctl("migrate", self.name, target, *options, "--wait", "--timeout", "4m", ok=False)
        migration = said.split()[0].removeprefix("migration/")
        status = json.loads(self.lab.mxctl("get", "migration", migration, "-o", "json"))["status"]
        if status["phase"] != "Succeeded":
            return str(status.get("message") or status["phase"])
        self.node = target
        time.sleep(SETTLE)
        return largest_gap(self.witness, began), float(status.get("freezeMs") or 0.0)

    def end(self) -> None:
        self.lab.mxctl("delete", "job", self.name)


def raw_once(lab: Lab, megabytes: int, how: str) -> float:
    """criu alone, on n1's tmpfs: milliseconds that the job saw."""
    dump = criu.dump_command(1, Path("D"), Path("L"))
    restore = [flag for flag in criu.restore_command(Path("D"), Path("L")) if flag != "--leave-stopped"]  # it is to run at once
    flags = [json.dumps(command[command.index("D") + 1 : -2]) for command in (dump, restore)]
    said = lab.on("n1", "python3", "/shared/bench/raw.py", "1", str(megabytes), how, "/run/mx-bench", *flags)
    return float(json.loads(said)[0]["witness_ms"])


def modes_of(lab: Lab) -> list[str | None]:
    """What this version can be asked for; None: it knows only to stop the job."""
    if "--mode" not in lab.mxctl("migrate", "--help"):
        return [None]
    alive = json.loads(lab.on("head", "etcdctl", "get", "--print-value-only", "/mx/nodes/n1/alive"))
    return ["stop", *(mode for mode in MODES[1:] if mode in alive.get("features", []))]


def measure(lab: Lab, megabytes: int, how: str, options: argparse.Namespace, podman: Podman | None) -> dict[str, Any]:
    """One case: moves in every mode, raw and podman in turn."""
    job, times = Moved(lab, megabytes, how), options.times
    modes = [mode for mode in modes_of(lab) if mode is None or mode in options.modes]
    series: dict[str, Series] = {"raw": Series()}
    failures: list[str] = []
    try:
        for turn in range(times):
            series["raw"].add(raw_once(lab, megabytes, how))
            for mode in modes:
                moved = job.move(mode)
                if isinstance(moved, str):
                    failures.append(f"{mode or 'stop'}: {moved}")
                    say(f"  NOT MOVED: {failures[-1]}")
                    continue
                series.setdefault(mode or "stop", Series()).add(moved[0])
                series.setdefault(f"{mode or 'stop'} reported", Series()).add(moved[1])
            if podman is not None:
                series.setdefault("podman", Series()).add(podman.once(megabytes, how))
            say(
                f"  {how} {megabytes} MB, {turn + 1} of {times}: " + ", ".join(f"{k} {s.values[-1]:.0f}" for k, s in series.items())
            )
    finally:
        job.end()
    case = {"megabytes": megabytes, "job": how, "failures": failures, "ratios": ratios(series)}
    return case | {name: each.to_data() for name, each in series.items()}


def ratios(series: dict[str, Series]) -> dict[str, Any]:
    if "stop" not in series:
        return {}
    found = {"stop_to_raw": round(series["stop"].median / series["raw"].median, 2)}
    if "podman" in series:
        found["podman_to_stop"] = round(series["podman"].median / series["stop"].median, 2)
    return found


# --- an agent at rest ---


def rest(lab: Lab, seconds: float) -> dict[str, float]:
    """The agent of n1 with ten jobs that sleep: per cent of a core and resident megabytes, over so many seconds."""
    names = [f"rest{i}" for i in range(10)]
    for name in names:
        lab.mxctl("run", "--name", name, "--on", "n1", "--pin", "--", "sleep", "1000000")
    lab.mxctl("wait", *(f"job/{name}" for name in names), "--for=condition=Running", "--timeout=60s")
    time.sleep(min(5.0, seconds))
    services = json.loads(lab.on("n1", "cat", "/run/mx/services.json"))
    script = f"cat /proc/{services['nodeagent']['pid']}/stat; date +%s.%N; getconf CLK_TCK; getconf PAGESIZE"
    first, since, tick, page = lab.on("n1", "sh", "-c", script).splitlines()
    time.sleep(seconds)
    last, now, _, _ = lab.on("n1", "sh", "-c", script).splitlines()
    for name in names:
        lab.mxctl("delete", "job", name)
    ticks = _ticks(last) - _ticks(first)
    percent = 100 * ticks / int(tick) / (float(now) - float(since))
    rss = int(last.rpartition(")")[2].split()[21]) * int(page) / 1e6
    return {"seconds": round(float(now) - float(since), 1), "cpu_percent": round(percent, 3), "rss_mb": round(rss, 1)}


def _ticks(stat: str) -> int:
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# --- all of it ---


def judge(cases: list[dict[str, Any]], at_rest: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Each goal with what was measured and whether it is met."""
    found: list[dict[str, Any]] = []

    def goal(what: str, measured: float, most: float, *, least: bool = False) -> None:
        met = measured >= most if least else measured <= most
        found.append({"goal": what, "measured": measured, "wanted": f"{'>=' if least else '<='} {most:g}", "met": met})

    for case in cases:
        name, size = f"{case['job']} {case['megabytes']} MB", case["megabytes"]
        if case["failures"]:
            goal(f"{name}: moves that failed", len(case["failures"]), 0)
        if "stop" not in case:
            continue
        if size in GOALS["stop_to_raw"]:
            goal(f"{name}: stop to raw", case["ratios"]["stop_to_raw"], GOALS["stop_to_raw"][size])
        if size in GOALS["stop_ms"]:
            goal(f"{name}: stop, ms", case["stop"]["p50"], GOALS["stop_ms"][size])
        if "podman" in case:
            goal(f"{name}: podman to stop", case["ratios"]["podman_to_stop"], GOALS["podman_to_stop"], least=True)
        if "post-copy" in case and case["job"] == "idle" and size in GOALS["post-copy_idle_ms"]:
            goal(f"{name}: post-copy, ms", case["post-copy"]["p50"], GOALS["post-copy_idle_ms"][size])
    for when, figures in at_rest.items():
        for what, most in REST_GOALS.items():
            goal(f"agent at rest {when}: {what}", figures[what], most)
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    largest = max(options.sizes)
    with lab_of(options.lab, f"{4 + 6 * largest // 1000}Gi") as lab:
        at_rest = {"before any move": rest(lab, options.rest)} if options.rest else {}
        podman, why = find_podman(lab, options)
        say(f"podman: {'measured beside' if podman else 'SKIPPED: ' + why}")
        cases = [measure(lab, size, how, options, podman) for size in options.sizes for how in options.jobs]
        if options.rest:
            at_rest["after the moves"] = rest(lab, options.rest)
    return {
        "machine": {"cores": os.cpu_count(), "kernel": os.uname().release, "load": os.getloadavg()[0]},
        "freeze": cases,
        "podman": {"measured": podman is not None, "reason": why, "version": podman.version if podman else ""},
        "rest": at_rest,
        "goals": judge(cases, at_rest),
    }


def find_podman(lab: Lab, options: argparse.Namespace) -> tuple[Podman | None, str]:
    if options.no_podman:
        return None, "--no-podman"
    try:
        return Podman.install(Places(lab.name), lambda *command: lab.on("n1", *command)), ""
    except PodmanMissing as error:
        return None, str(error)


def table(result: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{'':18}{'':14}{'n':>4}{'p50 ms':>10}{'p99 ms':>10}"]
    for case in result["freeze"]:
        for name, series in case.items():
            if isinstance(series, dict) and "p50" in series:
                label = f"{case['job']} {case['megabytes']} MB"
                lines.append(f"{label:18}{name:14.14}{series['n']:>4}{series['p50']:>10.0f}{series['p99']:>10.0f}")
    lines.extend(
        f"{'met   ' if each['met'] else 'MISSED'} {each['goal']}: {each['measured']:g} (wanted {each['wanted']})"
        for each in result["goals"]
    )
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--quick", action="store_true", help="the smallest job, twice, five seconds of rest: for tests")
    parser.add_argument("--times", type=int, default=10, metavar="N", help="moves of each case (default: %(default)s)")
    parser.add_argument("--sizes", type=_numbers, default=list(SIZES), metavar="MB,…", help="default: 16,200,1024")
    parser.add_argument(
        "--jobs", type=lambda text: text.split(","), default=list(JOBS), metavar="JOB,…", help="default: idle,writing"
    )
    parser.add_argument("--rest", type=float, default=30.0, metavar="SECONDS", help="how long to look at an agent at rest; 0: not")
    parser.add_argument(
        "--modes", type=lambda text: text.split(","), default=list(MODES), metavar="MODE,…", help="those that exist"
    )
    parser.add_argument("--no-podman", action="store_true", help="do not compare with podman")
    parser.add_argument("--lab", default="benchfreeze", help="name of the lab; one of this name is taken down first")
    options = parser.parse_args(arguments)
    if options.quick:
        options.times, options.sizes, options.jobs, options.rest = 2, [16], ["idle"], 5.0
    return options


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    result = run(options)
    print(json.dumps(result, indent=1) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
