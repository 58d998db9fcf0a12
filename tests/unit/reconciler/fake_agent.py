"""An agent without processes: it does to etcd what the real one does, one atomic step at a time.

``steps`` lists what it could do right now; a test runs all of them, some of them, or a random one. A copy of a job is a word:
running, frozen, restored or ended, so a test can count how many copies of a job run.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from crds import keys
from crds.load import Alive, JobLoad, LoadVector
from crds.network import FEATURE
from crds.placement import Placement, Role
from crds.report import ENDED, CheckpointReport, Claim, JobReport, MoveReport, Obstacle, ReportPhase, RestoreReport, Verdict
from store.kv import Compare, Delete, Put, absent, unchanged
from store.memory_server import MemoryServer

GIGA = 2**30
STEP = Callable[[], None]


@dataclass
class Copy:
    """What is on the node of one job; it survives a restart of the agent, as the journal and the processes do."""

    uid: str
    epoch: int
    state: str
    ticket: str = ""
    life: int = 0


@dataclass
class Wire:
    """The data channels: tickets of the moves whose images arrived in full, and of those that run at their destination.

    It also watches over the commit point: a source that goes on although the destination has committed is a ``violation``.
    """

    sent: set[str] = field(default_factory=set)
    committed: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)


class FakeAgent:
    """One node. ``up`` False: the agent does nothing (its jobs go on)."""

    def __init__(self, server: MemoryServer, name: str, wire: Wire, now: Callable[[], datetime]) -> None:
        self.server, self.name, self.wire, self.now = server, name, wire, now
        self.copies: dict[str, Copy] = {}
        self.up = True
        self.boot = 1
        """Its boot id is boot-<boot>."""
        self.holds: set[str] = set()
        """Names of steps it does not take."""
        self.fenced_after: float | None = 15.0
        """What its reports promise."""
        self.refuses = ""
        """Reason for which it refuses arrivals."""
        self.frozen_bytes = 5_000_000
        """Of a move to it, what came in the freeze."""
        self.spoils = ""
        """Why no checkpoint can be taken."""
        self.damaged: set[str] = set()
        """Checkpoints from which nothing can go on."""

    # --- the node itself ---

    def beat(self, cpu: float = 1.0, memory: int = GIGA, **more: Any) -> None:
        """The heartbeat is there from now on."""
        data = {"address": f"{self.name}:7950", "features": [FEATURE], **more}
        alive = Alive(boot_id=f"boot-{self.boot}", agent_version="1", cpu=cpu, memory=memory, since=self.now(), **data)
        self._put(keys.alive(self.name), alive.to_json())

    def die(self) -> None:
        """The lease has run out."""
        self.up = False
        self._write([], [Delete(keys.alive(self.name))])

    def load(self, *, cpu: float = 1.0, memory: int = GIGA, used: int = 0, jobs: dict[str, JobLoad] | None = None) -> None:
        """A sample taken now. Without ``jobs``: a core for each running copy."""
        jobs = (
            {key: JobLoad(cpu_demand=1.0, memory=GIGA // 100) for key, copy in self.copies.items() if copy.state == "running"}
            if jobs is None
            else jobs
        )
        demand = sum(job.cpu_demand for job in jobs.values())
        vector = LoadVector(
            time=self.now(),
            cpu_capacity=cpu,
            cpu_demand=demand,
            cpu_used=min(demand, cpu),
            memory_capacity=memory,
            memory_used=used or sum(job.memory for job in jobs.values()),
            jobs=jobs,
        )
        self._put(keys.load(self.name), vector.to_json())

    # --- its jobs ---

    def finds(self, job: str, *found: Obstacle) -> None:
        """It has looked at a running job for what keeps it from being moved."""
        report = self._read_report(job)
        assert report is not None and report.phase == ReportPhase.RUNNING
        self._put(self._report_key(job), report.model_copy(update={"obstacles": list(found)}).to_json())

    def steps(self) -> dict[str, STEP]:
        """What it may do now, by name. Names in ``OPTIONAL`` are choices, all others are duties."""
        if not self.up:
            return {}
        found: dict[str, STEP] = {}
        for job in sorted(self._jobs()):
            for name, step in self._steps_for(job).items():
                found[f"{self.name} {name} {job}"] = step
        return found

    def act(self) -> bool:
        """Does its duties; False when there was nothing to do."""
        for name, step in self.steps().items():
            word = name.split()[1]
            if word not in self.holds and word not in OPTIONAL:
                step()
                return True
        return False

    def finish(self, job: str, code: int = 0) -> None:
        """The job ends by itself."""
        copy = self.copies[job]
        if copy.state not in ("running", "frozen"):
            raise AssertionError(f"{job} is {copy.state} on {self.name}")
        copy.state = "ended"
        phase = ReportPhase.SUCCEEDED if code == 0 else ReportPhase.FAILED
        self._report(job, copy, phase, exit_code=code)

    def lose(self, job: str) -> None:
        """The machine was restarted: nothing is left of the job."""
        copy = self.copies[job]
        copy.state = "ended"
        self._report(job, copy, ReportPhase.LOST, message="gone after a restart of the machine")

    def running(self, job: str) -> bool:
        return job in self.copies and self.copies[job].state == "running"

    # --- inside ---

    def _steps_for(self, job: str) -> dict[str, STEP]:
        placement, report = self._placement(job), self._read_report(job)
        copy = self.copies.get(job)
        if placement is None:
            return {"clean": lambda: self._clean(job)} if copy or report or self._claim(job) else {}
        if copy is not None and (copy.uid, copy.life) != (placement.uid, placement.life):
            return {"clean": lambda: self._clean(job)}
        match placement.role:
            case Role.RUN:
                return self._steps_run(job, placement, report, copy)
            case Role.LEAVE:
                return self._steps_leave(job, placement, copy)
            case Role.ARRIVE:
                return self._steps_arrive(job, placement, copy)
            case Role.DROP:
                return {"clean": lambda: self._clean(job)} if copy or report or self._claim(job) else {}
            case Role.INHERIT:
                return {"inherit": lambda: self._inherit(job, placement)} if report is None else {}
            case Role.RESTORE:
                return {"restore": lambda: self._restore(job, placement)} if copy is None else {}

    def _steps_run(self, job: str, placement: Placement, report: JobReport | None, copy: Copy | None) -> dict[str, STEP]:
        if copy is None:
            return {"start": lambda: self._start(job, placement)} if report is None else {"lost": lambda: self._lost(job, report)}
        if report is not None and report.phase == ReportPhase.STARTING:
            return {"started": lambda: self._run(job, copy, None)}
        claim = self._claim(job)
        if claim is not None and claim.epoch == placement.epoch and copy.state == "running":
            return {"tidy": lambda: self._write([], [Delete(keys.claim(self.name, *job.split("/")))])}
        mine = placement.move is not None and placement.move.ticket == copy.ticket
        if mine and copy.state == "frozen":
            return {"resume": lambda: self._resume(job, copy, placement)}
        if copy.state == "running" and report is not None and report.epoch != placement.epoch:
            return {"agree": lambda: self._resume(job, copy, placement)}
        return self._steps_checkpoint(job, placement, report, copy) if report is not None else {}

    def _steps_checkpoint(self, job: str, placement: Placement, report: JobReport, copy: Copy) -> dict[str, STEP]:
        order = placement.checkpoint
        if copy.state == "running" and order is not None and (report.checkpoint is None or report.checkpoint.name != order.name):
            return {"keep": lambda: self._keep(job, report, order.name)}
        if report.discarded != placement.discard:
            return {"discard": lambda: self._change(job, report, discarded=placement.discard)}
        return {}

    def _steps_leave(self, job: str, placement: Placement, copy: Copy | None) -> dict[str, STEP]:
        order = placement.move
        assert order is not None
        if copy is None or copy.state == "ended":
            return {}
        if copy.state == "running" and copy.ticket != order.ticket:
            return {
                "send": lambda: self._send(job, copy, placement),
                "abort": lambda: self._abort(job, copy, placement),
            }
        if copy.state == "frozen" and order.ticket in self.wire.running:
            return {"gone": lambda: self._gone(job, copy)}
        return {}

    def _steps_arrive(self, job: str, placement: Placement, copy: Copy | None) -> dict[str, STEP]:
        order = placement.move
        assert order is not None
        if copy is None or copy.epoch != placement.epoch:
            return {"prepare": lambda: self._prepare(job, placement)}
        if copy.state == "prepared":
            refuse = {"refuse": lambda: self._refuse(job, placement)}
            if self.refuses:
                return {"refused": lambda: self._refuse(job, placement)}
            if order.ticket in self.wire.sent:
                return {"commit": lambda: self._commit(job, placement)} | refuse
            return refuse
        if copy.state == "committed":
            return {"continue": lambda: self._continue(job, copy, placement)}
        return {}

    def _keep(self, job: str, report: JobReport, name: str) -> None:
        said = CheckpointReport(name=name, ok=not self.spoils, bytes=7, digest="d", freeze_ms=50.0, message=self.spoils)
        self._change(job, report, checkpoint=said)

    def _change(self, job: str, report: JobReport, **changes: object) -> None:
        self._put(self._report_key(job), report.model_copy(update=changes).to_json())

    def _restore(self, job: str, placement: Placement) -> None:
        assert placement.checkpoint is not None
        name = placement.checkpoint.name
        bad = name in self.damaged
        copy = self.copies[job] = Copy(placement.uid, placement.epoch, "ended" if bad else "running", life=placement.life)
        restored = RestoreReport(name=name, ok=not bad, damaged=bad, message="its checksum differs" if bad else "")
        self._report(job, copy, ReportPhase.ABSENT if bad else ReportPhase.RUNNING, restored=restored)

    def _inherit(self, job: str, placement: Placement) -> None:
        copy = self.copies[job] = Copy(placement.uid, placement.epoch, "ended", life=placement.life)
        self._report(job, copy, ReportPhase.ABSENT)

    def _start(self, job: str, placement: Placement) -> None:
        copy = Copy(placement.uid, placement.epoch, "starting", life=placement.life)
        if self._write([absent(self._report_key(job)), self._as_seen(job)], [self._report_op(job, copy, ReportPhase.STARTING)]):
            self.copies[job] = copy

    def _run(self, job: str, copy: Copy, move: MoveReport | None) -> None:
        copy.state = "running"
        self._report(job, copy, ReportPhase.RUNNING, move=move)

    def _lost(self, job: str, report: JobReport) -> None:
        if report.phase not in ENDED:
            copy = self.copies[job] = Copy(report.uid, report.epoch, "ended")
            self._report(job, copy, ReportPhase.LOST, message="nothing to adopt")

    def _send(self, job: str, copy: Copy, placement: Placement) -> None:
        assert placement.move is not None
        copy.state, copy.ticket = "frozen", placement.move.ticket
        self.wire.sent.add(copy.ticket)
        told = replace(copy, epoch=placement.epoch)
        self._report(job, told, ReportPhase.FROZEN, move=MoveReport(migration=placement.move.migration, step="Sent"))

    def _abort(self, job: str, copy: Copy, placement: Placement) -> None:
        assert placement.move is not None
        copy.ticket, copy.epoch = placement.move.ticket, placement.epoch
        move = MoveReport(migration=placement.move.migration, step="Resumed", ok=False, message="dump failed")
        self._run(job, copy, move)

    def _resume(self, job: str, copy: Copy, placement: Placement) -> None:
        if copy.state == "frozen" and copy.ticket in self.wire.committed and not self._was_dropped(job, placement):
            self.wire.violations.append(f"{job} goes on at its source {self.name}, though {copy.ticket} was committed")
        copy.epoch = placement.epoch
        self._run(job, copy, None)

    def _was_dropped(self, job: str, placement: Placement) -> bool:
        """The reconciler has taken the job back from a destination that must have fenced itself."""
        assert placement.move is not None
        kv = self.server.get(keys.placement(placement.move.destination, *job.split("/")))
        return kv is not None and Placement.model_validate_json(kv.value).role == Role.DROP

    def _gone(self, job: str, copy: Copy) -> None:
        copy.state = "gone"
        self._report(job, copy, ReportPhase.LEFT)

    def _prepare(self, job: str, placement: Placement) -> None:
        copy = self.copies[job] = Copy(placement.uid, placement.epoch, "prepared", life=placement.life)
        self._report(job, copy, ReportPhase.ARRIVING)

    def _claim_if_free(self, job: str, placement: Placement, verdict: Verdict, reason: str = "") -> bool:
        claim = Claim(uid=placement.uid, epoch=placement.epoch, verdict=verdict, reason=reason)
        key = keys.claim(self.name, *job.split("/"))
        return self._write([absent(key), self._as_seen(job)], [Put(key, claim.to_json())])

    def _commit(self, job: str, placement: Placement) -> None:
        if self._claim_if_free(job, placement, Verdict.ACCEPTED):
            assert placement.move is not None
            self.copies[job].state = "committed"
            self.wire.committed.add(placement.move.ticket)

    def _refuse(self, job: str, placement: Placement) -> None:
        if self._claim_if_free(job, placement, Verdict.REFUSED, self.refuses or "restore failed"):
            copy = self.copies[job]
            copy.state = "refused"
            self._report(job, copy, ReportPhase.ABSENT)

    def _continue(self, job: str, copy: Copy, placement: Placement) -> None:
        assert placement.move is not None
        done: dict[str, Any] = {"bytes": 5_000_000, "frozen_bytes": self.frozen_bytes, "freeze_ms": 120.0}
        move = MoveReport(migration=placement.move.migration, step="Running", ok=True, **done)
        self._run(job, copy, move)
        self.wire.running.add(placement.move.ticket)

    def _clean(self, job: str) -> None:
        """The placement is gone, so the job must not be here."""
        self.copies.pop(job, None)
        self._write([], [Delete(self._report_key(job)), Delete(keys.claim(self.name, *job.split("/")))])

    # --- etcd ---

    def _jobs(self) -> set[str]:
        prefixes = (
            keys.placement_prefix(self.name),
            f"{keys.node_prefix(self.name)}jobs/",
            f"{keys.node_prefix(self.name)}claims/",
        )
        found = {kv.key.removeprefix(prefix) for prefix in prefixes for kv in self.server.list(prefix, 0).items}
        return found | self.copies.keys()

    def _placement(self, job: str) -> Placement | None:
        kv = self.server.get(keys.placement(self.name, *job.split("/")))
        return Placement.model_validate_json(kv.value) if kv else None

    def _read_report(self, job: str) -> JobReport | None:
        kv = self.server.get(self._report_key(job))
        return JobReport.model_validate_json(kv.value) if kv else None

    def _claim(self, job: str) -> Claim | None:
        kv = self.server.get(keys.claim(self.name, *job.split("/")))
        return Claim.model_validate_json(kv.value) if kv else None

    def _report_key(self, job: str) -> str:
        return keys.report(self.name, *job.split("/"))

    def _as_seen(self, job: str) -> Compare:
        kv = self.server.get(keys.placement(self.name, *job.split("/")))
        return unchanged(keys.placement(self.name, *job.split("/")), kv.mod_revision if kv else 0)

    def _report_op(self, job: str, copy: Copy, phase: ReportPhase, **more: object) -> Put:
        started = {} if phase in (ReportPhase.STARTING, ReportPhase.ARRIVING) else {"started_at": self.now()}
        promise = {} if phase in ENDED else {"fenced_after": self.fenced_after}
        finished = {"finished_at": self.now()} if phase in ENDED else {}
        about = {"uid": copy.uid, "epoch": copy.epoch, "life": copy.life, "boot_id": f"boot-{self.boot}"}
        data = {**about, "phase": phase, **started, **finished, **promise, **more}
        return Put(self._report_key(job), JobReport.model_validate(data).to_json())

    def _report(self, job: str, copy: Copy, phase: ReportPhase, **more: object) -> None:
        self._write([], [self._report_op(job, copy, phase, **more)])

    def _put(self, key: str, value: bytes) -> None:
        self._write([], [Put(key, value)])

    def _write(self, when: list[Compare], then: list[Put | Delete]) -> bool:
        return self.server.txn(when, then, []).succeeded


OPTIONAL = frozenset({"abort", "refuse"})
"""What an agent does only when something failed."""
