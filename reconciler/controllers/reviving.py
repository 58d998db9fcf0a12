"""The writes of a restart: the job is taken away from where it was, and waits for a place of its next life.

Taking it away is one transaction with everything it relies on. After a loss that is, above all, that the lost node's heartbeat is
still absent and its promise stands; and that node is left a placement with the role drop, so that it ends its stale copy when it
is back.
"""

from datetime import timedelta

from crds import keys
from crds.checkpoint import Checkpoint
from crds.job import RESTARTING, RUNNING, Job, JobPhase
from crds.meta import set_condition
from crds.placement import CheckpointOrder, Placement, Role
from crds.report import JobReport
from reconciler.context import Context
from reconciler.controllers.checkpoint import damaged, usable
from reconciler.controllers.mirror import mirror
from reconciler.controllers.placing import dropped, placement_of
from reconciler.controllers.readiness import silence_keys
from reconciler.controllers.restart import Restart
from reconciler.grid import Seen
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import World, job_key, work_key


async def begin_again(
    context: Context, job: Job, placed: Seen[Placement], report: JobReport | None, plan: Restart, *, lost: bool
) -> Again:
    """Takes it away from its node. ``lost``: the node is silent, and must be so still."""
    new = job.model_copy(deep=True)
    status, node = new.status, job.status.node or ""
    status.phase, status.node, status.migration = JobPhase.PENDING, None, None
    status.epoch, status.life = status.epoch + 1, status.life + 1
    again = report is None or report.restored is None or report.restored.ok is not False
    status.restarts, status.failures = status.restarts + again, status.failures + plan.counts
    status.restart_at = context.now() + timedelta(seconds=plan.after) if plan.after else None
    status.restore = plan.restore.name if plan.restore else None
    status.exit_code = report.exit_code if report else None
    if report is not None:
        status.cpu_seconds = max(status.cpu_seconds, report.cpu_seconds)
    what = f"goes on from checkpoint/{plan.restore.name}" if plan.restore else "starts anew"
    status.message = f"{what}{f' in {plan.after:g} s' if plan.after else ''}: {plan.why}"
    now, generation = context.now(), job.metadata.generation
    status.conditions = set_condition(status.conditions, RUNNING, False, RESTARTING, status.message, now, generation)
    world, key = context.world, work_key(job)
    relied_on = silence_keys(node, key) if lost else [placed.key, keys.report(node, job.namespace, job.name)]
    transaction = context.store.transaction().expect(*world.expect(*relied_on))
    transaction.put(placed.key, dropped(placed.value, status.epoch)).put_status(new)
    bad = _damaged(context, job, report)
    if bad is not None:
        transaction.put_status(bad)
    await transaction.commit()
    await context.warn(new, RESTARTING, status.message)
    return Again(plan.after or None)


def _damaged(context: Context, job: Job, report: JobReport | None) -> Checkpoint | None:
    """The checkpoint that a node found to be damaged, as it is to be from now on."""
    about = report.restored if report else None
    if about is None or not about.damaged:
        return None
    found = context.world.find(Checkpoint, job_key(job.namespace, about.name))
    return damaged(context, found, about.message) if found is not None else None


def waits(context: Context, job: Job) -> float:
    """Seconds before the job may be placed again."""
    at = job.status.restart_at
    return max(0.0, (at - context.now()).total_seconds()) if at else 0.0


def chosen_checkpoint(world: World, job: Job) -> Checkpoint | None:
    """The one the job is to go on from: the one that was decided on, or when that was deleted since the newest there is."""
    found = usable(world, job)
    return next((c for c in found if c.name == job.status.restore), found[0] if found else None)


def next_placement(world: World, job: Job, checkpoint: Checkpoint | None) -> Placement:
    """For the job as its status is about to be."""
    if checkpoint is None:
        return placement_of(world, job, Role.RUN, job.status.epoch)
    about = checkpoint.status
    order = CheckpointOrder(name=checkpoint.name, path=about.path, digest=about.digest)
    return placement_of(world, job, Role.RESTORE, job.status.epoch).model_copy(update={"checkpoint": order})


async def went_on(context: Context, job: Job, placed: Seen[Placement], report: JobReport) -> Again:
    """It goes on from its checkpoint: from here on it is a job like any other."""
    new = mirror(job, report, ready=True, now=context.now())
    about = report.restored
    new.status.restore, new.status.restart_at, new.status.exit_code = None, None, None
    new.status.reason = f"went on from checkpoint/{about.name if about else job.status.restore}"
    run = placed.value.model_copy(update={"role": Role.RUN, "checkpoint": None})
    relied_on = [placed.key, keys.report(job.status.node or "", job.namespace, job.name)]
    transaction = context.store.transaction().expect(*context.world.expect(*relied_on))
    await transaction.put(placed.key, run).put_status(new).commit()
    details = f"; {about.message}" if about and about.message else ""
    await context.tell(new, "Restored", f"{new.status.reason} on node/{new.status.node}{details}")
    return DONE
