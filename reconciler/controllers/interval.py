"""Interval: asks for checkpoints of the jobs that want them taken by themselves."""

from collections.abc import Iterable

from crds.checkpoint import BY_INTERVAL, Checkpoint, CheckpointSpec
from crds.job import Job, JobPhase
from crds.meta import Metadata
from reconciler.context import Context
from reconciler.controllers.checkpoint import OPEN, checkpoints_of
from reconciler.controllers.watches import own
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import Delta, World, job_key, work_key
from store.owners import owner_reference


def _all(world: World) -> Iterable[str]:
    return [work_key(job) for job in world.all(Job) if job.spec.checkpoint.interval]


def _job_of(delta: Delta, _: World) -> Iterable[str]:
    """A Checkpoint: the job it is of."""
    return {job_key(c.namespace, c.spec.job) for c in (delta.old, delta.new) if isinstance(c, Checkpoint)}


@controller("interval", start=_all, watches=[Watch("kinds/jobs/", own), Watch("kinds/checkpoints/", _job_of)])
async def keep_interval(context: Context, key: str) -> Again:
    """One checkpoint each interval, counted from the last that was asked for, by whomever, and never two at a time."""
    job = context.world.find(Job, key)
    interval = job.spec.checkpoint.interval if job else None
    if job is None or interval is None or job.status.phase != JobPhase.RUNNING or job.metadata.deletion_timestamp is not None:
        return DONE
    mine = checkpoints_of(context.world, job.namespace, job.name)
    if any(c.status.phase in OPEN for c in mine):
        return DONE
    asked = [c.metadata.creation_timestamp for c in mine if c.metadata.creation_timestamp]
    since = max([*asked, *([job.status.started_at] if job.status.started_at else [])], default=None)
    left = interval - (context.now() - since).total_seconds() if since else 0.0
    if left > 0:
        return Again(left)
    await context.reached(await _ask(context, job))
    return Again(interval)


async def _ask(context: Context, job: Job) -> int:
    name = f"{job.name[:50].rstrip('-.')}-{context.ticket()[-8:]}"
    checkpoint = Checkpoint(
        metadata=Metadata(name=name, namespace=job.namespace, owner_references=[owner_reference(job)]),
        spec=CheckpointSpec(job=job.name, requested_by=BY_INTERVAL, reason="its interval has passed"),
    )
    return await context.store.transaction().create(checkpoint).commit()
