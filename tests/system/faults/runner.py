"""Runs trials one after another in one lab: one job moves to and fro, and something happens to each move."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from crds.job import FINISHED, Job, JobSpec, MigrationMode
from crds.meta import Metadata
from crds.migration import Migration, MigrationPhase, MigrationSpec
from lab.ready import context_of
from store.context import connect
from store.errors import AlreadyExists, NotFound, StoreError
from store.kv import KV
from store.store import Store
from tests.system.faults.harm import Ear, Harm
from tests.system.faults.judge import NAMESPACE, Judge
from tests.system.faults.plan import Trial
from tests.system.faults.site import Site

NEVER = "the moment never came"
PATIENCE = 90.0  # seconds for a move to be over, whatever happened to it
ATTEMPTS = 12
"""Some late moments are passed over when the other end, or the reconciler, is faster; then the move is made once more."""
BALLAST = 16 << 20
WITNESS = """
import itertools, os, pathlib, random, signal, sys, time
here = pathlib.Path("/shared/faults") / sys.argv[1]
out = os.open(here / "witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
ballast = random.randbytes(int(sys.argv[2]))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for number in itertools.count():
    os.write(out, b"%d\\n" % number)
    time.sleep(0.01)
    if (here / "exits").exists(): sys.exit(7)
    if (here / "forks").exists() and os.fork() == 0: time.sleep(random.random() / 5); os._exit(0)
"""

R = TypeVar("R")


@dataclass
class Result:
    """What became of a trial."""

    trial: Trial
    struck: str
    phase: str
    message: str
    freeze_ms: float | None
    seconds: float
    complaints: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def line(self) -> str:
        """For people."""
        freeze = "-" if self.freeze_ms is None else f"{self.freeze_ms:.0f}ms"
        verdict = "BAD " + "; ".join(self.complaints) if self.complaints else "ok"
        return f"{verdict:3} {self.seconds:5.1f}s {self.trial.label} [{self.struck}] {self.phase} {freeze} {self.message}"


class Runner:
    """One lab's trials."""

    def __init__(self, site: Site, kv: KV, ear: Ear) -> None:
        self.site, self.kv, self.ear = site, kv, ear
        self.store = Store(kv)
        self.judge: Judge | None = None
        self._numbers = itertools.count(1)

    async def run(self, trial: Trial) -> Result:
        """One trial. Complaints are in the result; the next trial gets a job of its own when there are any."""
        job = await self._job()
        assert self.judge is not None
        source = job.status.node or ""
        (destination,) = [node for node in self.site.workers if node != source]
        harm = self.ear.harm = Harm(self.site, trial, self.judge.tag, source, destination)
        began = time.monotonic()
        name = await self._migrate(trial, job.name, destination)
        migration = await self._over(name)
        await harm.over()
        complaints = await self.judge.settled(trial, name)
        migration = await sure(lambda: self.store.get(Migration, name, NAMESPACE))
        self.ear.harm = None
        if not harm.struck:
            complaints.append(NEVER)
        ended = (await sure(lambda: self.store.get(Job, job.name, NAMESPACE))).status.phase in FINISHED
        if not ended:
            complaints += await self.judge.goes_on(trial)
        status = migration.status
        seconds = time.monotonic() - began
        result = Result(
            trial, harm.struck, status.phase, status.message, status.freeze_ms, seconds, complaints, harm.seen if complaints else []
        )
        if complaints not in ([], [NEVER]) or ended or trial.fault.startswith("job "):
            result.complaints += await self.clear()
        return result

    async def clear(self) -> list[str]:
        """Deletes the job; complaints when something of it stays."""
        if self.judge is None:
            return []
        judge, self.judge = self.judge, None
        with contextlib.suppress(NotFound):
            await sure(lambda: self.store.delete(Job, judge.job, NAMESPACE))
        return await judge.nothing_left()

    # --- inside ---

    async def _job(self) -> Job:
        """The one that runs, or a new one."""
        if self.judge is None:
            number = next(self._numbers)
            name, tag = f"w{number}", f"{self.site.name}-witness-{number}-"
            self.judge = Judge(self.site, self.kv, name, tag)
            (self.site.hidden / tag).mkdir()
            spec = JobSpec(command=["python3", "-c", WITNESS, tag, str(BALLAST)], workdir="/", termination_grace=0.5)
            with contextlib.suppress(AlreadyExists):
                await sure(lambda: self.store.create(Job(metadata=Metadata(name=name), spec=spec)))
        name = self.judge.job
        end = time.monotonic() + PATIENCE
        while True:
            job = await sure(lambda: self.store.get(Job, name, NAMESPACE))
            if job.status.phase == "Running" and (self.site.hidden / self.judge.tag / "witness").exists():
                return job
            assert time.monotonic() < end, f"job {name} does not run: {job.status}"
            await asyncio.sleep(0.05)

    async def _migrate(self, trial: Trial, job: str, to: str) -> str:
        name = f"m{next(self._numbers)}"
        spec = MigrationSpec(job=job, to=to, mode=MigrationMode(trial.mode), deadline=trial.deadline)
        with contextlib.suppress(AlreadyExists):
            await sure(lambda: self.store.create(Migration(metadata=Metadata(name=name), spec=spec)))
        return name

    async def _over(self, name: str) -> Migration:
        end = time.monotonic() + PATIENCE
        while True:
            migration = await sure(lambda: self.store.get(Migration, name, NAMESPACE))
            if migration.status.phase in (MigrationPhase.SUCCEEDED, MigrationPhase.FAILED) or time.monotonic() > end:
                return migration
            await asyncio.sleep(0.05)


async def sure(ask: Callable[[], Awaitable[R]]) -> R:
    """Repeats it while etcd does not answer: some faults make it so."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return await ask()
        except (AlreadyExists, NotFound):
            raise
        except StoreError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)


@asynccontextmanager
async def runner_in(site: Site) -> AsyncIterator[Runner]:
    """Enters the lab's network; so a process of its own for each lab."""
    kv = await connect(context_of(site.places), timeout=3.0)
    try:
        async with Ear(site) as ear:
            yield Runner(site, kv, ear)
    finally:
        await kv.close()


async def run_all(site: Site, trials: Sequence[Trial], tell: Callable[[Result], None]) -> list[Result]:
    """All trials, each told when it is over."""
    results = []
    async with runner_in(site) as runner:
        for trial in trials:
            for _ in range(ATTEMPTS):
                result = await runner.run(trial)
                if result.complaints != [NEVER]:
                    break  # struck, or something was wrong though nothing struck: that must not be tried away
            results.append(result)
            tell(result)
        left = await runner.clear()
        assert not left, left
    return results
