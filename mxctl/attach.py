"""``mxctl attach``: talk to a job that runs with -i or -t."""

import os

import click

from crds.job import Job
from mxctl.core.conversation import converse, detach_keys
from mxctl.core.failures import Failure
from mxctl.core.jobs import ended
from mxctl.core.keyboard import STDIN, parse_keys
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.targets import parse_job
from mxctl.core.verb import Verb

EXAMPLES = """
mxctl attach shell
# only look on
mxctl attach --no-stdin shell
# leave it with ctrl-] instead of ctrl-p ctrl-q
mxctl attach --detach-keys ctrl-] shell
"""


@click.command(cls=Verb, examples=EXAMPLES, short_help="Talk to a running job")
@click.argument("job")
@click.option("--no-stdin", is_flag=True, help="Only show what it prints.")
@detach_keys
@click.pass_obj
def attach(settings: Settings, /, job: str, no_stdin: bool, detach_keys: str) -> int:
    """Talk to a job that was started with -i or -t, wherever it runs: its terminal, or its standard input and output.

    Several may be attached at once. The command ends with the job's exit code. When the job is moved, you see no more than a pause.
    """
    name = parse_job(job)
    keys = parse_keys(detach_keys)
    return run(settings, lambda session: _attach(session, name, not no_stdin, keys))


async def _attach(session: Session, name: str, typing: bool, keys: bytes) -> int:
    job = await session.store.get(Job, name, session.namespace)
    stdio = job.spec.stdio
    if not (stdio.stdin or stdio.tty):
        raise Failure(f"{job.label} was started without -i and -t, there is nobody to talk to; see mxctl logs -f {name}")
    if ended(job):
        raise Failure(f"{job.label} has ended ({job.status.phase}); see mxctl logs {name}")
    if stdio.tty and stdio.stdin and typing and not os.isatty(STDIN):
        raise Failure(f"{job.label} has a terminal, and standard input is none: run this on a terminal, or add --no-stdin")
    await warn_if_unled(session)
    return await converse(session, job, live=True, typing=typing and stdio.stdin, detach_keys=keys)
