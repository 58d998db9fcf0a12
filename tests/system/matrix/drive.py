"""Runs all workloads in a lab at once and moves each three times there and back; prints what came of it as JSON.

    python -m tests.system.matrix.drive LAB [WORKLOAD...]

A process of its own, because it stays in the lab's network namespace.
"""

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from crds import keys
from crds.job import MIGRATABLE, Job, JobPhase
from crds.meta import Condition, Metadata, find_condition
from crds.migration import Migration, MigrationPhase, MigrationSpec
from lab.model import Places
from store import context
from store.errors import NotFound
from store.informer import Informer
from store.store import Store
from tests.system.matrix.workloads import WORKLOADS, Workload

NODES = ("n1", "n2")
HOPS = 6
AT_ONCE = 3
"""Moves at a time; all jobs run all the time."""
PATIENCE = 90.0
LOOK = 0.05


@dataclass
class Outcome:
    """What came of one workload."""

    name: str
    freezes: list[float] = field(default_factory=list)
    """Milliseconds, one for each move."""
    steps: int = 0
    """Numbers it said, all of them right."""
    condition: str = ""
    """Status, reason and message of Migratable before the first move."""
    refused: str = ""
    """Why the move was refused, of what cannot be moved."""
    error: str = ""
    """What went wrong; empty when nothing did."""


class Wrong(Exception):  # noqa: N818 - named after what happened
    """Something is not as it has to be."""


class Drive:
    """One workload on its way."""

    def __init__(self, workload: Workload, store: Store, informer: Informer, shared: Path, turn: asyncio.Semaphore) -> None:
        self.workload, self.store, self.informer, self.shared, self.turn = workload, store, informer, shared, turn
        self.outcome = Outcome(workload.name)
        self.uid = ""

    async def run(self) -> Outcome:
        """From its start to its end."""
        try:
            await self._whole()
        except (Wrong, TimeoutError) as error:
            self.outcome.error = f"{error or 'too slow'}; it said: {self._text()[-200:]!r}"
        except Exception:  # noqa: BLE001 - a result like any other; the test shows it
            self.outcome.error = traceback.format_exc()
        finally:
            with suppress(Exception):
                await self.store.delete(Job, self.workload.name)
        return self.outcome

    async def _whole(self) -> None:
        job = Job.model_validate({"metadata": {"name": self.workload.name}, "spec": self.workload.job()})
        job.spec.placement.node = NODES[0]
        job.spec.termination_grace = 0.1
        made = await self.store.create(job)
        self.uid = made.metadata.uid or ""
        await self._until(lambda: self._job().status.phase == JobPhase.RUNNING, "it to run")
        await self._goes_on(3)
        await self._until(lambda: self._condition() is not None, "its condition Migratable")
        await self._until(lambda: self._foreseen(), f"the condition to say {self.workload.obstacle or 'yes'}")
        found = self._condition()
        self.outcome.condition = f"{found.status} {found.reason}: {found.message}" if found else ""
        if self.workload.obstacle:
            self.outcome.refused = (await self._move(0)).status.message
            await self._goes_on(2)
            return
        for hop in range(HOPS):
            async with self.turn:
                moved = await self._move(hop)
            if moved.status.phase != MigrationPhase.SUCCEEDED:
                raise Wrong(f"move {hop + 1}: {moved.status.message}")
            self.outcome.freezes.append(round(moved.status.freeze_ms or 0.0, 1))
            await self._goes_on(2)

    def _foreseen(self) -> bool:
        found = self._condition()
        return found is not None and (found.reason == self.workload.obstacle if self.workload.obstacle else found.status == "True")

    async def _move(self, hop: int) -> Migration:
        name = f"{self.workload.name}-{hop}"
        spec = MigrationSpec(job=self.workload.name, to=NODES[(hop + 1) % 2])
        await self.store.create(Migration(metadata=Metadata(name=name), spec=spec))
        over = (MigrationPhase.SUCCEEDED, MigrationPhase.FAILED)
        await self._until(lambda: self.informer.get(Migration, name).status.phase in over, f"move {hop + 1} to be over")
        return self.informer.get(Migration, name)

    async def _goes_on(self, more: int) -> None:
        wanted = self._numbers() + more
        await self._until(lambda: self._numbers() >= wanted, f"step {wanted}")
        self.outcome.steps = self._numbers()

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            with suppress(NotFound):  # not seen yet
                if condition():
                    return
            if time.monotonic() > end:
                raise Wrong(f"waited {PATIENCE:g} s for {what}: {self._state()}")
            await asyncio.sleep(LOOK)

    def _job(self) -> Job:
        return self.informer.get(Job, self.workload.name)

    def _state(self) -> str:
        status = self._job().status
        return f"{status.phase} on {status.node}, exit code {status.exit_code}, {status.message}; {self._condition()}"

    def _condition(self) -> Condition | None:
        return find_condition(self._job().status.conditions, MIGRATABLE)

    def _text(self) -> str:
        log = self.shared / ".mx/jobs/default" / f"{self.workload.name}-{self.uid[:8]}" / "output.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def _numbers(self) -> int:
        """How many steps it has said; Wrong when they are not 0, 1, 2, …"""
        text = self._text().replace("\r", "")
        lines = text[: text.rfind("\n") + 1].split()
        if lines != [str(number) for number in range(len(lines))]:
            raise Wrong("its numbers are not 0, 1, 2, …")
        return len(lines)


async def drive(lab: str, workloads: Sequence[Workload]) -> list[Outcome]:
    """All at once."""
    kv = await context.connect(context.current(f"lab-{lab}"))
    informer = Informer(kv, keys.OBJECTS)
    watching = asyncio.create_task(informer.run())
    turn, shared = asyncio.Semaphore(AT_ONCE), Places(lab).shared
    try:
        await informer.synced.wait()
        runs: list[Awaitable[Outcome]] = [Drive(each, Store(kv), informer, shared, turn).run() for each in workloads]
        return list(await asyncio.gather(*runs))
    finally:
        watching.cancel()
        await kv.close()


def main(lab: str, *names: str) -> None:
    """Prints one JSON list."""
    chosen = [each for each in WORKLOADS if not names or each.name in names]
    print(json.dumps([asdict(outcome) for outcome in asyncio.run(drive(lab, chosen))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
