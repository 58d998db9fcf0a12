"""``mxctl exec``: run a program beside a running job."""

import os
from typing import Any

import click

from crds.job import Job, JobPhase
from mxctl.core.beside import KILLED, Beside
from mxctl.core.failures import Failure
from mxctl.core.keyboard import STDIN, raw, window
from mxctl.core.session import Session, run
from mxctl.core.settings import Settings
from mxctl.core.talk import Broken, Detached, Ended
from mxctl.core.targets import parse_job
from mxctl.core.types import PAIR
from mxctl.core.verb import Verb
from nodeagent.stdio.client import Client

EXAMPLES = """
mxctl exec w -- ps ax
mxctl exec -it w -- bash
mxctl exec -i w -- sh -c 'cat > /tmp/input' < input
"""


@click.command("exec", cls=Verb, examples=EXAMPLES, short_help="Run a program beside a running job")
@click.argument("job")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("-i", "--stdin", is_flag=True, help="Standard input goes to the program.")
@click.option("-t", "--tty", is_flag=True, help="The program gets a terminal of its own.")
@click.option("--env", type=PAIR, multiple=True, metavar="KEY=VALUE", help="Environment variable beside the job's. Repeatable.")
@click.pass_obj
def exec_(settings: Settings, /, job: str, command: tuple[str, ...], **options: Any) -> int:
    """Run a program where a job runs: as its user, with its /tmp, its processes in sight, its network. Its exit code is ours.

    It is no part of the job. The balancer leaves the job alone meanwhile; when somebody moves the job all the same, or it ends, the
    program ends with exit code 137. So does what it leaves behind.
    """
    if options["tty"] and options["stdin"] and not os.isatty(STDIN):
        raise Failure("-t needs a terminal, and standard input is none: leave out -t, or run this on a terminal")
    name = parse_job(job)
    return run(settings, lambda session: _exec(session, name, command, options))


async def _exec(session: Session, name: str, command: tuple[str, ...], options: dict[str, Any]) -> int:
    job = await session.store.get(Job, name, session.namespace)
    if job.status.phase not in (JobPhase.RUNNING, JobPhase.MOVING):
        raise Failure(f"{job.label} is {job.status.phase}: only beside a running job something can be run")
    tty, typing = options["tty"], options["stdin"]
    rows, columns = window() if tty else (0, 0)
    stdio = {"stdin": typing, "tty": tty, "hold": True, **({"rows": rows, "columns": columns} if rows and columns else {})}
    env = {**({"TERM": os.environ.get("TERM", "xterm")} if tty else {}), **dict(options["env"])}
    with raw(tty and typing):
        client = Client(rows=rows, columns=columns)
        outcome = await Beside(session, job, client, typing=typing, command=command, env=env, stdio=stdio).run()
    if isinstance(outcome, Ended | Detached):
        return outcome.code
    if isinstance(outcome, Broken):
        raise Failure(f"{job.label}: {outcome.reason}", exit_code=outcome.code)
    raise Failure(f"{job.label} {'ended' if outcome.job else 'was deleted'}, and with it this session", exit_code=KILLED)
