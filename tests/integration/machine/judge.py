"""What must hold after everything that happens, and what must hold when nothing goes wrong any more."""

import asyncio
import shutil

from hypothesis import note
from hypothesis.stateful import invariant

from crds import keys
from crds.job import FINISHED, Job, JobPhase
from crds.migration import Migration, MigrationPhase
from crds.node import Node
from store.kv import KeyValue
from tests.integration.machine.base import Base

HEALING = 150.0
"""Seconds after the last fault in which everything must have come to rest."""
SETTLING = 60.0
"""Seconds before the first look: what is to end by itself, or is looked at now and then only, has its time."""
LOOK = 10.0
"""Seconds between two looks whether it has."""
LOOKS = 4  # one more than there are jobs
REST = 40.0
"""Seconds after that in which nothing is written; more than any daemon lets pass between two looks at everything."""


def _is_history(kv: KeyValue) -> bool:
    return kv.key.startswith(keys.kind_prefix(Migration)) and b'"finishedAt":"' in kv.value


class Judged(Base):
    """A cluster that is looked at after each step."""

    # --- what must hold ---

    @invariant()
    def one_copy(self) -> None:
        Base.steps += 1
        world = self.cluster.world
        for uid in {copy.uid for _, copy in world.shims}:
            assert world.most_running(uid) <= 1, f"two copies of {uid} ran at once"
            assert world.starts[uid] <= 1 or uid in self.restartable, f"{uid} was started twice"
        for copy, times in world.begun.items():
            assert times <= 1, f"{copy} was started twice"

    @invariant()
    def none_lost(self) -> None:
        world = self.cluster.world
        for uid, times in world.starts.items():
            if times and not self._may_be_gone(uid) and not world.exits[uid]:
                assert world.copies(uid), f"{uid} is lost"

    def _may_be_gone(self, uid: str) -> bool:
        return uid in self.excused or uid in self.restartable or uid in self.cluster.world.killed

    @invariant()
    def no_daemon_ended(self) -> None:
        for machine in self.cluster.machines.values():
            if machine.task is not None and machine.task.done():
                self.cluster.judge_end(machine.task)
        for each in self.cluster.candidates:
            if each.task.done():
                self.cluster.judge_end(each.task)
        assert not self.cluster.defects, self.cluster.defects

    # --- the end ---

    def teardown(self) -> None:
        try:
            self.do(self._heal())
            self._converge()
            self.do(self._rests())
            self.do(self._judge())
            self.do(self._count())
        except AssertionError:
            note(self.do(self._picture()))
            raise
        finally:
            self.do(self.cluster.close())
            self.loop.close()
            shutil.rmtree(self.root, ignore_errors=True)

    async def _heal(self) -> None:
        """Nothing goes wrong any more."""
        self.traffic.cancel()
        await self.mend()
        self.over = True
        for kv in self.clients("all"):
            kv._faults.clear()
        for machine in self.cluster.machines.values():
            machine.knobs.errors.clear()
            machine.knobs.delay.clear()
        for each in self.cluster.candidates:
            each.life.left = None

    def _converge(self) -> None:
        """Looks until everything is as it has to be, for as long as that may take."""
        end = self.loop.time() + HEALING
        self.do(asyncio.sleep(SETTLING))
        while True:
            self.do(asyncio.sleep(LOOK))
            self.one_copy()
            self.none_lost()
            self.no_daemon_ended()
            try:
                return self.do(self._judge())
            except AssertionError:
                if self.loop.time() > end:
                    raise

    async def _judge(self) -> None:
        store, world = self.cluster.store, self.cluster.world
        for migration in (await store.list(Migration)).items:
            phase = migration.status.phase
            assert phase in (MigrationPhase.SUCCEEDED, MigrationPhase.FAILED), (
                f"{migration.name} is {phase}: {migration.status.message}"
            )
            assert phase == MigrationPhase.SUCCEEDED or migration.status.message, f"{migration.name} failed without a message"
        found = {job.metadata.uid or "": job for job in (await store.list(Job)).items}
        for uid, job in found.items():
            self._judge_job(uid, job)
        for shim in world.shims.values():
            assert shim.copy.uid in found, f"{shim.copy} is left on {shim.node}"
            assert not (shim.job and (shim.job.stopped or shim.fenced)), f"{shim.copy} stands frozen on {shim.node}"
            assert not (shim.runs and shim.job and shim.job.steps[0][0] == "sleep"), f"{shim.copy} is yet to end"
            assert not shim.severed, f"what served the memory of {shim.copy} is left on {shim.node}"
        for machine in self.cluster.machines.values():
            assert not machine.images, f"images are left: {machine.images}"
        known = {f"{job.name}-{uid[:8]}" for uid, job in found.items()}
        left = {path.name for path in self.cluster.shared.glob(".mx/jobs/default/*")} - known
        assert not left, f"directories of jobs that are gone are left: {left}"
        await self._judge_keys(found)

    def _judge_job(self, uid: str, job: Job) -> None:
        world, status = self.cluster.world, job.status
        running = world.running(uid)
        assert job.metadata.deletion_timestamp is None, f"{job.name} is still being deleted: {status.message}"
        if status.phase in FINISHED:
            assert not running, f"{job.name} is {status.phase} and runs on {running}"
            # one of which only the intent to start it was written is never started: that, too, is told
            if not self._may_be_gone(uid) and world.starts[uid] and status.exit_code not in (126, 127):
                assert status.exit_code in world.exits[uid], (
                    f"{job.name}: {status.exit_code}, {status.message}, really {world.exits[uid]}"
                )
        else:
            assert status.phase == JobPhase.RUNNING, f"{job.name} is {status.phase}: {status.message}"
            assert running == [status.node], f"{job.name} is said to be on {status.node}, and runs on {running}"

    async def _count(self) -> None:
        for migration in (await self.cluster.store.list(Migration)).items:
            Base.moved += migration.status.phase == MigrationPhase.SUCCEEDED
            if migration.status.started_at is not None:
                self.counted[f"{migration.status.mode} {migration.status.phase}"] += 1
                self.counted["taken back"] += "goes on at node/" in migration.status.message

    async def _picture(self) -> str:
        """For whoever has to find out why."""
        lines = [f"time {self.loop.time():.1f}"]
        ignored = (keys.EVENTS, keys.kind_prefix(Node))
        lines += [
            f"{kv.key} {kv.value.decode()}"
            for kv in (await self.cluster.kv.list(keys.ROOT)).items
            if not kv.key.startswith(ignored) and not kv.key.endswith(("/load", "/alive")) and not _is_history(kv)
        ]
        lines += [
            f"{shim.node} {copy} runs={shim.runs} alive={shim.alive} exit={shim.exit}"
            for (_, copy), shim in self.cluster.world.shims.items()
        ]
        for machine in self.cluster.machines.values():
            lines += [f"{path}: {path.read_text().splitlines()[-1]}" for path in machine.config.journal.glob("*")]
        return "\n".join(lines)

    async def _judge_keys(self, found: dict[str, Job]) -> None:
        names = {f"default/{job.name}": job for job in found.values()}
        for prefix in (keys.PLACEMENTS, keys.NODES):
            for kv in (await self.cluster.kv.list(prefix)).items:
                parts = keys.parts(kv.key)
                if prefix == keys.NODES and parts[2] in ("alive", "load"):
                    continue
                job = names.get("/".join(parts[-2:]))
                assert job is not None and parts[1] == job.status.node, f"{kv.key} is left"
                assert "claims" not in parts, f"{kv.key} is left"

    async def _rests(self) -> None:
        """Nothing is written when nothing changes, but the load, and in the nodes' status that they are there.

        The time of a job may just be over; then it is looked at once more, for every job that has an end."""
        changed: set[str] = set()
        for _ in range(LOOKS):
            before = await self._written()
            await asyncio.sleep(REST)
            after = await self._written()
            changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
            if not changed:
                break
        assert not changed, f"written without a reason: {changed}"

    async def _written(self) -> dict[str, int]:
        items = (await self.cluster.kv.list(keys.ROOT)).items
        ignored = (keys.EVENTS, keys.kind_prefix(Node))
        return {kv.key: kv.mod_revision for kv in items if not kv.key.endswith("/load") and not kv.key.startswith(ignored)}
