"""Balance: asks the planner every few seconds which jobs should move, and asks for these moves. It moves nothing itself.

The plan is made from one picture of the world. Between two moves of a plan something may have changed, so each is checked once
more, and the Migration is created only if its job is still the very same. Migrations are objects like those that people make:
the migration controller treats both alike, and people see who asked for what, and why.
"""

from collections.abc import Iterable

from crds.balancepolicy import BALANCED, OVERRIDDEN, BalancePolicy, Decision, Goal, Kept
from crds.job import Job
from crds.meta import Metadata, Truth, set_condition
from crds.migration import Migration, MigrationSpec
from reconciler.context import Context
from reconciler.controllers.history import last_hour
from reconciler.controllers.names import migration_name
from reconciler.controllers.outlook import outlook
from reconciler.controllers.policy import in_force
from reconciler.controllers.readiness import takes_orders
from reconciler.controllers.snapshot import why_not_movable
from reconciler.planning.types import Plan, PlannedMove
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import Delta, World
from store.errors import Conflict, Fenced
from store.owners import owner_reference

CLUSTER = "cluster"
MOST_KEPT = 20
MOST_IGNORED = 20
FIGURES_EVERY = 10.0
"""Seconds between two writes of a status in which only figures changed a little."""
NOTABLE = 0.05
"""A change of the imbalance by this much is written at once."""


def _cluster(_: World) -> Iterable[str]:
    return [CLUSTER]


def _spec_changed(delta: Delta, _: World) -> Iterable[str]:
    """The own status is no news."""
    old, new = (p.spec if isinstance(p, BalancePolicy) else None for p in (delta.old, delta.new))
    return [CLUSTER] if old != new else []


@controller("balance", start=_cluster, watches=[Watch("kinds/balancepolicies/", _spec_changed)])
async def balance(context: Context, _: str) -> Again:
    policy = in_force(context.world)
    for other in context.world.all(BalancePolicy):
        if policy is not None and other.name != policy.name:
            await _override(context, other, policy)
    if policy is None:
        return DONE
    plan = outlook(context.world, policy, context.now())
    asked = [move for move in plan.moves if await _ask(context, policy, move)] if policy.spec.goal != Goal.NONE else []
    await _say(context, policy, plan, asked)
    return Again(policy.spec.interval)


async def _ask(context: Context, policy: BalancePolicy, move: PlannedMove) -> bool:
    """Creates the Migration; False when the move makes no sense any more."""
    world = context.world
    job = world.find(Job, move.job)
    if job is None or job.status.node != move.source or why_not_movable(world, job) or not takes_orders(world, move.destination):
        return False
    migration = Migration(
        metadata=Metadata(name=migration_name(world, job), namespace=job.namespace, owner_references=[owner_reference(job)]),
        spec=MigrationSpec(job=job.name, to=move.destination, reason=move.reason, cause=str(move.cause), requested_by=policy.name),
    )
    transaction = context.store.transaction().expect(*world.expect(world.object_key(Job, move.job)))
    try:
        await context.reached(await transaction.create(migration).commit())
    except Fenced:
        raise
    except Conflict:
        return False
    return True


async def _say(context: Context, policy: BalancePolicy, plan: Plan, asked: list[PlannedMove]) -> None:
    new = policy.model_copy(deep=True)
    status = new.status
    status.observed_generation = policy.metadata.generation
    status.imbalance, status.moves = round(plan.imbalance, 3), status.moves + len(asked)
    status.ignored = list(plan.ignored)[:MOST_IGNORED]
    hour = last_hour(context.world, policy.name, context.now())
    status.moves_per_hour, status.failed_per_hour, status.wasted_per_hour = hour.succeeded, hour.failed, hour.wasted
    _decide(context, new, plan, asked)
    _set(context, new, Truth.TRUE if plan.balanced else Truth.FALSE, plan.reason, plan.message)
    if not _worth_writing(context, policy, new):
        return
    context.stopwatch.restart(("figures", policy.metadata.uid))
    await context.store.update_status(new)


def _decide(context: Context, policy: BalancePolicy, plan: Plan, asked: list[PlannedMove]) -> None:
    """The last decision is kept until there is another one; the same reasons with other figures are the same decision."""
    kept = [Kept(job=kept.job, reason=kept.reason) for kept in plan.kept][:MOST_KEPT]
    old = policy.status.last_decision
    if asked:
        moves = [f"{move.job}: {move.source} -> {move.destination}: {move.reason}" for move in asked]
        policy.status.last_decision = Decision(time=context.now(), moves=moves, kept=kept)
    elif old is None or {k.job for k in old.kept} != {k.job for k in kept}:
        policy.status.last_decision = Decision(time=context.now(), moves=old.moves if old else [], kept=kept)


def _worth_writing(context: Context, old: BalancePolicy, new: BalancePolicy) -> bool:
    """Whether people should see it now. Figures wobble all the time; that alone is told every ten seconds."""
    if old.status == new.status:
        return False
    before, after = (p.status.imbalance or 0.0 for p in (old, new))
    moved = old.status.moves != new.status.moves or abs(before - after) >= NOTABLE or old.status.imbalance is None
    conditions = [[(c.type, c.status, c.reason) for c in p.status.conditions] for p in (old, new)]
    return moved or conditions[0] != conditions[1] or context.stopwatch.passed(("figures", old.metadata.uid)) >= FIGURES_EVERY


async def _override(context: Context, policy: BalancePolicy, other: BalancePolicy) -> None:
    new = policy.model_copy(deep=True)
    new.status.observed_generation = policy.metadata.generation
    new.status.imbalance = None
    _set(context, new, Truth.UNKNOWN, OVERRIDDEN, f"balancepolicy/{other.name} is in force, it is the first by name")
    if new.status != policy.status:
        await context.store.update_status(new)


def _set(context: Context, policy: BalancePolicy, status: Truth, reason: str, message: str) -> None:
    now, generation = context.now(), policy.metadata.generation
    policy.status.conditions = set_condition(policy.status.conditions, BALANCED, status, reason, message, now, generation)
