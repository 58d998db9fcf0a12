"""``mxctl drain``: cordon a node and move all its jobs away, by ordinary Migrations."""

import asyncio

import click

from crds.job import FINISHED, Job, JobPhase
from crds.keys import OBJECTS
from crds.migration import Migration, MigrationPhase
from mxctl.cordon import set_unschedulable
from mxctl.core.failures import Failure
from mxctl.core.moves import ENDED, failure, new_migration, success
from mxctl.core.reading import warn_of
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.types import DURATION
from mxctl.core.verb import Verb
from mxctl.core.watching import Watched, watching
from reconciler.planning.drain import hindrance
from store.errors import NotFound
from store.informer import Informer

EXAMPLES = """
mxctl drain n2 --wait
# and when the work on it is done
mxctl uncordon n2
"""


@click.command(cls=Verb, examples=EXAMPLES, short_help="Move all jobs away from a node")
@click.argument("node")
@click.option("--wait", is_flag=True, help="Wait until all jobs have left; exit code 1 if one could not.")
@click.option("--timeout", type=DURATION, default="5m", show_default=True, help="Wait no longer than this; the moves go on.")
@click.pass_obj
def drain(settings: Settings, node: str, wait: bool, timeout: float) -> None:
    """Let no job come to NODE any more, and move all that run there to where they fit.

    Jobs that cannot be moved (see mxctl can-migrate), are pinned, or whose spec.migration.allowed is false, stay and are named as
    errors.
    """

    run(settings, lambda session: _drain(session, node, timeout if wait else None))


async def _drain(session: Session, node: str, timeout: float | None) -> None:
    """``timeout`` None: does not wait."""
    await set_unschedulable(session, node, True)
    await warn_if_unled(session)
    draining = Draining(session, node)
    async with watching(session, OBJECTS) as watched:
        warn_of(watched.informer.list(Job).broken)
        await draining.start(watched.informer)
        if timeout is None:
            draining.name_waiting(watched.informer)
        else:
            await _wait(draining, watched, timeout)
    if draining.errors:
        raise Failure(*draining.errors, f"node/{node} is cordoned, but not all jobs can leave it")


async def _wait(draining: "Draining", watched: Watched, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            while not draining.over(watched.informer):
                await watched.changes()
                await draining.start(watched.informer)
    except TimeoutError as error:
        left = ", ".join(job.label for job in draining.left(watched.informer))
        raise Failure(*draining.errors, f"node/{draining.node} is not empty after {timeout:g} s; still there: {left}") from error


class Draining:
    """Asks once for the move of each job that is on the node, and keeps what came of it. A job that cannot leave is an error."""

    def __init__(self, session: Session, node: str) -> None:
        self.errors: list[str] = []
        self._session = session
        self.node = node
        self._asked: dict[str, Migration] = {}
        self._told: set[str] = set()
        self._stuck: set[str] = set()

    def left(self, informer: Informer) -> list[Job]:
        """Jobs on the node that have not ended."""
        jobs = informer.list(Job).items
        return [job for job in jobs if job.status.node == self.node and job.status.phase not in FINISHED]

    def over(self, informer: Informer) -> bool:
        """Whether nothing more is to be expected."""
        left = {_uid(job) for job in self.left(informer)}
        self._listen(informer, left)
        return left <= self._stuck and self._asked.keys() <= self._told

    async def start(self, informer: Informer) -> None:
        """Asks for the moves that are still to be asked for. A job that is just being started has to run first."""
        for job in self.left(informer):
            uid = _uid(job)
            if uid in self._asked or uid in self._stuck:
                continue
            why = hindrance(job)
            if why:
                self._give_up(uid, f"{job.label} cannot be moved away: {why}")
            elif job.status.phase == JobPhase.RUNNING:
                wish = new_migration(job.name, job.namespace, to=None, requested_by="drain", reason=f"node {self.node} is drained")
                self._asked[uid] = await self._session.store.create(wish)
                click.echo(f"{self._asked[uid].label} created for {job.label}")

    def name_waiting(self, informer: Informer) -> None:
        """Errors for jobs whose move could not be asked for yet."""
        for job in self.left(informer):
            if _uid(job) not in self._asked.keys() | self._stuck:
                self._give_up(
                    _uid(job), f"{job.label} is {job.status.phase}, so it cannot be moved now: drain again, or add --wait"
                )

    def _listen(self, informer: Informer, left: set[str]) -> None:
        """Tells of each move that is over. One that failed because its job ended is no error: the job has left too."""
        for uid, asked in self._asked.items():
            if uid in self._told:
                continue
            try:
                now = informer.get(Migration, asked.name, asked.namespace)
            except NotFound:
                if informer.revision >= (asked.metadata.resource_version or 0):  # else it is not seen yet
                    self._give_up(uid, f"{asked.label} was deleted before its outcome was known")
                continue
            if now.status.phase == MigrationPhase.SUCCEEDED:
                self._told.add(uid)
                click.echo(success(now))
            elif now.status.phase in ENDED and uid in left:
                self._give_up(uid, failure(now))
            elif now.status.phase in ENDED:
                self._told.add(uid)
                click.echo(f"job/{asked.spec.job} ended before it was moved")

    def _give_up(self, uid: str, why: str) -> None:
        self._told.add(uid)
        self._stuck.add(uid)
        self.errors.append(why)


def _uid(job: Job) -> str:
    return job.metadata.uid or job.label
