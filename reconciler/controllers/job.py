"""Job: finds it a node, mirrors what that node reports, and lets it go when nothing of it is left.

While a job is being moved its status belongs to the migration controller; this one keeps its hands off until the move is decided.
"""

import asyncio
from collections.abc import Iterable

from crds import keys
from crds.balancepolicy import BalancePolicy
from crds.checkpoint import Checkpoint
from crds.cluster import Cluster
from crds.job import (
    FAILED,
    FINISHED,
    NO_ADDRESS,
    NO_CHECKPOINT,
    NO_ROOM,
    NODE_LOST,
    PLACED,
    PROCESS_LOST,
    SCHEDULED,
    STOP_FINALIZER,
    Job,
    JobPhase,
)
from crds.meta import find_condition, set_condition
from crds.node import Node
from crds.placement import Placement, Role
from crds.report import ENDED, JobReport, ReportPhase
from reconciler.context import Context
from reconciler.controllers.checkpoint import usable
from reconciler.controllers.inheriting import give_away, is_orphan, waits_for_heir
from reconciler.controllers.mirror import fail, mirror, only_figures_differ
from reconciler.controllers.networks import Address, address_for, release, reserve
from reconciler.controllers.placing import fencing_of, time_sharing
from reconciler.controllers.policy import guests
from reconciler.controllers.readiness import Silence, has_fenced, is_ready, is_written_off, silence
from reconciler.controllers.restart import Leave, Restart, after_end, after_loss, after_restore
from reconciler.controllers.reviving import begin_again, chosen_checkpoint, next_placement, waits, went_on
from reconciler.controllers.snapshot import SETTLING, request_for, take_snapshot
from reconciler.controllers.watches import job_of, jobs_of_node, own, waiting_jobs
from reconciler.grid import Seen
from reconciler.planning.addresses import NoAddress
from reconciler.planning.placement import choose_node
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again, Terminal
from reconciler.world import Delta, World, work_key

FIGURES_EVERY = 5.0
"""Seconds between two writes of a status in which only figures changed."""
LOOK_AGAIN = 5.0
"""Seconds after which a job that fitted nowhere is tried again, for memory may have become free without a sign."""
SYNC_LIMIT = 10.0
"""Seconds for our own write to come back."""


def _all(world: World) -> Iterable[str]:
    return [work_key(job) for job in world.all(Job)]


def _with_default_fencing(delta: Delta, world: World) -> Iterable[str]:
    """All jobs that leave it to the cluster what becomes of them on a node that lost touch, when that changed."""
    before, after = (obj.spec.fencing if isinstance(obj, Cluster) else None for obj in (delta.old, delta.new))
    return [work_key(job) for job in world.all(Job) if job.spec.fencing is None] if before != after else []


def _with_time_sharing(delta: Delta, world: World) -> Iterable[str]:
    """All jobs that have a node, when the rule changed by which they share it, or the policy that says so."""
    before, after = (obj.spec.time_sharing if isinstance(obj, BalancePolicy) else None for obj in (delta.old, delta.new))
    return [key for _, key, _ in world.placements] if before != after else []


@controller(
    "job",
    kind=Job,
    start=_all,
    watches=[
        Watch("kinds/jobs/", own),
        Watch("placements/", own),
        Watch("nodes/", job_of),
        Watch("kinds/nodes/", jobs_of_node),
        Watch("kinds/clusters/", _with_default_fencing),
        Watch("kinds/balancepolicies/", _with_time_sharing),
        Watch("kinds/", waiting_jobs),
        Watch("placements/", waiting_jobs),
        Watch("nodes/", waiting_jobs),
    ],
)
async def reconcile_job(context: Context, key: str) -> Again:
    job = context.world.find(Job, key)
    if job is None:
        return DONE
    _check_readable(context.world, key)
    await _clear_up(context, job)
    held = _held(context.world, job)
    if job.metadata.deletion_timestamp is not None:
        return await _release(context, job, held)
    if job.status.phase in FINISHED or _is_moving(held):
        return DONE
    if job.status.phase == JobPhase.PENDING and not held:
        left = waits(context, job)
        return Again(left) if left > 0 else await _place(context, key)
    return await _observe(context, job, held)


# --- placing ---


async def _place(context: Context, key: str) -> Again:
    """Chooses a node and writes placement and status as one. Only one job at a time, each seeing the choice before it."""
    async with context.choosing:
        job = context.world.find(Job, key)
        if job is None or job.status.phase != JobPhase.PENDING or job.metadata.deletion_timestamp is not None:
            return DONE
        wish = job.spec.placement
        request = request_for(job, context.world.cluster, node=wish.node if wish.pinned or not job.status.life else None)
        snapshot = take_snapshot(context.world, context.now(), settling=SETTLING)
        choice = choose_node(snapshot, request, guests(context.world))
        if choice.node is None:
            why = "; ".join(f"{node}: {reason}" for node, reason in sorted(choice.rejected.items())) or choice.reason
            return await _stay_pending(context, job, NO_ROOM, f"no node fits: {why}")
        try:
            own = address_for(context.world, job)
        except NoAddress as error:
            return await _stay_pending(context, job, NO_ADDRESS, str(error))
        checkpoint = chosen_checkpoint(context.world, job) if job.status.restore else None
        if job.status.restore and checkpoint is None:
            return await _write(context, job, fail(job, NO_CHECKPOINT, "it has no checkpoint to go on from", context.now()))
        placed = await _placed(context, job, choice.node, choice.reason, own, checkpoint)
    await context.tell(placed, SCHEDULED, f"placed on node/{choice.node}: {choice.reason}")
    return DONE


async def _placed(context: Context, job: Job, node: str, reason: str, own: Address | None, checkpoint: Checkpoint | None) -> Job:
    world, key = context.world, keys.placement(node, job.namespace, job.name)
    new = job.model_copy(deep=True)
    status = new.status
    status.phase, status.node, status.epoch, status.reason = JobPhase.STARTING, node, status.epoch + 1, reason
    status.observed_generation, status.message = job.metadata.generation, f"node/{node} is starting it"
    status.restart_at, status.exit_code = None, None
    _set(context, new, SCHEDULED, True, PLACED, f"on node/{node}: {reason}")
    transaction = context.store.transaction().expect(*world.expect(key, keys.alive(node), _node_key(node)))
    if own is not None:
        reserve(transaction, world, new, own)
    if checkpoint is not None:
        status.restore, status.message = checkpoint.name, f"node/{node} lets it go on from checkpoint/{checkpoint.name}"
        transaction.expect(*world.expect(keys.object_key(Checkpoint, checkpoint.name, checkpoint.namespace)))
    revision = await transaction.put(key, next_placement(world, new, checkpoint)).put_status(new).commit()
    async with asyncio.timeout(SYNC_LIMIT):
        await context.reached(revision)
    return new


async def _stay_pending(context: Context, job: Job, reason: str, why: str) -> Again:
    new = job.model_copy(deep=True)
    new.status.observed_generation, new.status.message = job.metadata.generation, why
    _set(context, new, SCHEDULED, False, reason, why.removeprefix("no node fits: "))
    if new.status != job.status:
        await context.store.update_status(new)
    return Again(LOOK_AGAIN)


# --- mirroring ---


async def _observe(context: Context, job: Job, held: dict[str, Seen[Placement]]) -> Again:
    node = job.status.node
    if node is None or node not in held:
        return await _without_placement(context, job, held)
    report = context.world.reports.find(node, work_key(job))
    about = (job.metadata.uid, job.status.life)
    mine = report.value if report and (report.value.uid, report.value.life) == about else None
    if mine is None and is_written_off(context.world, node):
        return await _write(context, job, fail(job, NODE_LOST, f"node/{node} is not part of the cluster any more", context.now()))
    await _keep_rules(context, job, held[node])
    where = has_fenced(context.world, node, work_key(job), silence(context, node))
    ready = is_ready(context.world, node)
    new = mirror(job, mine, ready=ready, now=context.now(), silence=where.why)
    plan = _what_follows(context, job, new, mine, where if not ready else None)
    if isinstance(plan, Restart):
        return await begin_again(context, job, held[node], mine, plan, lost=not ready)
    if plan is not None and plan.why:
        new = _left_to_people(context, new, plan)
    if ready and mine is not None and held[node].value.role == Role.RESTORE and mine.phase == ReportPhase.RUNNING:
        return await went_on(context, job, held[node], mine)
    if new.status == job.status:
        return Again(where.after)
    wait = FIGURES_EVERY - context.stopwatch.passed(("figures", job.metadata.uid))
    if only_figures_differ(job.status, new.status) and wait > 0:
        return Again(wait)
    context.stopwatch.restart(("figures", job.metadata.uid))
    return await _write(context, job, new)


def _what_follows(context: Context, job: Job, new: Job, report: JobReport | None, lost: Silence | None) -> Restart | Leave | None:
    """None: nothing out of the common happened. ``new`` is what the job would be, ``lost`` how its silent node stands."""
    found = usable(context.world, job)
    if report is not None and report.phase == ReportPhase.ABSENT:
        return after_restore(job, report, found)
    if report is not None and new.status.phase == JobPhase.FAILED:
        return after_end(job, report, found)
    if lost is not None and new.status.phase == JobPhase.UNKNOWN and lost.fenced:
        return after_loss(job, found, f"node/{job.status.node} is lost")
    return None


def _left_to_people(context: Context, new: Job, plan: Leave) -> Job:
    """What could have been done, and why it was not."""
    if new.status.phase == JobPhase.UNKNOWN:
        new.status.message = plan.why
        return new
    failed = find_condition(new.status.conditions, FAILED)
    return fail(new, failed.reason if failed else NO_CHECKPOINT, plan.why, context.now())


async def _keep_rules(context: Context, job: Job, placed: Seen[Placement]) -> None:
    """The cluster's default and the policy may have changed since the job was placed. The agent needs no other epoch for that."""
    wish = {"fencing": fencing_of(job, context.world.cluster), "time_sharing": time_sharing(context.world)}
    new = placed.value.model_copy(update=wish)
    if new != placed.value:
        await context.store.transaction().expect(*context.world.expect(placed.key)).put(placed.key, new).commit()


async def _without_placement(context: Context, job: Job, held: dict[str, Seen[Placement]]) -> Again:
    """Somebody took its placement away behind our back; its agent kills it then. It is never started a second time."""
    if held:
        raise Terminal("Misplaced", f"{job.label} is placed on {', '.join(held)}, not on {job.status.node}: delete the job")
    node = job.status.node
    message = f"its placement on node/{node} was deleted behind our back: it was stopped there; run it again"
    return await _write(context, job, fail(job, PROCESS_LOST, message, context.now()))


async def _write(context: Context, old: Job, new: Job) -> Again:
    """The status, as long as everything it was read from still stands; then the news."""
    relied_on = [f(old.status.node, old.namespace, old.name) for f in (keys.placement, keys.report) if old.status.node]
    await context.store.transaction().expect(*context.world.expect(*relied_on)).put_status(new).commit()
    if new.status.phase in FINISHED:
        say = context.tell if new.status.phase == JobPhase.SUCCEEDED else context.warn
        await say(new, "Finished", f"{new.status.phase}: {new.status.message}")
    elif new.status.phase == JobPhase.RUNNING and old.status.phase == JobPhase.STARTING:
        await context.tell(new, "Started", f"runs on node/{new.status.node}")
    return DONE


# --- letting go ---


async def _clear_up(context: Context, job: Job) -> None:
    """A node from which the job was taken away has said, by removing its report, that nothing of it is left; or will never say."""
    world, key = context.world, work_key(job)
    for node, seen in world.placements.of_job(key).items():
        if seen.value.uid != job.metadata.uid or seen.value.role != Role.DROP:
            continue
        if world.reports.find(node, key) is None or is_written_off(world, node):
            report = keys.report(node, job.namespace, job.name)
            await context.store.transaction().expect(*world.expect(seen.key, report)).delete(seen.key).commit()


async def _release(context: Context, job: Job, held: dict[str, Seen[Placement]]) -> Again:
    """Takes the placements away, waits until every node reported that nothing is left, and lets the object go.

    A move that is under way is decided first: before that nobody can say which of the two copies has to be stopped.
    """
    if _is_moving(held):
        return await _say(context, job, "is being deleted: waits until its move is decided")
    for node, seen in held.items():
        if _stands_frozen(context.world, node, work_key(job), seen.value):
            return await _say(context, job, f"is being deleted: waits until node/{node} knows that its move was called off")
    awaited = next((node for node, seen in held.items() if waits_for_heir(context.world, node, work_key(job), seen.value)), None)
    if awaited is not None:
        return await _say(context, job, f"is being deleted: node/{awaited} is to remove its directory")
    if held:
        transaction = context.store.transaction()
        for seen in held.values():
            transaction.expect(*context.world.expect(seen.key)).delete(seen.key)
        await transaction.commit()
        return DONE
    left = _left_on(context.world, job)
    if left:
        return await _say(context, job, f"is being deleted: {'; '.join(left)}")
    if is_orphan(context.world, job):
        found = await give_away(context, job)
        return DONE if found else await _say(context, job, "is being deleted: waits for a Ready node, which removes its directory")
    await release(context, job)
    await context.store.remove_finalizer(job, STOP_FINALIZER)
    return DONE


def _stands_frozen(world: World, node: str, job: str, placement: Placement) -> bool:
    """Whether the node still has the frozen copy of a move that was called off. If all it saw were that its placement is gone, it
    would take the job for one that lives elsewhere, and leave its directory."""
    report = world.reports.find(node, job)
    if report is None or report.value.uid != placement.uid or is_written_off(world, node):
        return False
    return report.value.phase == ReportPhase.FROZEN and report.value.epoch < placement.epoch


def _left_on(world: World, job: Job) -> list[str]:
    """The nodes that may still hold something of the job, and what is waited for."""
    left = []
    for node, seen in world.reports.of_job(work_key(job)).items():
        if seen.value.uid != job.metadata.uid or is_written_off(world, node):
            continue
        if seen.value.life < job.status.life and not is_ready(world, node):
            continue  # it was taken away from there, which was done only when nothing could run there any more
        if is_ready(world, node):
            left.append(f"node/{node} is stopping it")
        elif seen.value.phase not in ENDED:
            left.append(f"node/{node} does not answer, and it may still run there")
    return left


async def _say(context: Context, job: Job, message: str) -> Again:
    new = job.model_copy(deep=True)
    new.status.message = message
    if new.status != job.status:
        await context.store.update_status(new)
    return DONE


# --- small things ---


def _check_readable(world: World, key: str) -> None:
    """Who may hold the job must be known before anything is decided about it."""
    for broken in world.broken_about(key):
        raise Terminal("Unreadable", f"{broken.key} cannot be read, so nothing is decided about this job: repair or delete the key")


def _held(world: World, job: Job) -> dict[str, Seen[Placement]]:
    """Placements of this very job, by node. One of an earlier job of the same name is the garbage controller's.

    Those from which it was taken away hold nothing that counts; they stay until their nodes are back (``_clear_up``).
    """
    found = world.placements.of_job(work_key(job))
    return {n: seen for n, seen in found.items() if seen.value.uid == job.metadata.uid and seen.value.role != Role.DROP}


def _is_moving(held: dict[str, Seen[Placement]]) -> bool:
    return any(seen.value.role in (Role.LEAVE, Role.ARRIVE) for seen in held.values())


def _node_key(node: str) -> str:
    return keys.object_key(Node, node)


def _set(context: Context, job: Job, kind: str, status: bool, reason: str, message: str) -> None:
    now, generation = context.now(), job.metadata.generation
    job.status.conditions = set_condition(job.status.conditions, kind, status, reason, message, now, generation)
