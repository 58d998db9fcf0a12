"""Talking to a job, as ``run``, ``attach`` and ``exec`` do: what a person is told around it, and the exit code."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from crds.job import Job
from mxctl.core.failures import FAILED, Failure
from mxctl.core.jobs import ended, exit_code, job_key, same_job
from mxctl.core.keyboard import DETACH_KEYS, raw, say, window
from mxctl.core.session import Session
from mxctl.core.talk import FAREWELL, Broken, Detached, Ended, Talk
from mxctl.core.watching import until
from nodeagent.stdio.client import Client
from store.informer import Informer

F = TypeVar("F", bound=Callable[..., Any])


def detach_keys(command: F) -> F:
    """--detach-keys."""
    words = "Keys that leave the job running; empty for none."
    return click.option("--detach-keys", default=DETACH_KEYS, show_default=True, metavar="KEYS", help=words)(command)


async def converse(session: Session, job: Job, *, live: bool, typing: bool, detach_keys: bytes) -> int:
    """Talks to it until it ends or the person leaves; the exit code of the command. ``live``: nothing of what it printed before."""
    tty = job.spec.stdio.tty
    rows, columns = window() if tty else (0, 0)
    client = Client(live=live, rows=rows, columns=columns)
    with raw(tty and typing):
        outcome = await Talk(session, job, client, typing=typing, detach_keys=detach_keys if tty else b"").run()
    if isinstance(outcome, Detached):
        click.echo(f"{job.label} goes on; come back with: mxctl attach {job.name}", err=True)
        return outcome.code
    if isinstance(outcome, Broken):
        raise Failure(f"{job.label}: {outcome.reason}", exit_code=outcome.code)
    if isinstance(outcome, Ended):
        await _known_to_have_ended(session, job)
        return outcome.code
    if outcome.job is None:
        raise Failure(f"{job.label} was deleted")
    return _told_by_status(outcome.job)


def _told_by_status(job: Job) -> int:
    code = exit_code(job)
    if code:
        click.echo(f"{job.label} failed: {job.status.message or job.status.reason or f'exit code {code}'}", err=True)
    return code if 0 <= code < 256 else FAILED


async def _known_to_have_ended(session: Session, job: Job) -> None:
    """So that whoever looks after this command sees it; not for long."""

    def over(informer: Informer) -> bool | None:
        now = same_job(informer, job)
        return True if now is None or ended(now) else None

    try:
        await until(session, job_key(job), over, FAREWELL)
    except TimeoutError:
        say(f"{job.label} has ended, but the cluster does not show it yet")
