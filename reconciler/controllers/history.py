"""What became of the moves that the balancer asked for, from the Migrations that are remembered. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from crds.job import Job
from crds.migration import Migration, MigrationPhase
from reconciler.planning.types import Cause
from reconciler.planning.undone import Step, left_lately, returns, wasted
from reconciler.world import World, job_key

HOUR = 3600.0
ANNOUNCED = frozenset({Cause.ROTATION, Cause.OWNER, Cause.HOME})
"""Causes of moves that are meant to be undone some time."""


@dataclass(frozen=True, slots=True)
class Hour:
    """Moves of the last hour that a policy asked for."""

    succeeded: int = 0
    failed: int = 0
    wasted: int = 0


def last_hour(world: World, policy: str, now: datetime) -> Hour:
    """Moves that came back count as wasted only by what is still remembered: jobs that were deleted are no news any more."""
    begin = now.timestamp() - HOUR
    asked = [m for m in world.all(Migration) if m.spec.requested_by == policy and m.status.finished_at is not None]
    made = [m for m in asked if m.status.phase == MigrationPhase.SUCCEEDED]
    steps = [_step(m) for m in made]
    lost = wasted(steps, list(_news(world))) if returns(steps) else []
    return Hour(
        succeeded=sum(_end(m) >= begin for m in made),
        failed=sum(_end(m) >= begin for m in asked if m.status.phase == MigrationPhase.FAILED),
        wasted=sum(back >= begin for _, back in lost),
    )


def left_by(world: World, job: str, news: float, now: datetime) -> dict[str, float]:
    """See ``undone.left_lately``. ``news`` is ``last_news``; people's moves count like the balancer's."""
    made = [_step(m) for m in world.migrations_of(job) if m.status.phase == MigrationPhase.SUCCEEDED]
    return left_lately(made, news, now.timestamp())


def last_news(world: World) -> float:
    """When a job came or ended for the last time, seconds since the epoch."""
    return max(_news(world), default=0.0)


def _step(migration: Migration) -> Step:
    status = migration.status
    job = job_key(migration.namespace, migration.spec.job)
    announced = migration.spec.cause in ANNOUNCED
    return Step(_end(migration), job, status.source or "", status.destination or "", announced)


def _end(migration: Migration) -> float:
    return migration.status.finished_at.timestamp() if migration.status.finished_at else 0.0


def _news(world: World) -> Iterator[float]:
    """When jobs came and ended."""
    for job in world.all(Job):
        for moment in (job.status.started_at, job.status.finished_at):
            if moment is not None:
                yield moment.timestamp()
