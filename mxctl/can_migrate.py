"""``mxctl can-migrate``: whether a job could be moved now, and where to."""

from datetime import UTC, datetime
from typing import Any

import click

from crds.job import Job
from mxctl.core.failures import FAILED, Failure
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.targets import parse_job
from mxctl.core.types import NAME
from mxctl.core.verb import Verb
from mxctl.core.world import read_world
from mxctl.output.formats import Format, render_data
from mxctl.output.table import table
from reconciler.controllers.destinations import ask_around
from store.errors import NotFound

EXAMPLES = """
mxctl can-migrate w
mxctl can-migrate w n2 && mxctl migrate w n2 --wait
mxctl can-migrate w -o json
"""


@click.command("can-migrate", cls=Verb, examples=EXAMPLES, short_help="Tell whether a job could be moved, and where to")
@click.argument("job")
@click.argument("node", type=NAME, required=False)
@click.option("-o", "--output", "form", type=click.Choice(["yaml", "json"]), help="For programs.")
@click.option("--no-headers", is_flag=True, help="Without the line of titles.")
@click.pass_obj
def can_migrate(settings: Settings, job: str, node: str | None, form: str | None, no_headers: bool) -> int:
    """Tell for every node, or for NODE, whether the running JOB could be moved there now, and if not, why.

    Exit code 0 if it can be moved (to NODE), otherwise 1. Nothing is moved, and nothing stops.

    The job's node looks every few seconds, and once more right before each move, for what cannot be moved: io_uring, devices and
    GPUs, connections to programs that stay behind, files that only this node has, debuggers. All of it is the job's condition
    Migratable. A node must also have the memory, the labels and all CPU features of the node the job is on; where it runs another
    image or was joined by hand, the same program and libraries, too. A job whose spec.migration.allowed is false is moved by mxctl
    migrate only, never by the balancer or drain.
    """
    name = parse_job(job)

    async def verb(session: Session) -> int:
        await warn_if_unled(session)
        answers = await _ask(session, name, node)
        able = any(not why for why in answers.values())
        if form:
            click.echo(render_data([_data(name, able, answers)], Format(form), single=True), nl=False)
        else:
            rows = [[each, "no" if why else "yes", why] for each, why in answers.items()]
            lines = table(["NODE", "CAN", "REASON"], rows)
            click.echo("\n".join(lines[1:] if no_headers else lines))
        return 0 if able else FAILED

    return run(settings, verb)


async def _ask(session: Session, name: str, node: str | None) -> dict[str, str]:
    """By node why not, empty where it can. NotFound, Failure."""
    world = await read_world(session)
    key = f"{session.namespace}/{name}"
    job = world.find(Job, key)
    if job is None:
        await session.store.get(Job, name, session.namespace)  # says what is wrong: it is not there, or broken
        raise Failure(f"job/{name} has just been created, ask again")
    answers = ask_around(world, job, datetime.now(UTC))
    if node is None:
        return answers
    if node not in answers:
        raise NotFound(f"node/{node} does not exist")
    return {node: answers[node]}


def _data(name: str, able: bool, answers: dict[str, str]) -> dict[str, Any]:
    nodes = [{"node": node, "canMigrate": not why, **({"reason": why} if why else {})} for node, why in answers.items()]
    return {"job": name, "canMigrate": able, "nodes": nodes}
