"""``mxctl checkpoint``: keep the state of a running job on the shared storage."""

import secrets

import click

from crds.checkpoint import READY, Checkpoint, CheckpointPhase
from crds.job import Job
from crds.keys import object_key
from crds.meta import find_condition
from crds.quantity import human_memory
from mxctl.core.failures import Failure
from mxctl.core.jobs import ended
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.targets import parse_job
from mxctl.core.types import DURATION, NAME
from mxctl.core.verb import Verb
from mxctl.core.watching import until
from store.errors import NotFound
from store.informer import Informer
from store.owners import owner_reference

EXAMPLES = """
mxctl checkpoint w --wait
mxctl checkpoint job/w --name before-the-upgrade --reason "new kernel tonight"
# those there are, and away with one
mxctl get checkpoints
mxctl delete checkpoint before-the-upgrade
# every ten minutes by itself, and to go on from the newest one when its node is lost
mxctl run --checkpoint-interval 10m --restart FromCheckpoint -- ./simulate
"""


@click.command(cls=Verb, examples=EXAMPLES, short_help="Keep the state of a running job on the shared storage")
@click.argument("job")
@click.option("--name", type=NAME, help="Name of the checkpoint; made from the job's unless given.")
@click.option("--wait", is_flag=True, help="Wait until it is there; exit code 1 if it is not.")
@click.option("--timeout", type=DURATION, default="2m", show_default=True, help="After that it has failed.")
@click.option("--reason", default="", help="Why, for people who look at it later.")
@click.pass_obj
def checkpoint(settings: Settings, /, job: str, name: str | None, wait: bool, timeout: float, reason: str) -> None:
    """Keep the state of a running job: memory, processes, /tmp and /dev/shm. It stands still for a moment and runs on.

    A job with spec.restart.policy FromCheckpoint goes on from its newest checkpoint when its node is lost or it fails. Files it
    has open for writing on /shared are cut back then to the length they had; what is cut off is kept in the job's directory.
    What it changed in them in place is not undone. The newest spec.checkpoint.keep checkpoints of a job are kept; only the job's
    user may read them. They go with the job.
    """
    word = parse_job(job)

    async def verb(session: Session) -> None:
        made = await _ask(session, word, name, timeout, reason)
        await warn_if_unled(session)
        if wait:
            click.echo(_success(await _outcome(session, made, timeout)))

    run(settings, verb)


async def _ask(session: Session, word: str, name: str | None, timeout: float, reason: str) -> Checkpoint:
    job = await session.store.get(Job, word, session.namespace)
    if ended(job):
        raise Failure(f"{job.label} has ended ({job.status.phase}): there is nothing to keep")
    metadata = {
        "name": name or f"{job.name[:50].rstrip('-.')}-{secrets.token_hex(4)}",
        "namespace": job.namespace,
        "owner_references": [owner_reference(job)],
    }
    wish = Checkpoint.model_validate({"metadata": metadata, "spec": {"job": job.name, "reason": reason, "deadline": timeout}})
    made = await session.store.create(wish)
    click.echo(f"{made.label} created")
    return made


async def _outcome(session: Session, made: Checkpoint, timeout: float) -> Checkpoint:
    """It, once it is there. Raises Failure otherwise."""

    def over(informer: Informer) -> Checkpoint | None:
        try:
            now = informer.get(Checkpoint, made.name, made.namespace)
        except NotFound as error:
            raise Failure(f"{made.label} was deleted before it was there") from error
        return now if now.status.phase in (CheckpointPhase.READY, CheckpointPhase.FAILED) else None

    try:
        now = await until(session, object_key(Checkpoint, made.name, made.namespace), over, timeout + 5)
    except TimeoutError as error:
        raise Failure(f"{made.label} is not there after {timeout:g} s; see mxctl describe {made.label}") from error
    if now.status.phase == CheckpointPhase.FAILED:
        condition = find_condition(now.status.conditions, READY)
        raise Failure(f"{now.label} was not taken: {(condition and condition.message) or now.status.message}")
    return now


def _success(now: Checkpoint) -> str:
    status = now.status
    freeze = f", {now.spec.job} stood still for {status.freeze_ms:.0f} ms" if status.freeze_ms is not None else ""
    return f"{now.label} is there: {human_memory(status.bytes)}{freeze}"
