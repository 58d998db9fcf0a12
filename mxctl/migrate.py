"""``mxctl migrate``: move a running job to another node."""

import click

from crds.job import Job
from crds.keys import object_key
from crds.migration import Migration, MigrationPhase
from crds.node import Node
from mxctl.core.failures import Failure
from mxctl.core.jobs import ended
from mxctl.core.moves import ENDED, failure, new_migration, success
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.targets import parse_job
from mxctl.core.types import DURATION, NAME
from mxctl.core.verb import Verb
from mxctl.core.watching import until
from store.errors import NotFound
from store.informer import Informer

EXAMPLES = """
mxctl migrate w n2 --wait
# to wherever it fits best
mxctl migrate job/w --reason "n1 gets new memory"
"""


@click.command(cls=Verb, examples=EXAMPLES, short_help="Move a running job to another node")
@click.argument("job")
@click.argument("node", type=NAME, required=False)
@click.option("--wait", is_flag=True, help="Wait for the outcome; exit code 1 if the job was not moved.")
@click.option("--timeout", type=DURATION, default="2m", show_default=True, help="Wait no longer than this; the move goes on.")
@click.option("--reason", default="", help="Why, for people who look at it later.")
@click.pass_obj
def migrate(settings: Settings, /, job: str, node: str | None, wait: bool, timeout: float, reason: str) -> None:
    """Move a running job, with its memory, files and threads, to NODE, or to wherever it fits best.

    If anything goes wrong the job goes on where it was.
    """
    name = parse_job(job)

    async def verb(session: Session) -> None:
        migration = await _ask(session, name, node, reason)
        await warn_if_unled(session)
        if wait:
            click.echo(success(await outcome(session, migration, timeout)))

    run(settings, verb)


async def _ask(session: Session, name: str, node: str | None, reason: str) -> Migration:
    job = await session.store.get(Job, name, session.namespace)
    if ended(job):
        raise Failure(f"{job.label} cannot be moved: it has ended ({job.status.phase})")
    if node:
        await session.store.get(Node, node)
    wish = new_migration(job.name, job.namespace, to=node, requested_by="user", reason=reason)
    migration = await session.store.create(wish)
    click.echo(f"{migration.label} created")
    return migration


async def outcome(session: Session, migration: Migration, timeout: float) -> Migration:
    """The migration once it is over and has succeeded. Raises Failure otherwise."""

    def over(informer: Informer) -> Migration | None:
        try:
            now = informer.get(Migration, migration.name, migration.namespace)
        except NotFound as error:
            raise Failure(
                f"{migration.label} was deleted before its outcome was known; see mxctl get job {migration.spec.job}"
            ) from error
        return now if now.status.phase in ENDED else None

    key = object_key(Migration, migration.name, migration.namespace)
    try:
        now = await until(session, key, over, timeout)
    except TimeoutError as error:
        raise Failure(
            f"{migration.label} is not over after {timeout:g} s; it goes on, see mxctl describe {migration.label}"
        ) from error
    if now.status.phase == MigrationPhase.FAILED:
        raise Failure(failure(now))
    return now
