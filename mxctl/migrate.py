"""``mxctl migrate``: move a running job to another node."""

import click

from crds.job import Job, MigrationMode
from crds.keys import object_key
from crds.meta import RECONCILED, Truth, find_condition
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
mxctl migrate idle n2 --mode post-copy --wait
# call off the move of a job, or a migration by its name
mxctl migrate --cancel w --wait
"""


@click.command(cls=Verb, examples=EXAMPLES, short_help="Move a running job to another node")
@click.argument("job")
@click.argument("node", type=NAME, required=False)
@click.option("--wait", is_flag=True, help="Wait for the outcome; exit code 1 if the job was not moved.")
@click.option("--timeout", type=DURATION, default="2m", show_default=True, help="Wait no longer than this; the move goes on.")
@click.option("--reason", default="", help="Why, for people who look at it later.")
@click.option("--mode", type=click.Choice([str(mode) for mode in MigrationMode]), help="How; the job's own wish when not given.")
@click.option("--cancel", is_flag=True, help="Call off the move of JOB, or the migration of this name.")
@click.pass_obj
def migrate(
    settings: Settings, /, job: str, node: str | None, wait: bool, timeout: float, reason: str, mode: str | None, cancel: bool
) -> None:
    """Move a running job, with its memory, files and threads, to NODE, or to wherever it fits best.

    The way of moving: stop freezes the job, copies its memory and goes on. post-copy goes on first and copies then, which freezes
    shortest, but makes the job slow until all has come, and loses it if the old node is lost before that. pre-copy copies while it
    runs, where the kernel allows that. auto takes the one that fits the job's spec.migration.freezeBudget.

    If anything goes wrong the job goes on where it was. With --cancel a move that is under way is called off, unless its
    destination has taken the job already.
    """
    if cancel:
        if node or reason or mode:
            raise Failure("--cancel takes a job or a migration and nothing else")
        run(settings, lambda session: _cancel(session, job, timeout if wait else None))
        return
    name = parse_job(job)

    async def verb(session: Session) -> None:
        migration = await _ask(session, name, node, reason, mode)
        await warn_if_unled(session)
        if wait:
            click.echo(success(await outcome(session, migration, timeout)))

    run(settings, verb)


async def _ask(session: Session, name: str, node: str | None, reason: str, mode: str | None) -> Migration:
    job = await session.store.get(Job, name, session.namespace)
    if ended(job):
        raise Failure(f"{job.label} cannot be moved: it has ended ({job.status.phase})")
    if node:
        await session.store.get(Node, node)
    wish = new_migration(job.name, job.namespace, to=node, requested_by="user", reason=reason, mode=mode)
    migration = await session.store.create(wish)
    click.echo(f"{migration.label} created")
    return migration


async def _cancel(session: Session, word: str, timeout: float | None) -> None:
    """Asks for it; with ``timeout`` (seconds) waits for what became of it. Raises Failure when it is too late."""
    migration = await _find(session, word)
    if migration.status.phase in ENDED:
        raise Failure(_too_late(migration))

    def change(found: Migration) -> None:
        found.spec.cancelled = True

    await session.store.change(Migration, migration.name, migration.namespace, change)
    click.echo(f"{migration.label} is to be called off")
    await warn_if_unled(session)
    if timeout is None:
        return
    now = await ended_migration(session, migration, timeout)
    if now.status.phase == MigrationPhase.SUCCEEDED:
        raise Failure(_too_late(now))
    click.echo(f"{now.label} is over: {now.status.message}")


def _too_late(migration: Migration) -> str:
    how = success(migration) if migration.status.phase == MigrationPhase.SUCCEEDED else failure(migration)
    return f"too late: {migration.label} is over: {how}"


async def _find(session: Session, word: str) -> Migration:
    """The migration of that name, or the open one of the job of that name. Raises Failure, NotFound."""
    kind, _, name = word.rpartition("/")
    known = (await session.store.list(Migration, session.namespace)).items
    for migration in known:
        if kind in ("", "migration", "mig") and migration.name == name:
            return migration
    open_ones = [m for m in known if kind in ("", "job") and m.spec.job == name and m.status.phase not in ENDED]
    if not open_ones:
        raise Failure(f"{word}: no move of it is under way, and no migration has this name; see mxctl get migrations")
    moving = [m for m in open_ones if m.status.phase == MigrationPhase.MOVING]
    return (moving or open_ones)[0]


async def outcome(session: Session, migration: Migration, timeout: float) -> Migration:
    """The migration once it is over and has succeeded. Raises Failure otherwise."""
    now = await ended_migration(session, migration, timeout)
    if now.status.phase == MigrationPhase.FAILED:
        raise Failure(failure(now))
    return now


async def ended_migration(session: Session, migration: Migration, timeout: float) -> Migration:
    """The migration once it is over, however it went. Raises Failure when it is not, or nobody can decide about it."""

    def over(informer: Informer) -> Migration | None:
        try:
            now = informer.get(Migration, migration.name, migration.namespace)
        except NotFound as error:
            raise Failure(
                f"{migration.label} was deleted before its outcome was known; see mxctl get job {migration.spec.job}"
            ) from error
        stuck = find_condition(now.status.conditions, RECONCILED)
        if stuck is not None and stuck.status == Truth.FALSE:
            raise Failure(f"{migration.label} cannot be decided: {stuck.reason}: {stuck.message}")
        return now if now.status.phase in ENDED else None

    key = object_key(Migration, migration.name, migration.namespace)
    try:
        return await until(session, key, over, timeout)
    except TimeoutError as error:
        raise Failure(
            f"{migration.label} is not over after {timeout:g} s; it goes on, see mxctl describe {migration.label}"
        ) from error
