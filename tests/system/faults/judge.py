"""Whether everything is as it must be after a trial: a list of complaints, empty when all is well."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from crds import keys
from crds.job import FINISHED, Job
from crds.migration import Migration, MigrationPhase
from store.errors import NotFound, StoreError
from store.kv import KV
from store.store import Store
from tests.system.faults.plan import Trial
from tests.system.faults.site import Site

PATIENCE = 45.0  # seconds for everything to settle
NAMESPACE = "default"
ENDS = {"job exits": (7,), "kill job": (137,)}
"""Faults that may end the job, and how it then ends."""
SEVERING = (
    "kill source criu",
    "kill destination criu",
    "stop source criu",
    "stop destination criu",
    "cut",
    "half-open",
    "kill job",
)
"""Faults in which the memory of a job that was moved by post-copy may get lost: then it must say so."""
LOST_MEMORY = "its memory was to follow it"


@dataclass(frozen=True, slots=True)
class Judge:
    """Of one job in one lab."""

    site: Site
    kv: KV
    job: str
    tag: str

    async def settled(self, trial: Trial, migration: str, patience: float = PATIENCE) -> list[str]:
        """Complaints that do not go away; sees to it that the job really goes on, or that nothing is left of it."""
        complaints = await self._until_none(lambda: self._complaints(trial, migration), patience)
        return complaints or self._witness()

    async def goes_on(self, trial: Trial | None = None, numbers: int = 5) -> list[str]:
        """The witness counts on, or ends after all if the fault was that it ends: it may have been told to just now."""
        wanted = len(self._numbers()) + numbers

        async def counts() -> list[str]:
            found = len(self._numbers())
            if found >= wanted:
                return []
            job = await Store(self.kv).get(Job, self.job, NAMESPACE)
            if trial is not None and trial.fault in ENDS and job.status.phase in FINISHED:
                return self._of_ended(job, trial)
            return [f"the job stands at {found}, and is {job.status.phase}"]

        return await self._until_none(counts, PATIENCE) or self._witness()

    async def nothing_left(self) -> list[str]:
        """After the job was deleted."""

        async def left() -> list[str]:
            found = [f"{node}: {what}" for node in self.site.workers for what in self._lying_about(node, set())]
            found += [f"{node} {group}: processes {pids}" for (node, group), pids in self.site.copies(self.tag).items()]
            found += [f"key {key}" for key in await self._keys()]
            directory = self.site.places.shared / f".mx/jobs/{NAMESPACE}"
            found += [f"{path} is left" for path in directory.glob(f"{self.job}-*")]
            return found

        return await self._until_none(left, PATIENCE)

    async def _until_none(self, look: Callable[[], Awaitable[list[str]]], patience: float) -> list[str]:
        end = time.monotonic() + patience
        while True:
            try:
                found = await look()
            except (StoreError, FileNotFoundError, ProcessLookupError) as error:
                found = [f"cannot look: {error}"]
            if not found or time.monotonic() > end:
                return found
            await asyncio.sleep(0.1)

    # --- one look ---

    async def _complaints(self, trial: Trial, name: str) -> list[str]:
        store = Store(self.kv)
        migration = await store.get(Migration, name, NAMESPACE)
        try:
            job = await store.get(Job, self.job, NAMESPACE)
        except NotFound:
            return ["the job's object is gone"]
        found = self._of_migration(migration, job)
        if job.status.phase in FINISHED:
            return found + self._of_ended(job, trial)
        return found + await self._of_running(job)

    def _of_migration(self, migration: Migration, job: Job) -> list[str]:
        status, found = migration.status, []
        if status.phase not in (MigrationPhase.SUCCEEDED, MigrationPhase.FAILED):
            return [f"migration is {status.phase}: {status.message}"]
        if status.phase == MigrationPhase.FAILED and not status.message:
            found.append("migration failed without a message")
        if "\n" in status.message:
            found.append(f"migration's message has several lines: {status.message!r}")
        if status.source is None:
            return found  # it was refused before it began: there was no room for it, say
        at = status.destination if status.phase == MigrationPhase.SUCCEEDED else status.source
        if job.status.node != at:
            found.append(f"migration {status.phase}, so the job should be on {at}, but is on {job.status.node}")
        return found

    def _of_ended(self, job: Job, trial: Trial) -> list[str]:
        allowed = job.status.exit_code in ENDS.get(trial.fault, ())
        severed = trial.mode == "post-copy" and trial.fault.startswith(SEVERING) and LOST_MEMORY in job.status.message
        found = [] if allowed or severed else [f"job {job.status.phase} {job.status.exit_code}: {job.status.message}"]
        copies = self.site.copies(self.tag)
        return found + ([f"the job has ended, but there is {copies}"] if copies else [])

    async def _of_running(self, job: Job) -> list[str]:
        found = [] if job.status.phase == "Running" else [f"job is {job.status.phase}: {job.status.message}"]
        node, copies = job.status.node or "", self.site.copies(self.tag)
        if [key[0] for key in copies] != [node]:
            found.append(f"job is on {node}, its copies: {copies}")
        found += [f"{key}: process {pid} is stopped" for key, pids in copies.items() for pid in pids if self.site.stopped(pid)]
        for worker in self.site.workers:
            groups = {group for there, group in copies if there == worker}
            found += [f"{worker}: {what}" for what in self._lying_about(worker, groups)]
        expected = {keys.report(node, NAMESPACE, self.job), keys.placement(node, NAMESPACE, self.job)}
        there = await self._keys()
        if set(there) != expected:
            found.append(f"keys {sorted(there)} instead of {sorted(expected)}")
        phase = there.get(keys.report(node, NAMESPACE, self.job), {}).get("phase")
        role = there.get(keys.placement(node, NAMESPACE, self.job), {}).get("role")
        if (phase, role) != ("Running", "run"):
            found.append(f"report says {phase}, placement {role}")
        return found

    def _lying_about(self, node: str, groups: set[str]) -> list[str]:
        site = self.site
        found = []
        if set(site.groups(node)) != groups:
            found.append(f"control groups {site.groups(node)} instead of {sorted(groups)}")
        copies = site.names(node, "/run/mx/copies")
        if {name.rpartition("_")[0] for name in copies} != groups:
            found.append(f"copies {copies} instead of {sorted(groups)}")
        if images := site.names(node, "/run/mx/images"):
            found.append(f"images {images}")
        if criu := site.criu(node):
            found.append(f"criu runs: {criu}")
        journal = site.names(node, "/var/lib/mx/agent/journal")
        if len(journal) != len(groups):
            found.append(f"journal {journal} with groups {sorted(groups)}")
        if mounts := site.new_mounts(node):
            found.append(f"mounts {mounts}")
        return found

    async def _keys(self) -> dict[str, dict[str, object]]:
        """Reports, claims and placements of the job."""
        found = {}
        for prefix in (*(keys.node_prefix(node) for node in self.site.workers), keys.PLACEMENTS):
            for kv in (await self.kv.list(prefix)).items:
                if kv.key.endswith(f"/{NAMESPACE}/{self.job}"):
                    found[kv.key] = json.loads(kv.value)
        return found

    # --- the witness ---

    def _numbers(self) -> list[str]:
        text = (self.site.hidden / self.tag / "witness").read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1].splitlines()

    def _witness(self) -> list[str]:
        lines = self._numbers()
        wrong = next((at for at, line in enumerate(lines) if line != str(at)), None)
        if wrong is None:
            return []
        return [f"witness: line {wrong} of {len(lines)} is {lines[wrong]!r}, before it {lines[max(0, wrong - 3) : wrong]}"]
