"""Emptying a node: which of its jobs to ask a move for now, which to wait for, and which cannot leave. Pure.

`mxctl drain`, rollouts and the removal of a node ask here, so that all three mean the same by an empty node.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from crds.job import FINISHED, MIGRATABLE, Job, JobPhase
from crds.meta import Truth, find_condition
from crds.migration import Migration, MigrationPhase

AGAIN_AFTER = 10.0
"""Seconds after a move that failed until the next is asked for."""
_OPEN = (MigrationPhase.PENDING, MigrationPhase.MOVING)


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """``ask``: jobs whose move is to be asked for now. By label of the job: ``hindered`` says why it cannot leave, ``waits`` what
    it waits for."""

    ask: tuple[Job, ...] = ()
    waits: dict[str, str] = field(default_factory=dict)
    hindered: dict[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """What keeps the node from being empty, the worst first; empty when nothing does."""
        told = [f"{label} cannot be moved away: {why}" for label, why in self.hindered.items()]
        told += [f"{label} {why}" for label, why in self.waits.items()]
        return "; ".join([*told, *(f"{job.label} is about to be moved" for job in self.ask)])


def plan_drain(jobs: Iterable[Job], moves: Mapping[str, Sequence[Migration]], now: datetime) -> DrainPlan:
    """``jobs`` are those on the node that have not ended; ``moves`` all Migrations there are, by the label of their job."""
    ask: list[Job] = []
    waits: dict[str, str] = {}
    hindered: dict[str, str] = {}
    for job in jobs:
        mine = moves.get(job.label, ())
        under_way = next((m for m in mine if m.status.phase in _OPEN), None)
        if job.status.phase in FINISHED:
            continue
        if under_way is not None:
            waits[job.label] = f"waits: {under_way.status.message}" if under_way.status.message else f"moves ({under_way.label})"
        elif why := hindrance(job):
            hindered[job.label] = why
        elif job.status.phase != JobPhase.RUNNING:
            waits[job.label] = f"is {job.status.phase}"
        elif (failed := _latest_failure(job, mine)) and _age(failed, now) < AGAIN_AFTER:
            hindered[job.label] = f"{failed.label}: {failed.status.message}"
        else:
            ask.append(job)
    return DrainPlan(tuple(ask), waits, hindered)


def hindrance(job: Job) -> str:
    """What about the job itself keeps it from being moved away by the machinery; empty when nothing does."""
    if job.spec.placement.pinned:
        return f"it is pinned to node {job.status.node}"
    if not job.spec.migration.allowed:
        return "its spec.migration.allowed is false"
    condition = find_condition(job.status.conditions, MIGRATABLE)
    return condition.message if condition and condition.status == Truth.FALSE else ""


def _latest_failure(job: Job, moves: Sequence[Migration]) -> Migration | None:
    """The last move of the job from where it is, when it failed."""
    over = [m for m in moves if m.status.finished_at is not None]
    last = max(over, key=lambda m: (m.status.finished_at, m.name), default=None)
    failed = last is not None and last.status.phase == MigrationPhase.FAILED
    return last if failed and last is not None and last.status.source in (None, job.status.node) else None


def _age(migration: Migration, now: datetime) -> float:
    finished = migration.status.finished_at
    return (now - finished).total_seconds() if finished else float("inf")
