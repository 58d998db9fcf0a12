"""The balancer in a lab with real jobs: memory before it is too late, and rest when there is nothing to gain."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from crds.load import JobLoad, LoadVector
from lab.model import Places
from tests.system.commands import PROJECT, Terminal
from tests.system.labs import lab_name

NAME = lab_name("tbalance")
pytestmark = [pytest.mark.timeout(600), pytest.mark.alone]  # memory fills and load is measured by the clock
PATIENCE = 240.0  # seconds for what takes a few on a machine that does nothing else
GROW = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* grow GO FIRST SLOW LAST: takes FIRST MiB; when the file GO is there one more every 0.6 s up to SLOW, the rest at once; then it
   says for ever whether all of it is whole */
static void say(const char *word) {
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, "VmSwap:", 7) && atol(line + 7)) word = "swapped";
    fclose(status);
    printf("%s\n", word); fflush(stdout);
}
int main(int count, char **words) {
    size_t mib = 1 << 20, first = atol(words[2]), slow = atol(words[3]), last = atol(words[4]), at, k;
    unsigned char **blocks = calloc(last, sizeof *blocks);
    for (at = 0; at < last; at++) {
        blocks[at] = malloc(mib);
        for (k = 0; k < mib; k++) blocks[at][k] = (unsigned char)(at * 31 + k / 4096 * 7 + 3);
        if (at == first) {
            say("ready");
            while (access(words[1], F_OK)) usleep(50000);
        }
        if (at >= first && at < slow) usleep(600000);
    }
    say("grown");
    for (;;) {
        size_t wrong = 0;
        for (at = 0; at < last; at++)
            for (k = 0; k < mib; k += 4096) wrong += blocks[at][k] != (unsigned char)(at * 31 + k / 4096 * 7 + 3);
        say(wrong ? "wrong" : "whole");
        sleep(1);
    }
}
"""
POLICY = """
apiVersion: mx/v1
kind: BalancePolicy
metadata: {{name: default}}
spec: {{interval: 1s, minResidency: 3s, rotation: {rotation}, imbalanceTarget: {target}}}
"""


class Cluster:
    """The lab, and what a person sees of it."""

    def __init__(self, config: Path) -> None:
        self.config, self.terminal = config, Terminal(config)

    def mxctl(self, *words: str) -> str:
        return self.terminal.mxctl(*words)

    def policy(self, rotation: str = "auto", target: float = 0.1) -> None:
        file = self.config.with_name("policy.yaml")
        file.write_text(POLICY.format(rotation=rotation, target=target))
        self.mxctl("apply", "-f", str(file))

    def items(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.mxctl("get", kind, "-o", "json"))["items"]
        return found

    def moves(self, *jobs: str) -> list[dict[str, Any]]:
        """Of these jobs; without any, all."""
        return [m for m in self.items("migrations") if not jobs or m["spec"]["job"] in jobs]

    def start(self, name: str, *command: str, memory: str = "10Mi") -> None:
        self.mxctl("run", "--name", name, "--on", "n1", "--memory", memory, "--", *command)

    def spread(self) -> list[int]:
        """Jobs that run, by node, in the order of nodes."""
        found = Counter(job["status"]["node"] for job in self.items("jobs") if job["status"]["phase"] == "Running")
        return [found[node] for node in ("n1", "n2")]

    def wait(self, what: str, true: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, f"{what}: never: {self.mxctl('get', 'jobs,migrations', '-o', 'wide')}"
            time.sleep(0.5)

    def rest(self) -> None:
        """Until nothing is under way and the policy calls the cluster balanced."""

        def balanced() -> bool:
            [policy] = self.items("balancepolicies")
            said = [c["status"] for c in policy["status"].get("conditions", []) if c["type"] == "Balanced"]
            return said == ["True"] and all(m["status"]["phase"] in ("Succeeded", "Failed") for m in self.moves())

        self.wait("balanced", balanced)

    def clear(self) -> None:
        names = [job["metadata"]["name"] for job in self.items("jobs")]
        if names:
            self.mxctl("delete", "job", *names)
        self.wait("no jobs", lambda: not self.items("jobs"))

    def garbage(self, seconds: float, node: str, value: bytes) -> int:
        """Writes ``value`` as the node's load, again and again, against its agent. How often."""
        words = [sys.executable, "-m", "tests.system.rubbish", NAME, node, str(seconds)]
        env = {**os.environ, "MXCONFIG": str(self.config)}
        done = subprocess.run(words, cwd=PROJECT, env=env, input=value, capture_output=True, check=True, timeout=seconds + 60)
        return int(done.stdout)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.fail("system tests need root: run sudo scripts/test system")
    found = Cluster(tmp_path_factory.mktemp("config") / "config")
    try:
        found.mxctl("lab", "up", "--name", NAME, "--nodes", "2", "--cpus", "0.3", "--memory", "512Mi")
        source = Places(NAME).shared / "grow.c"
        source.write_text(GROW)
        subprocess.run(["cc", "-O1", "-static", "-o", str(source.with_suffix("")), str(source)], check=True, timeout=60)
        yield found
    finally:
        found.mxctl("lab", "down", "--name", NAME)


@pytest.fixture
def empty(lab: Cluster) -> Iterator[Cluster]:
    """Without jobs, before and after."""
    lab.clear()
    lab.policy()
    yield lab
    lab.clear()


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_a_job_leaves_before_memory_runs_out(empty: Cluster, rounds: int) -> None:
    """Two that grow to 300 MiB do not fit on a node of 512: nothing is killed, nothing swapped, and no byte is lost."""
    empty.policy(target=100)  # so that only memory moves anything: taking it needs the CPU for a moment
    for number in range(rounds):
        names = [f"{word}{number}" for word in ("a", "b")]
        for name in names:
            empty.start(name, "/shared/grow", f"/shared/go-{number}", "195", "240", "300", memory="20Mi")
        empty.wait("ready", lambda names=names: all("ready" in empty.mxctl("logs", name) for name in names))  # type: ignore[misc]
        assert empty.moves(*names) == [], "both fit, so far"
        (Places(NAME).shared / f"go-{number}").touch()
        empty.wait("grown", lambda names=names: all("whole" in empty.mxctl("logs", name) for name in names))  # type: ignore[misc]
        assert empty.spread() == [1, 1]
        assert not any(word in empty.mxctl("logs", name) for name in names for word in ("wrong", "swapped"))
        moves = empty.moves(*names)
        assert [m["status"]["phase"] for m in moves if m["spec"]["cause"] == "memory"] == ["Succeeded"], moves
        empty.clear()


BUSY = ("sh", "-c", "while :; do :; done")


def watch(empty: Cluster, seconds: float) -> list[dict[str, Any]]:
    """Migrations that were asked for in that time."""
    before = {m["metadata"]["uid"] for m in empty.moves()}
    time.sleep(seconds)
    return [m for m in empty.moves() if m["metadata"]["uid"] not in before]


@pytest.mark.parametrize("seconds", [5.0, pytest.param(1200.0, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_load_that_fits_evenly_stays_where_it_is_whatever_an_agent_says(empty: Cluster, seconds: float) -> None:
    for number in range(4):
        empty.start(f"even{number}", *BUSY)
    empty.wait("two on each", lambda: empty.spread() == [2, 2])
    empty.rest()
    assert watch(empty, seconds) == []
    jobs = [f"default/{job['metadata']['name']}" for job in empty.items("jobs") if job["status"]["node"] == "n1"]
    for value in rubbish(jobs):
        before = len(empty.moves())
        assert empty.garbage(3.0, "n1", value) > 3
        assert len(empty.moves()) == before, value


def rubbish(jobs: list[str]) -> list[bytes]:
    """No load vector at all; all zero while jobs run; more than can be."""

    def vector(demand: float, memory: int) -> bytes:
        loads = {job: JobLoad(cpu_demand=demand, memory=memory, age=100.0) for job in jobs}
        return LoadVector(
            time=datetime.now(UTC), cpu_capacity=0.3, cpu_demand=demand, memory_capacity=2**29, memory_used=memory, jobs=loads
        ).to_json()

    return [b"\0 rubbish", vector(0.0, 0), vector(1e9, 1 << 60)]


@pytest.mark.soak
@pytest.mark.parametrize("seconds", [5.0, pytest.param(1200.0, marks=pytest.mark.timeout(3600))])
def test_a_surplus_job_moves_by_rotation_only_and_not_at_all_without(empty: Cluster, seconds: float) -> None:
    empty.policy(rotation="off")
    for number in range(3):
        empty.start(f"odd{number}", *BUSY)
    empty.wait("spread", lambda: sorted(empty.spread()) == [1, 2])
    empty.rest()
    assert watch(empty, seconds) == []
    empty.policy()
    moves = watch(empty, seconds)
    assert all(m["spec"]["cause"] == "rotation" for m in moves), moves
    assert sorted(empty.spread()) == [1, 2] or any(m["status"]["phase"] in ("Pending", "Moving") for m in empty.moves())
