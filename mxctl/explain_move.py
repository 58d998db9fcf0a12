"""``mxctl explain-move``: why a job is where it is, why it moved, why it does not move now, and what would make it move."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from crds.balancepolicy import BalancePolicy
from crds.job import FINISHED, Job
from crds.migration import Migration, MigrationPhase
from crds.quantity import human_memory
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.targets import parse_job
from mxctl.core.verb import Verb
from mxctl.core.world import read_world
from mxctl.output.age import age, span
from mxctl.output.formats import Format, render_data
from mxctl.output.table import table
from reconciler.controllers.destinations import ask_around
from reconciler.controllers.policy import in_force
from reconciler.controllers.snapshot import take_snapshot
from reconciler.planning.balance import plan_moves
from reconciler.planning.counterfactual import Answer, what_would_move
from reconciler.planning.types import JobView, PlannedMove
from reconciler.world import World, work_key

EXAMPLES = """
mxctl explain-move w
mxctl explain-move w -o json | jq '.now'
"""


@dataclass(frozen=True, slots=True)
class Explanation:
    """``view`` None: no node holds it. ``move``: what the balancer would do with it now; else ``stays`` says why it stays."""

    job: Job
    policy: BalancePolicy | None
    view: JobView | None
    move: PlannedMove | None
    stays: str
    would: Sequence[Answer]
    told: Sequence[str]
    """What the last decision that was written down says of it."""
    moves: Sequence[Migration]
    """Its moves that are remembered, oldest first."""
    nodes: dict[str, str]
    """By node why it cannot be moved there; empty where it can."""


@click.command("explain-move", cls=Verb, examples=EXAMPLES, short_help="Tell why a job is where it is, and what would move it")
@click.argument("job")
@click.option("-o", "--output", "form", type=click.Choice(["yaml", "json"]), help="For programs.")
@click.pass_obj
def explain_move(settings: Settings, job: str, form: str | None) -> None:
    """Tell why JOB is where it is, why it was moved, whether the balancer would move it now, why not, and what would change that.

    All of it comes from the balancer's own code. What would change it is found by asking that code again, each time with one thing
    changed: the policy, the job, a node, or the load. Nothing is moved.
    """
    name = parse_job(job)

    async def verb(session: Session) -> None:
        await warn_if_unled(session)
        found = await session.store.get(Job, name, session.namespace)  # says what is wrong: it is not there, or broken
        told = explain(await read_world(session), found, datetime.now(UTC))
        if form:
            click.echo(render_data([_data(told)], Format(form), single=True), nl=False)
        else:
            click.echo("\n".join(_lines(told)))

    run(settings, verb)


def explain(world: World, job: Job, now: datetime) -> Explanation:
    """From one picture of the world."""
    key, policy = work_key(job), in_force(world)
    job = world.find(Job, key) or job
    snapshot = take_snapshot(world, now)
    view = next((view for view in snapshot.jobs if view.key == key), None)
    move, stays, would = None, _why_not_asked(job, policy, view), list[Answer]()
    if policy is not None and view is not None:
        made = plan_moves(snapshot, policy.spec)
        move = next((move for move in made.moves if move.job == key), None)
        why = next((kept.reason for kept in made.kept if kept.job == key), "")
        stays = "" if move else why or view.why_not_movable or made.message
        would = [] if move else what_would_move(plan_moves, snapshot, policy.spec, view)
    decision = policy.status.last_decision if policy else None
    lines = [*decision.moves, *(f"{kept.job}: {kept.reason}" for kept in decision.kept)] if decision else []
    told = [line for line in lines if line.startswith(f"{key}: ")]
    moves = sorted(world.migrations_of(key), key=_when)
    nodes = ask_around(world, job, now) if job.status.node else {}
    return Explanation(job, policy, view, move, stays, would, told, moves, nodes)


def _when(migration: Migration) -> tuple[float, str]:
    since = migration.status.started_at or migration.metadata.creation_timestamp
    return (since.timestamp() if since else 0.0, migration.name)


def _why_not_asked(job: Job, policy: BalancePolicy | None, view: JobView | None) -> str:
    if view is None:
        return f"it is {job.status.phase}" + (": nothing is left to move" if job.status.phase in FINISHED else "")
    return "" if policy else "there is no BalancePolicy, so nothing moves by itself"


def _lines(told: Explanation) -> Iterator[str]:
    job, status = told.job, told.job.status
    since = status.moves[-1].time if status.moves else status.started_at
    yield f"Job:        {work_key(job)}, {status.phase}" + (f", started {age(status.started_at)} ago" if status.started_at else "")
    if status.node:
        yield f"Node:       {status.node}, for {age(since)}, after {status.move_count} moves"
        yield f"Here since: {status.reason or 'nobody wrote down why'}"
    if told.view is not None:
        view = told.view
        yield f"Wants:      {view.cpu_demand:.2f} runnable tasks, {human_memory(view.memory)}; runs for {span(view.age)}"
    if told.move is not None:
        yield f"Now:        moves to {told.move.destination}: {told.move.reason}"
    else:
        yield f"Now:        stays: {told.stays}"
    if told.view is not None and told.move is None and told.policy is not None:
        yield "It would move:" if told.would else "It would move: with none of the single changes that were tried"
        rows = [[answer.change, answer.destination, answer.reason] for answer in told.would]
        yield from (f"  {line}" for line in table(["CHANGE", "TO", "BECAUSE"], rows) if rows)
    if told.nodes:
        yield "Could be moved to:"
        rows = [[node, "no" if why else "yes", why] for node, why in told.nodes.items()]
        yield from (f"  {line}" for line in table(["NODE", "CAN", "REASON"], rows))
    yield from _history(told)
    if told.policy is not None and told.policy.status.last_decision is not None:
        decided = told.policy.status.last_decision
        yield f"Last decision: {age(decided.time)} ago" + ("" if told.told else ", says nothing of it")
        yield from (f"  {line}" for line in told.told)


def _history(told: Explanation) -> Iterator[str]:
    if not told.moves:
        yield "Moves:      none that is remembered"
        return
    yield "Moves:"
    rows = [
        [
            f"{age(m.status.finished_at or m.status.started_at or m.metadata.creation_timestamp)} ago",
            m.status.source or "-",
            m.status.destination or m.spec.to or "-",
            str(m.status.phase),
            "-" if m.status.freeze_ms is None else f"{m.status.freeze_ms:.0f}ms",
            m.spec.requested_by,
            (m.status.message if m.status.phase == MigrationPhase.FAILED else "") or m.spec.reason,
        ]
        for m in told.moves
    ]
    titles = ["WHEN", "FROM", "TO", "OUTCOME", "FREEZE", "BY", "WHY"]
    yield from (f"  {line}" for line in table(titles, rows))


def _data(told: Explanation) -> dict[str, Any]:
    status, view = told.job.status, told.view
    return {
        "job": work_key(told.job),
        "phase": str(status.phase),
        "node": status.node,
        "here": status.reason,
        "wants": None if view is None else {"tasks": view.cpu_demand, "memory": view.memory, "age": round(view.age, 1)},
        "now": {"moves": True, "to": told.move.destination, "reason": told.move.reason}
        if told.move
        else {"moves": False, "reason": told.stays},
        "wouldMove": [{"change": a.change, "to": a.destination, "reason": a.reason} for a in told.would],
        "nodes": [{"node": node, "canMigrate": not why, **({"reason": why} if why else {})} for node, why in told.nodes.items()],
        "moves": [
            {
                "migration": m.name,
                "source": m.status.source,
                "destination": m.status.destination or m.spec.to,
                "phase": str(m.status.phase),
                "freezeMs": m.status.freeze_ms,
                "requestedBy": m.spec.requested_by,
                "reason": m.spec.reason,
                "message": m.status.message,
            }
            for m in told.moves
        ],
        "lastDecision": list(told.told),
    }
