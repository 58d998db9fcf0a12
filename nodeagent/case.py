"""Everything at hand about one job on this node: its record, its sandbox, how it ended, what it used; and the agent's parts.

The record changes only by ``advance``, which makes it durable first. What is in memory only a restarted agent can find again.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from crds.job import Fencing
from crds.report import JobReport, MoveReport, Obstacle, ReportPhase
from nodeagent.clock import Clock
from nodeagent.config import Config
from nodeagent.engine import Copy, Engine, Exit, Sandbox, Usage
from nodeagent.errors import AgentError, SandboxGone
from nodeagent.exchange import Exchange
from nodeagent.fence import Fence
from nodeagent.hooks import Hooks
from nodeagent.jobdir import job_directory, remove_tree
from nodeagent.journal import Journal, Record, Step, check_step
from nodeagent.ledger import Ledger
from nodeagent.pages import Pages
from nodeagent.space import Room, image_name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What all jobs of an agent share."""

    config: Config
    boot_id: str
    engine: Engine
    journal: Journal
    ledger: Ledger
    exchange: Exchange
    pages: Pages
    fence: Fence
    hooks: Hooks
    disk: Executor
    """Threads for the journal; nothing else may keep them busy."""
    copies: Executor
    """Threads that copy checkpoints to and from the shared file system, which may be slow."""
    room: Room
    """Memory for moves and checkpoints, promised before a job is frozen."""
    clock: Clock
    compares: Callable[[], bool] = lambda: False
    """Whether somebody wants to know which files of the node jobs have mapped."""


class Case:
    """One job. ``changed`` is called when something was learnt that may call for action; ``group`` holds its tasks."""

    def __init__(
        self, key: str, parts: Parts, record: Record | None, group: asyncio.TaskGroup, changed: Callable[[], None]
    ) -> None:
        self._group = group
        self.key = key
        self.parts = parts
        self.record = record
        self.sandbox: Sandbox | None = None
        self.exit: Exit | SandboxGone | None = None
        self.failure = ""
        """Why the activity that was under way ended; in one line."""
        self.usage: Usage | None = None
        self.obstacles: list[Obstacle] | None = None
        """What would keep it from being moved; None while nobody has looked."""
        self.files: list[str] | None = None
        """Those of the node that it has mapped, when somebody wants to know."""
        self.intent = False
        """This life of the agent wrote the intent to start (or tried to), and has not started it yet."""
        self.checked = False
        """Seen to be unfrozen since it was adopted or resumed."""
        self.fenced = False
        """It stands still because the node lost touch, as far as was seen."""
        self.obeys: Fencing | None = None
        """What the guard was told to do with the copy; None when that is not known."""
        self.aged = False
        """It shares the node's CPU with other jobs by age, as its placement says."""
        self.tidied = False
        """What an ended, left or refused copy left behind is gone."""
        self.telling = asyncio.Lock()
        """Held while the report in etcd and the record are made to agree."""
        self.changed = changed
        self._watch: asyncio.Task[None] | None = None

    # --- the record ---

    @property
    def held(self) -> Record:
        """The record of a job that has one."""
        assert self.record is not None, f"job {self.key} has no record"
        return self.record

    async def advance(self, step: Step, **changes: Any) -> Record:
        """Makes the step durable, with the record's other ``changes``; returns the record. Raises JournalBroken, OSError."""
        old = self.held
        check_step(old, step)
        return await self.begin(old.model_copy(update={"step": str(step), **changes}))

    async def begin(self, record: Record) -> Record:
        """Makes a record durable that does not follow from the one before."""
        await self.parts.hooks.at(f"{record.step}.before", record.copy_here)
        await self._write(record)
        log.info("job %s: %s%s", record.key, record.step, f", move {record.order.migration}" if record.order else "")
        self.changed()
        await self.parts.hooks.at(f"{record.step}.after", record.copy_here)
        return record

    async def advance_decided(self, step: Step, **changes: Any) -> Record:
        """For a step that follows from what is decided elsewhere, so that a restarted agent would take it again and do no harm.

        It is taken also when the disk is full: a job must not stand frozen because of that. Raises JournalBroken.
        """
        try:
            return await self.advance(step, **changes)
        except OSError as error:
            log.error("job %s: %s is not in the journal, going on all the same: %s", self.key, step, error)
            self.record = self.held.model_copy(update={"step": str(step), **changes})
            self.changed()
            return self.record

    async def _write(self, record: Record) -> None:
        """A cancellation waits for the disk: otherwise nobody knew whether the step was taken, and two writes might cross."""
        writing = asyncio.get_running_loop().run_in_executor(self.parts.disk, self.parts.journal.write, record)
        cancelled: asyncio.CancelledError | None = None
        while not writing.done():
            try:
                await asyncio.wait({writing})
            except asyncio.CancelledError as error:
                cancelled = error
        writing.result()
        self.record = record
        if cancelled is not None:
            raise cancelled

    async def drop(self) -> None:
        """The job is no matter of this node any more."""
        await asyncio.get_running_loop().run_in_executor(self.parts.disk, self.parts.journal.remove, self.key)
        self.record, self.failure, self.usage, self.obstacles = None, "", None, None
        self.files = None
        self.intent = self.tidied = False
        self.changed()

    # --- the sandbox ---

    def hold(self, sandbox: Sandbox) -> None:
        """Watches it for its end."""
        self.release()
        self.sandbox, self.exit, self.checked = sandbox, None, False
        self.fenced, self.obeys = False, None
        self._watch = self._group.create_task(self._wait_exit(sandbox), name=f"exit of {self.key}")

    def release(self) -> None:
        """Stops watching; the processes are left as they are."""
        if self._watch is not None:
            self._watch.cancel()
        self.sandbox, self.exit, self._watch = None, None, None
        self.fenced, self.obeys = False, None

    def lost(self, message: str) -> None:
        """Nothing of it is here, and nobody knows how it ended."""
        self.exit = SandboxGone(f"job {self.key}: {message}")
        self.changed()

    async def adopt(self) -> Sandbox | None:
        """The sandbox of the copy that the record names, found again if need be; None when there is none."""
        if self.sandbox is None:
            found = await self.parts.engine.adopt(self.held.copy_here)
            if found is not None:
                self.hold(found)
                self.fenced = await found.fenced()
        return self.sandbox

    async def look_at_fence(self) -> None:
        """Sees whether it was made to stand still, by whomever."""
        if self.sandbox is None or self.exit is not None:
            return
        fenced = await self.sandbox.fenced()
        if fenced != self.fenced:
            log.warning("job %s: %s", self.key, "stands still: this node lost touch with the cluster" if fenced else "goes on")
            self.fenced = fenced
            self.changed()

    async def obey(self, policy: Fencing) -> None:
        """Tells the guard what to do with the copy, unless it knows."""
        if self.sandbox is not None and self.exit is None and self.obeys != policy:
            await self.sandbox.obey(policy)
            self.obeys = policy

    async def forget(self, copy: Copy) -> None:
        """Kills the copy if it lives, and removes what was recorded of it and its images."""
        self.release()
        await self.parts.engine.forget(copy)
        await self.remove_images(copy)

    async def remove_images(self, copy: Copy) -> None:
        """They are memory. What cannot be removed is only said: it must not keep a job from anything."""
        directory = self.images(copy)
        try:
            await asyncio.to_thread(remove_tree, directory)
        except OSError as error:
            log.error("job %s: images in %s cannot be removed: %s", self.key, directory, error)

    async def _wait_exit(self, sandbox: Sandbox) -> None:
        try:
            self.exit = await sandbox.wait_exit()
        except SandboxGone as error:
            self.exit = error
        self.changed()

    # --- what it used ---

    async def measure(self) -> None:
        """Looks at what it uses; keeps what was known when that is not possible any more."""
        if self.sandbox is None:
            return
        try:
            self.usage = await self.sandbox.usage()
        except AgentError as error:
            log.debug("job %s: use is not known: %s", self.key, error)

    async def look_for_obstacles(self, *, thorough: bool) -> list[Obstacle]:
        """What would keep it from being moved. What cannot be looked at is no obstacle: then criu has the last word."""
        if self.sandbox is None:
            return []
        try:
            self.obstacles = await self.sandbox.obstacles(thorough=thorough)
            self.files = await self.sandbox.files() if self.parts.compares() else None
        except AgentError as error:
            log.warning("job %s: what could keep it from being moved is not known: %s", self.key, error)
        return self.obstacles or []

    @property
    def cpu_seconds(self) -> float:
        """On all nodes up to now."""
        here = self.usage.cpu_seconds if self.usage else 0.0
        known = self.record.report.cpu_seconds if self.record and self.record.report else 0.0
        return round(max(self.held.base_cpu_seconds + here, known), 3)

    # --- what is said of it ---

    def report(self, phase: ReportPhase, *, move: MoveReport | None = None, **more: Any) -> JobReport:
        """A report of the record's epoch, with what is known of the job. ``move`` replaces that of the last report."""
        record = self.held
        old = record.report
        return JobReport(
            uid=record.uid,
            epoch=more.pop("epoch", record.epoch),
            life=record.life,
            phase=phase,
            boot_id=self.parts.boot_id,
            started_at=more.pop("started_at", record.started_at),
            cpu_seconds=more.pop("cpu_seconds", self.cpu_seconds),
            memory=self.usage.memory if self.usage else old.memory if old else 0,
            move=move or (old.move if old else None),
            checkpoint=old.checkpoint if old else None,
            discarded=old.discarded if old else [],
            restored=more.pop("restored", old.restored if old else None),
            **more,
        )

    # --- where its things are ---

    def images(self, copy: Copy) -> Path:
        """Directory for its checkpoint in transit, in memory."""
        return self.parts.config.images / image_name(copy)

    @property
    def directory(self) -> Path:
        """Its directory on the shared file system."""
        return job_directory(self.parts.config.shared, self.held.copy_here)


def one_line(error: BaseException) -> str:
    """The error as a message that fits a status."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{error.title}: {'.'.join(map(str, first['loc'])) or 'text'}: {first['msg']}; repair or delete the key"
    return " ".join(str(error).split()) or type(error).__name__
