"""``python -m tests.system.faults.endurance --lab NAME --jobs 8 --seconds 300``: jobs move to and fro; nothing may grow meanwhile.

Memory and open files of agents and reconciler, the journals and what lies on the tmpfs are measured after a first fifth of the
time, and at the end. Lines of JSON: the two measurements. The exit code is 1 when something grew, or a witness has a gap.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path

from crds.job import FINISHED, Job, JobSpec, MigrationMode
from crds.meta import Metadata
from crds.migration import Migration, MigrationPhase, MigrationSpec
from lab.model import HEAD
from lab.ready import context_of
from store.context import connect
from store.errors import AlreadyExists
from store.store import Store
from tests.system.faults.judge import NAMESPACE, Judge
from tests.system.faults.runner import WITNESS, sure
from tests.system.faults.site import Site

BALLAST = 4 << 20
MORE_MEMORY = 16 << 20  # bytes that a daemon may have more at the end: Python's heap breathes
MORE_FILES = 4


class Endurance:
    """Jobs on their way, in one lab."""

    def __init__(self, site: Site, store: Store) -> None:
        self.site, self.store = site, store
        self.moves = 0
        self.failures: list[str] = []

    async def start(self, number: int) -> Judge:
        """A job that runs."""
        name, tag = f"e{number}", f"{self.site.name}-endurance-{number}-"
        (self.site.hidden / tag).mkdir(parents=True)
        spec = JobSpec(command=["python3", "-c", WITNESS, tag, str(BALLAST)], workdir="/", termination_grace=0.5)
        with contextlib.suppress(AlreadyExists):
            await sure(lambda: self.store.create(Job(metadata=Metadata(name=name), spec=spec)))
        while True:
            job = await sure(lambda: self.store.get(Job, name, NAMESPACE))
            assert job.status.phase not in FINISHED, f"{name} is {job.status.phase}: {job.status.message}"
            if job.status.phase == "Running":
                return Judge(self.site, self.store.kv, name, tag)
            await asyncio.sleep(0.1)

    async def go(self, judge: Judge, moves: int | None, until: float, mode: MigrationMode) -> None:
        """To and fro, so often or so long."""
        made = 0
        while (made < moves) if moves is not None else time.monotonic() < until:
            made += 1
            await self.move(judge.job, mode)

    async def move(self, job: str, mode: MigrationMode) -> None:
        """One move; a failure is remembered."""
        here = (await sure(lambda: self.store.get(Job, job, NAMESPACE))).status.node
        to = next(node for node in self.site.workers if node != here)
        self.moves += 1
        name = f"m-{job}-{self.moves}"
        wish = Migration(metadata=Metadata(name=name), spec=MigrationSpec(job=job, to=to, mode=mode))
        with contextlib.suppress(AlreadyExists):
            await sure(lambda: self.store.create(wish))
        while True:
            status = (await sure(lambda: self.store.get(Migration, name, NAMESPACE))).status
            if status.phase == MigrationPhase.FAILED:
                self.failures.append(f"{name}: {status.message}")
            if status.phase in (MigrationPhase.SUCCEEDED, MigrationPhase.FAILED):
                return
            await asyncio.sleep(0.05)

    def measure(self) -> dict[str, int]:
        """Bytes and numbers, by name."""
        found = {}
        for node, service in [*((node, "nodeagent") for node in self.site.workers), (HEAD, "reconciler")]:
            pid = self.site.daemon(node, service)
            if pid is not None:
                found[f"{node} {service} files"] = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                found[f"{node} {service} memory"] = _resident(pid)
        for node in self.site.workers:
            journal = self.site.root(node) / "var/lib/mx/agent/journal"
            found[f"{node} journal files"] = len(list(journal.iterdir()))
            usage = os.statvfs(self.site.root(node) / "run")
            found[f"{node} tmpfs memory"] = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
        return found


def grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """What is more than it may be. Summed over the nodes, as jobs may end on either."""
    before, after = _summed(before), _summed(after)
    allowed = {"memory": MORE_MEMORY, "files": MORE_FILES}
    return [f"{name}: {old} -> {after[name]}" for name, old in before.items() if after[name] > old + allowed[name.split()[-1]]]


def _summed(measured: dict[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for name, value in measured.items():
        what = name.partition(" ")[2]
        total[what] = total.get(what, 0) + value
    return total


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


async def run(site: Site, options: argparse.Namespace) -> list[str]:
    """Complaints."""
    kv = await connect(context_of(site.places))
    try:
        endurance, mode = Endurance(site, Store(kv)), MigrationMode(options.mode)
        judges = [await endurance.start(number) for number in range(options.jobs)]

        async def stretch(share: float) -> None:
            moves = max(2, round(options.moves * share)) if options.moves else None
            until = time.monotonic() + options.seconds * share
            await asyncio.gather(*(endurance.go(judge, moves, until, mode) for judge in judges))
            for judge in judges:
                endurance.failures += await judge.goes_on()

        await stretch(0.2)
        before = endurance.measure()
        await stretch(0.8)
        after = endurance.measure()
    finally:
        await kv.close()
    for measured in (before, after):
        print(json.dumps(measured), flush=True)
    print(f"{endurance.moves} moves of {options.jobs} jobs by {mode}", flush=True)
    return endurance.failures + grown(before, after)


def main() -> int:
    """0 when nothing grew and nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.faults.endurance", description=__doc__)
    parser.add_argument("--lab", required=True, help="name of the lab to build for it")
    parser.add_argument("--jobs", type=int, default=1, help="jobs that move at the same time (default: %(default)s)")
    parser.add_argument("--moves", type=int, default=0, help="of each job; 0: as many as the time allows (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="how long, unless --moves says how often (default: %(default)s)"
    )
    parser.add_argument("--mode", default="stop", help="how they move (default: %(default)s)")
    options = parser.parse_args()
    with Site.up(options.lab, memory="1Gi") as site:
        complaints = asyncio.run(run(site, options))
    print("\n".join(complaints) or "nothing grew")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
