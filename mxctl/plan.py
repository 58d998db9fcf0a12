"""``mxctl plan``: what the balancer would do now. Nothing is moved."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from crds.balancepolicy import BalancePolicy
from mxctl.core.failures import Failure
from mxctl.core.files import read_documents
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.verb import Verb
from mxctl.core.world import read_world
from mxctl.output.formats import Format, render_data
from mxctl.output.table import table
from reconciler.controllers.outlook import outlook
from reconciler.controllers.policy import in_force
from reconciler.planning.types import Plan
from reconciler.world import World

EXAMPLES = """
mxctl plan
mxctl plan -o json | jq '.moves[].reason'
# what would a changed policy do right now?
mxctl plan -f policy.yaml
"""

MOST_KEPT = 20


@dataclass(frozen=True, slots=True)
class Outlook:
    """``policy`` None: there is none, so nothing moves by itself."""

    policy: BalancePolicy | None
    plan: Plan
    world: World


@click.command(cls=Verb, examples=EXAMPLES, short_help="Show what the balancer would do now, and why; changes nothing")
@click.option("-f", "--filename", "file", help="Under this BalancePolicy (a file, or - for standard input) and not that in force.")
@click.option("-o", "--output", "form", type=click.Choice(["yaml", "json"]), help="For programs: all of it.")
@click.option("--all", "everything", is_flag=True, help=f"All jobs that stay, not only {MOST_KEPT} of them.")
@click.pass_obj
def plan(settings: Settings, file: str | None, form: str | None, everything: bool) -> None:
    """Show the moves that the balancer would ask for now, each with its reason, why other candidates stay, how uneven the cluster
    is, and which samples are not believed. Nothing is changed.

    The plan is made by the balancer's own code from what stands in etcd, so it cannot say anything else than the balancer; only
    time goes on: what is planned now may have been asked for already a moment later.
    """
    trial = _read_policy(file) if file else None

    async def verb(session: Session) -> None:
        await warn_if_unled(session)
        found = look(await read_world(session), trial)
        if form:
            click.echo(render_data([_data(found)], Format(form), single=True), nl=False)
        else:
            click.echo("\n".join(_lines(found, everything)))

    run(settings, verb)


def look(world: World, trial: BalancePolicy | None = None) -> Outlook:
    """The plan under ``trial``, or else the policy in force."""
    policy = trial or in_force(world)
    made = outlook(world, policy, datetime.now(UTC)) if policy else Plan()
    return Outlook(policy, made, world)


def _read_policy(name: str) -> BalancePolicy:
    found = [document.obj for document in read_documents([name])]
    policies = [one for one in found if isinstance(one, BalancePolicy)]
    if len(policies) != 1:
        raise Failure(f"{name}: has {len(policies)} BalancePolicies: give a file with one")
    return policies[0]


def _lines(found: Outlook, everything: bool) -> Iterator[str]:
    made, policy = found.plan, found.policy
    if policy is None:
        yield "There is no BalancePolicy, so nothing moves by itself: mxctl apply one, or try one with -f."
        return
    yield f"Policy:    {policy.name}, goal {policy.spec.goal}"
    yield f"Imbalance: {made.imbalance:.2f}, target {policy.spec.imbalance_target:g}"
    yield f"Balanced:  {'yes' if made.balanced else 'no'}: {made.reason}: {made.message}"
    yield f"Moves:{'' if made.moves else '     none'}"
    rows = [[move.job, move.source, move.destination, f"{move.gain:.0%}", move.reason] for move in made.moves]
    yield from (f"  {line}" for line in table(["JOB", "FROM", "TO", "GAIN", "REASON"], rows) if rows)
    shown = made.kept if everything else made.kept[:MOST_KEPT]
    yield f"Stay:{'' if made.kept else '      no candidate'}"
    yield from (f"  {line}" for line in table(["JOB", "REASON"], [[kept.job, kept.reason] for kept in shown]) if shown)
    if len(shown) < len(made.kept):
        yield f"  and {len(made.kept) - len(shown)} more, see --all"
    yield f"Ignored:{'' if made.ignored else '   nothing'}"
    yield from (f"  {line}" for line in made.ignored)


def _data(found: Outlook) -> dict[str, Any]:
    made = found.plan
    return {
        "policy": found.policy.name if found.policy else None,
        "imbalance": round(made.imbalance, 4),
        "balanced": made.balanced,
        "reason": made.reason,
        "message": made.message,
        "moves": [
            {"job": m.job, "source": m.source, "destination": m.destination, "gain": m.gain, "reason": m.reason} for m in made.moves
        ],
        "kept": [{"job": kept.job, "reason": kept.reason} for kept in made.kept],
        "ignored": list(made.ignored),
    }
