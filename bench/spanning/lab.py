"""The table in a real lab: real processes, real moves.

All jobs wait for one file, so that they begin at once whatever starting them took; each writes when it has ended. Nothing is asked
of the cluster meanwhile, but by the idle-only method, which asks for the moves that it makes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.model import Places

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE = 900.0
WORK = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
/* work MILLIONS GO DONE: waits for the file GO, counts so many millions, then writes DONE; without GO it says how many a second.
   It computes while it waits: a job that slept until then would be taken for one that sleeps by turns. */
static void count(double millions) {
    for (; millions >= 1; millions--) for (volatile int k = 0; k < 1000000; k++) ;
}
int main(int argc, char **words) {
    if (argc < 3) {
        clock_t begin = clock();
        count(400);
        printf("%f\n", 400 / ((double)(clock() - begin) / CLOCKS_PER_SEC));
        return 0;
    }
    while (access(words[2], F_OK)) count(5);
    count(atof(words[1]));
    FILE *done = fopen(words[3], "w");
    fprintf(done, "done\n");
    return fclose(done);
}
"""


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds until the last job had ended; moves that were made."""

    seconds: float
    moves: int


class Bench:
    """A lab of ``nodes`` nodes of ``cores`` each."""

    def __init__(self, name: str, nodes: int, cores: float, config: Path) -> None:
        self.name, self.nodes, self.cores = name, nodes, cores
        self.shared = Places(name).shared
        self._env = {**os.environ, "MXCONFIG": str(config)}
        self._file = config.with_name("objects.yaml")
        self._runs = 0

    def mxctl(self, *words: str) -> str:
        command = [str(Path(sys.executable).with_name("mxctl")), *words]
        done = subprocess.run(command, cwd=PROJECT, env=self._env, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode:
            raise SystemExit(f"mxctl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def prepare(self) -> float:
        """Puts the program there; millions that it counts in a second of CPU."""
        source = self.shared / "work.c"
        source.write_text(WORK)
        subprocess.run(["cc", "-O1", "-static", "-o", str(self.shared / "work"), str(source)], check=True, timeout=60)
        rates = [
            float(subprocess.run([self.shared / "work"], capture_output=True, check=True, timeout=60).stdout) for _ in range(5)
        ]
        return max(rates)

    def run(self, method: str, millions: Sequence[float]) -> Span:
        """One cell: the jobs dealt out in turn, then ``method`` (static, idle-only, mx)."""
        self._runs += 1
        run = f"r{self._runs}"
        goal = "opportunity-cost" if method == "mx" else "none"
        spec = {"goal": goal, "interval": "1s", "minResidency": "2s", "budget": {"perNode": 1, "cluster": 4}}
        objects = [{"apiVersion": "mx/v1", "kind": "BalancePolicy", "metadata": {"name": "bench"}, "spec": spec}]
        objects += [self._job(run, number, count) for number, count in enumerate(millions)]
        self._apply(objects)
        self.mxctl("wait", "--for=condition=Running", *[f"job/{run}-{n}" for n in range(len(millions))], "--timeout=300s")
        time.sleep(4)  # until all are seen to compute
        begin = time.monotonic()
        (self.shared / f"{run}-go").touch()
        moves = self._until_done(run, len(millions), method)
        seconds = time.monotonic() - begin
        if method == "mx":
            found = json.loads(self.mxctl("get", "migrations", "-o", "json"))["items"]
            moves = sum(m["spec"]["job"].startswith(f"{run}-") and m["status"]["phase"] == "Succeeded" for m in found)
        self.mxctl("delete", "job", *[f"{run}-{n}" for n in range(len(millions))])
        return Span(seconds, moves)

    def _job(self, run: str, number: int, millions: float) -> dict[str, object]:
        command = ["/shared/work", f"{millions:.0f}", f"/shared/{run}-go", f"/shared/{run}-{number}-done"]
        placement = {"node": f"n{number % self.nodes + 1}"}
        spec = {"command": command, "placement": placement, "resources": {"memory": "10Mi"}}
        return {"apiVersion": "mx/v1", "kind": "Job", "metadata": {"name": f"{run}-{number}"}, "spec": spec}

    def _apply(self, objects: list[dict[str, object]]) -> None:
        self._file.write_text("---\n".join(json.dumps(each) + "\n" for each in objects))
        self.mxctl("apply", "-f", str(self._file))

    def _until_done(self, run: str, count: int, method: str) -> int:
        """Waits for all; moves to idle nodes if that is the method. Returns those moves."""
        where = {number: number % self.nodes for number in range(count)}
        moving: dict[int, subprocess.Popen[str]] = {}
        moves, end = 0, time.monotonic() + PATIENCE
        while where:
            if time.monotonic() > end:
                raise SystemExit(f"{run}: {len(where)} jobs have not ended after {PATIENCE:g} s")
            where = {n: node for n, node in where.items() if not (self.shared / f"{run}-{n}-done").exists()}
            moving = {n: process for n, process in moving.items() if process.poll() is None}
            for number, node in self._to_idle(where, moving) if method == "idle-only" else ():
                words = [str(Path(sys.executable).with_name("mxctl")), "migrate", f"{run}-{number}", f"n{node + 1}", "--wait"]
                null = subprocess.DEVNULL
                moving[number] = subprocess.Popen(words, cwd=PROJECT, env=self._env, stdout=null, stderr=null, text=True)
                where[number], moves = node, moves + 1
            time.sleep(0.1)
        for process in moving.values():
            process.wait(PATIENCE)
        return moves

    def _to_idle(self, where: dict[int, int], moving: dict[int, subprocess.Popen[str]]) -> Iterator[tuple[int, int]]:
        jobs: dict[int, list[int]] = {node: [] for node in range(self.nodes)}
        for number, node in where.items():
            jobs[node].append(number)
        for idle in [node for node, there in jobs.items() if not there]:
            fullest = max(jobs.values(), key=len)
            free = [number for number in fullest if number not in moving]
            if len(fullest) > 1 and free:
                fullest.remove(free[-1])
                yield free[-1], idle


@contextmanager
def bench_lab(name: str, nodes: int, cores: float) -> Iterator[Bench]:
    """Up while it is used."""
    with TemporaryDirectory(prefix="makespan-") as directory:
        bench = Bench(name, nodes, cores, Path(directory) / "config")
        bench.mxctl("lab", "up", "--name", name, "--nodes", str(nodes), "--cpus", str(cores), "--memory", "256Mi")
        try:
            yield bench
        finally:
            bench.mxctl("lab", "down", "--name", name)
