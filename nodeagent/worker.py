"""One worker for each job that this node has to do with: looks at everything anew, does the one thing to do, says how it stands.

A move is an *activity*: a task beside the worker, which so stays able to see that its placement changed and to call it off. When an
activity ends, however it ends, the record tells the next turn what to do; there is no other clean-up than that.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from crds.balancepolicy import TimeSharing
from crds.job import Fencing
from crds.placement import Placement, Role
from crds.report import ENDED, JobReport, ReportPhase
from crds.states import SourceStep
from nodeagent import checkpoint, jobs, moves, revive
from nodeagent.arrive import go, receive_job, refuse
from nodeagent.case import Case, Parts, one_line
from nodeagent.checkpoint import is_due
from nodeagent.decide import Do, View, decide, decide_offline, guarded, needs_life
from nodeagent.engine import Copy
from nodeagent.errors import AgentError
from nodeagent.jobs import Placed
from nodeagent.journal import HERE, RUNS_HERE, Record, Stage
from store.errors import StoreError

log = logging.getLogger(__name__)

EXPECTED = (AgentError, StoreError, OSError, TimeoutError, ValidationError)
"""What may go wrong with one job without being a defect of the agent: said, and tried again."""

NOTICEABLE = 0.1  # share by which a figure must have changed to be reported again
LEAST_SECONDS, LEAST_BYTES = 1.0, 1 << 20  # and at least this much

OFTEN = 2.0
"""Seconds between two looks at a job that something keeps from being moved, or that nobody has looked at yet."""
SELDOM = 60.0
"""Seconds between two looks at a job that nothing keeps and that has not run since."""

RESTARTED = "the agent was restarted in the middle of the move"


class Worker:
    """Runs until there is nothing to do for its job. ``placed`` reads the placement as known now; ValidationError when broken."""

    def __init__(
        self, key: str, parts: Parts, record: Record | None, leftovers: Sequence[Copy], placed: Callable[[], Placed | None]
    ) -> None:
        self.key = key
        self._parts = parts
        self._record = record
        self._leftovers = tuple(leftovers)
        self._placed = placed
        self._wake = asyncio.Event()
        self._case: Case | None = None
        self._activity: asyncio.Task[None] | None = None
        self._acting_on: tuple[str, int, int, Role, str] | None = None
        self._shown: tuple[float, int] = (0.0, 0)
        self._told = ""
        self._looked = 0.0
        self._looked_at: float | None = None
        """CPU seconds that it had then."""
        self._promise: float | None = None

    def wake(self) -> None:
        """Something may have changed."""
        self._wake.set()

    @property
    def woken(self) -> bool:
        """Whether that was not looked at yet."""
        return self._wake.is_set()

    @property
    def case(self) -> Case | None:
        """None before it runs."""
        return self._case

    async def run(self, ready: asyncio.Event) -> None:
        """First what needs no etcd; from ``ready`` on, everything."""
        async with asyncio.TaskGroup() as group:
            self._case = case = Case(self.key, self._parts, self._record, group, self.wake)
            self._group = group
            await self._replay(case)
            await ready.wait()
            await self._until_nothing(case)
            case.release()

    async def _until_nothing(self, case: Case) -> None:
        failures = 0
        while True:
            self._wake.clear()
            timing = self._parts.config.timing
            pause = None
            try:
                if await self._turn(case) == Do.NOTHING and not self._wake.is_set():
                    return
                failures = 0
            except EXPECTED as error:
                pause = min(timing.retry_first * 2**failures, timing.retry_most)
                failures = min(failures + 1, 10)
                self._tell(f"job {self.key}: {one_line(error)}; trying again")
            await self._sleep(pause)

    async def _sleep(self, pause: float | None) -> None:
        """Until woken; after a failure that is not worth a thing before the pause is over, unless the placement changed."""
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _replay(self, case: Case) -> None:
        """What a dead agent left half-done and needs no placement: a job must not stand still because etcd does."""
        if case.record is None:
            return
        what = decide_offline(case.record)
        try:
            if what == Do.HOLD:
                await jobs.hold(case, None)
            elif what == Do.RESUME:
                await moves.resume(case, None, RESTARTED)
            elif what == Do.GO:
                await go(case)
        except EXPECTED as error:
            log.error("job %s: %s was not replayed, it is tried again: %s", self.key, what, one_line(error))

    async def _turn(self, case: Case) -> Do:
        """Looks, decides, acts, reports."""
        placed = self._placed()
        if placed is not None:
            case.aged = placed.placement.time_sharing == TimeSharing.AGED
        if self._activity is not None and not self._still_wanted(case, placed):
            await self._end_activity(case, placed)
        what = decide(self._view(case, placed))
        if what != Do.REBUILD:  # which has to find the copy first
            await self._remove_strays(case)
        failure: Exception | None = None
        try:
            await self._act(case, what, placed)
            if placed is not None and what in (Do.HOLD, Do.KEEP):
                await checkpoint.discard(case, placed.placement.discard)
        except EXPECTED as error:
            failure = error
        await self._tell_all(case, placed)  # also after a failure, but not after a cancellation: its own error would hide that
        if failure is not None:
            raise failure
        return what

    def _view(self, case: Case, placed: Placed | None) -> View:
        stored = self._parts.ledger.stored(self.key)
        placement = placed.placement if placed else None
        reported, life = "", 0
        if case.record is None and stored is not None:
            reported = stored.report.uid if stored.report else placement.uid if placement else "unreadable"
            life = stored.report.life if stored.report else placement.life if placement else 0
        elif case.record is None and self.key in self._parts.ledger.known() and placement is None:
            reported = "claim only"
        return View(
            placement,
            case.record,
            reported,
            life,
            ended=case.exit is not None,
            failed=bool(case.failure),
            fenced=case.fenced,
            busy=self._activity is not None,
            checkpoint_due=placement is not None and case.record is not None and is_due(placement, case.record.report),
        )

    async def _act(self, case: Case, what: Do, placed: Placed | None) -> None:
        if placed is not None and what in _PLACED:
            await _PLACED[what](case, placed)
        elif what in _ALONE:
            await _ALONE[what](case)
        elif what in _ANYHOW:
            await _ANYHOW[what](case, placed)
        elif what == Do.RESUME:
            await moves.resume(case, placed, case.failure or self._why_resumed(case, placed))
        elif what == Do.REFUSE:
            await refuse(case, case.failure or RESTARTED)
        elif what in _ACTIVITIES:
            assert placed is not None
            self._begin(case, placed.placement, _ACTIVITIES[what](case, placed))
        elif what == Do.CONTRADICTION:
            role = placed.placement.role if placed else "none"
            self._tell(f"job {self.key}: placement {role} contradicts {case.held.step} of epoch {case.held.epoch}: left as it is")

    def _why_resumed(self, case: Case, placed: Placed | None) -> str:
        return "the move was called off" if placed and placed.placement.epoch != case.held.epoch else RESTARTED

    # --- activities ---

    def _begin(self, case: Case, placement: Placement, work: Coroutine[Any, Any, None]) -> None:
        self._acting_on = _identity(placement)
        self._activity = self._group.create_task(self._run_activity(case, work), name=f"activity of {self.key}")

    async def _run_activity(self, case: Case, work: Awaitable[None]) -> None:
        try:
            await work
        except EXPECTED as error:
            case.failure = one_line(error)
            log.warning("job %s: what was under way stopped at %s: %s", self.key, case.held.step, case.failure)
        self._activity = None
        self.wake()

    def _still_wanted(self, case: Case, placed: Placed | None) -> bool:
        if placed is None:
            return False
        if case.exit is not None and (case.held.at in RUNS_HERE or case.held.at in (SourceStep.CONNECTING, SourceStep.FREEZING)):
            return False  # it ended before it could be frozen, or before it was here as a whole
        return self._acting_on == _identity(placed.placement)

    async def _end_activity(self, case: Case, placed: Placed | None) -> None:
        """It is not wanted any more. criu cannot give up while the job is fenced: it is let go on, or all of the copy is killed."""
        if case.fenced and case.sandbox is not None:
            if needs_life(replace(self._view(case, placed), busy=False)):
                await jobs.thaw(case, placed)
            else:
                await case.sandbox.kill()
        await self._call_off()

    async def _call_off(self) -> None:
        activity, self._activity = self._activity, None
        if activity is not None:
            activity.cancel()
            await asyncio.wait({activity})

    # --- what is said ---

    async def _tell_all(self, case: Case, placed: Placed | None) -> None:
        """The guard, and etcd. A promise is made after the guard can keep it, and it is taken back before that changes."""
        wish = guarded(case.record, placed.placement.fencing) if case.record and placed else None
        if wish is None:
            await self._publish(case)
            return
        if wish != Fencing.KEEP:
            await case.obey(wish)
        self._promise = None if wish == Fencing.KEEP else self._parts.fence.promise
        await self._publish(case)
        if wish == Fencing.KEEP:
            await case.obey(wish)

    async def _publish(self, case: Case) -> None:
        """Makes etcd say what the record says. An intent to start is written by its own action only."""
        async with case.telling:
            record = case.record
            if record is not None and record.report is not None and record.at not in (Stage.START, Stage.STARTING):
                report = self._with_usage(case, record.report)
                if report.phase not in (*ENDED, ReportPhase.LEFT, ReportPhase.ABSENT):
                    report = report.model_copy(update={"fenced_after": self._promise})
                await self._parts.ledger.put(self.key, report)

    def _with_usage(self, case: Case, report: JobReport) -> JobReport:
        """The report with what was used, when that changed noticeably: not every look is worth a write."""
        if case.held.at not in RUNS_HERE:
            return report
        if case.obstacles is not None:
            report = report.model_copy(update={"obstacles": case.obstacles, "files": case.files})
        if case.usage is None:
            return report
        if self._noticeable(case):
            self._shown = (case.cpu_seconds, case.usage.memory)
        return report.model_copy(update={"cpu_seconds": max(self._shown[0], report.cpu_seconds), "memory": self._shown[1]})

    async def look_at_fence(self) -> None:
        """Sees whether its copy stands still, and whether the promise holds that was made for it."""
        if self._case is None:
            return
        try:
            await self._case.look_at_fence()
        except AgentError as error:
            self._tell(f"job {self.key}: not known whether it stands still: {one_line(error)}")
        if self._promise is not None and self._promise != self._parts.fence.promise:
            self.wake()

    def _noticeable(self, case: Case) -> bool:
        """Whether what it used differs from what was told by so much that it is to be told."""
        if case.usage is None:
            return False
        cpu, memory = case.cpu_seconds, case.usage.memory
        old_cpu, old_memory = self._shown
        more_cpu = abs(cpu - old_cpu) >= max(LEAST_SECONDS, NOTICEABLE * old_cpu)
        return more_cpu or abs(memory - old_memory) >= max(LEAST_BYTES, NOTICEABLE * old_memory)

    async def look(self) -> None:
        """Sees what the job uses; the worker then tells if that is worth it."""
        if self._case is not None and self._case.record is not None and self._case.record.at in RUNS_HERE:
            await self._case.measure()
            if self._noticeable(self._case):
                self.wake()

    async def look_for_obstacles(self, every: float) -> None:
        """Sees what would keep the job from being moved: ``every`` so many seconds, and oftener while something does."""
        case, now = self._case, self._parts.clock.monotonic()
        if case is None or case.record is None or case.record.at not in HERE or case.exit is not None:
            return
        asked = self._parts.compares() != (case.files is not None)
        used = case.usage.cpu_seconds if case.usage else None
        good = case.obstacles == [] and not asked
        still = good and used is not None and used == self._looked_at  # who has not run has opened nothing
        if now - self._looked < (SELDOM if still else every if good else OFTEN):
            return
        known = case.obstacles, case.files
        self._looked, self._looked_at = now, used
        await case.look_for_obstacles(thorough=False)
        if (case.obstacles, case.files) != known:
            self.wake()

    async def _remove_strays(self, case: Case) -> None:
        """Copies that a former life left and no record names."""
        while self._leftovers:
            copy = self._leftovers[0]
            if case.record is None or copy != case.record.copy_here:
                log.warning("job %s: removing a copy of epoch %d that nothing names", self.key, copy.epoch)
                await self._parts.engine.forget(copy)
            self._leftovers = self._leftovers[1:]

    def _tell(self, message: str) -> None:
        """Once, until it is another message."""
        if message != self._told:
            log.warning("%s", message)
        self._told = message


def _identity(placement: Placement) -> tuple[str, int, int, Role, str]:
    """An activity is for one of these: when it is another one, it is called off."""
    order = placement.checkpoint.name if placement.checkpoint else ""
    return placement.uid, placement.life, placement.epoch, placement.role, order


_ACTIVITIES: dict[Do, Callable[[Case, Placed], Coroutine[Any, Any, None]]] = {
    Do.SEND: lambda case, _: moves.send(case),
    Do.SERVE: lambda case, _: moves.serve(case),
    Do.RECEIVE: lambda case, _: receive_job(case),
    Do.FETCH: lambda case, _: moves.fetch(case),
    Do.CHECKPOINT: checkpoint.take,
    Do.RESTORE: revive.restore_job,
}
_PLACED: dict[Do, Callable[[Case, Placed], Awaitable[None]]] = {
    Do.START: jobs.start,
    Do.REBUILD: moves.rebuild,
    Do.INHERIT: jobs.inherit,
    Do.KEEP: jobs.keep,
    Do.LOSE: jobs.lose,
    Do.LEAVE: moves.begin_leaving,
    Do.PREPARE: moves.prepare,
    Do.REVIVE: revive.begin_restoring,
}
_ANYHOW: dict[Do, Callable[[Case, Placed | None], Awaitable[None]]] = {
    Do.HOLD: jobs.hold,
    Do.END: jobs.end,
    Do.THAW: jobs.thaw,
}
_ALONE: dict[Do, Callable[[Case], Awaitable[None]]] = {
    Do.CLEAR: jobs.clear,
    Do.STOP: jobs.stop,
    Do.LEFT: moves.left,
    Do.ASK: moves.ask,
    Do.GO: go,
    Do.FORGET: moves.forget,
}
