"""``mxctl run``: a program somewhere in the cluster."""

import os
import re
import secrets
from pathlib import PurePath
from typing import Any

import click
from pydantic import ValidationError

from crds.document import find_problems
from crds.job import Job, NetworkMode, RestartPolicy
from crds.node import Node
from mxctl.core.caller import LIMIT, identity, shared_directory
from mxctl.core.conversation import converse, detach_keys
from mxctl.core.failures import FAILED, Failure
from mxctl.core.jobs import ended, exit_code, job_key, same_job
from mxctl.core.keyboard import STDIN, parse_keys, window
from mxctl.core.session import Session, warn_if_unled
from mxctl.core.session import run as run_verb
from mxctl.core.settings import Settings
from mxctl.core.types import CPU, DURATION, MEMORY, NAME, PAIR
from mxctl.core.verb import Verb
from mxctl.core.watching import until
from store.informer import Informer

EXAMPLES = """
mxctl run -- python3 -c 'print(sum(range(10**8)))'
mxctl run --name sim --on n1 --cpu 1 --memory 512Mi --env SEED=7 -- ./simulate --steps 1000
# with an address of its own: "ping web" on any node finds it wherever it moves
mxctl run --name web --network own -- python3 -m http.server 80
# as another user, with more open files and a lower priority
mxctl run --user alice --limit nofile=4096 --nice 10 -- ./simulate
# wait for the end and take over its exit code
mxctl run --name check --wait -- sh -c 'exit 3'
# an idle job of much memory that may stand still for half a second at most
mxctl run --name cache --freeze-budget 500ms -- ./cache
# a shell somewhere; leave it running with ctrl-p ctrl-q, come back with mxctl attach
mxctl run -it --name shell -- bash
# part of a pipeline, and nothing is left of it
sort -u words.txt | mxctl run -i --rm -- wc -l
"""


@click.command(
    cls=Verb,
    examples=EXAMPLES,
    short_help="Run a program somewhere in the cluster",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...")
@click.option("--name", type=NAME, help="Name of the job; made from the program's name unless given.")
@click.option("--on", "node", type=NAME, help="Node to start on; it may be moved away later unless pinned.")
@click.option("--freeze-budget", type=DURATION, help="How long a move may keep it from running, e.g. 500ms; picks the way.")
@click.option("--hard-budget", is_flag=True, help="Do not move it rather than exceed --freeze-budget.")
@click.option("--pin", is_flag=True, help="Never move it away from where it starts.")
@click.option("--cpu", type=CPU, help="Cores it is expected to want, e.g. 0.5 or 500m.")
@click.option("--memory", type=MEMORY, help="Memory it is expected to want, e.g. 512Mi.")
@click.option("--env", type=PAIR, multiple=True, metavar="KEY=VALUE", help="Environment variable. Repeatable.")
@click.option("--workdir", help="Working directory; yours if it lies on /shared, else /shared.")
@click.option(
    "--user",
    metavar="NAME|UID[:GROUP|GID]",
    help="Whom it runs as; you unless given, and under sudo that is root. Names are looked up on this machine.",
)
@click.option(
    "--limit",
    type=LIMIT,
    multiple=True,
    metavar="NAME=NUMBER",
    help="Resource limit, soft and hard, by its name in prlimit(1), e.g. nofile=4096 or core=unlimited. Repeatable.",
)
@click.option("--checkpoint-interval", type=DURATION, help="Take a checkpoint of it so often, e.g. 10m.")
@click.option("--keep", type=click.IntRange(1, 100), help="Keep so many checkpoints, the newest; 2 unless given.")
@click.option(
    "--restart",
    type=click.Choice([str(policy) for policy in RestartPolicy]),
    help="What follows when it fails or its node is lost: nothing (Never), a new start, or it goes on from its newest checkpoint.",
)
@click.option("--nice", type=click.IntRange(-20, 19), default=0, show_default=True, help="Nice value.")
@click.option("--umask", default="022", show_default=True, help="Umask, octal.")
@click.option("--no-io-uring", is_flag=True, help="It finds a kernel without io_uring, so that it can be moved: for node.js.")
@click.option(
    "--network",
    type=click.Choice([str(mode) for mode in NetworkMode]),
    default=str(NetworkMode.HOST),
    show_default=True,
    help="host: its node's. own: an address and a name of its own, which move with it, and with them its connections.",
)
@click.option("--label", "-l", type=PAIR, multiple=True, metavar="KEY=VALUE", help="Label of the job. Repeatable.")
@click.option("--wait", is_flag=True, help="Wait for the end, and end with the job's exit code.")
@click.option("-i", "--stdin", is_flag=True, help="Standard input goes to the job, what it prints comes here.")
@click.option("-t", "--tty", is_flag=True, help="The job gets a terminal of its own.")
@click.option("--rm", "remove", is_flag=True, help="Delete the job when it has ended; with -i, -t or --wait.")
@detach_keys
@click.option("--timeout", type=DURATION, help="Wait no longer than this, e.g. 10m; the job goes on.")
@click.pass_obj
def run(settings: Settings, /, command: tuple[str, ...], wait: bool, timeout: float | None, **options: Any) -> int:
    """Run a program as a job. It is no shell: for one, name it (sh -c '…').

    The program must be there on the nodes: in their image, or on /shared, which is the same on all of them. It runs as you do: the
    same user and groups, on every node it comes to.

    With -i or -t you talk to it, and the command ends with its exit code. When the job is moved you see no more than a pause.
    ctrl-p ctrl-q leaves it running. Ctrl-C and Ctrl-Z on its terminal are the job's: a shell stops and continues its own jobs with
    them; a program without a shell around it takes no notice of Ctrl-Z, as there is nobody who could continue it.
    """
    _check(options, wait, timeout)
    keys = parse_keys(options["detach_keys"])
    if options["pin"] and not options["node"]:
        raise Failure("--pin needs a node to pin to: add --on NODE")
    if options["hard_budget"] and options["freeze_budget"] is None:
        raise Failure("--hard-budget needs a budget: add --freeze-budget, e.g. 500ms")
    remove = options["remove"]
    return run_verb(settings, lambda session: _run(session, _job(command, session, options), wait, timeout, remove, keys))


def _check(options: dict[str, Any], wait: bool, timeout: float | None) -> None:
    """What does not go together. Raises Failure."""
    interactive = options["stdin"] or options["tty"]
    if options["tty"] and options["stdin"] and not os.isatty(STDIN):
        raise Failure("-t needs a terminal, and standard input is none: leave out -t, or run this on a terminal")
    if options["remove"] and not (interactive or wait):
        raise Failure("--rm needs somebody who waits for the end: add -i, -t or --wait")
    if interactive and timeout is not None:
        raise Failure("--timeout goes with --wait, not with -i or -t")


def _job(command: tuple[str, ...], session: Session, options: dict[str, Any]) -> Job:
    who = identity(options["user"])
    spec: dict[str, Any] = {
        "command": list(command),
        "env": {**who.env, **dict(options["env"])},
        "user": who.user,
        "limits": dict(options["limit"]),
        "nice": options["nice"],
        "umask": options["umask"],
        "resources": {"cpu": options["cpu"], "memory": options["memory"]},
        "placement": {"node": options["node"], "pinned": options["pin"]},
        "migration": {"freeze_budget": options["freeze_budget"], "hard_budget": options["hard_budget"]},
        "network": {"mode": options["network"]},
    }
    if options["stdin"] or options["tty"]:
        spec["stdio"] = _stdio(options)
    if options["tty"]:
        spec["env"].setdefault("TERM", os.environ.get("TERM", "xterm"))
    if options["no_io_uring"]:
        spec["migration"]["io_uring"] = False
    if options["restart"]:
        spec["restart"] = {"policy": options["restart"]}
    checkpoint = {"interval": options["checkpoint_interval"], "keep": options["keep"]}
    spec["checkpoint"] = {name: value for name, value in checkpoint.items() if value is not None}
    workdir = options["workdir"] or shared_directory(session.context.shared)
    if workdir:
        spec["workdir"] = workdir
    name = options["name"] or _name_for(command[0])
    metadata = {"name": name, "namespace": session.namespace, "labels": dict(options["label"])}
    try:
        return Job.model_validate({"metadata": metadata, "spec": spec})
    except ValidationError as error:
        raise Failure(*map(str, find_problems(error, Job))) from error


def _stdio(options: dict[str, Any]) -> dict[str, Any]:
    rows, columns = window()
    size = {"rows": rows, "columns": columns} if options["tty"] and rows and columns else {}
    return {"stdin": options["stdin"], "tty": options["tty"], "hold": True, **size}


def _name_for(program: str) -> str:
    """A free name, as good as certainly: the store refuses it in any case if it is taken."""
    word = re.sub(r"[^a-z0-9]+", "-", PurePath(program).stem.lower()).strip("-")[:50] or "job"
    return f"{word}-{secrets.token_hex(3)}"


async def _run(session: Session, job: Job, wait: bool, timeout: float | None, remove: bool, keys: bytes) -> int:
    interactive = job.spec.stdio.stdin or job.spec.stdio.tty
    if job.spec.placement.node:  # only apply may be ahead of the node's own file
        await session.store.get(Node, job.spec.placement.node)
    job = await session.store.create(job)
    click.echo(f"{job.label} created", err=interactive)
    await warn_if_unled(session)
    code = 0
    if interactive:
        code = await converse(session, job, live=False, typing=job.spec.stdio.stdin, detach_keys=keys)
    elif wait:
        code = await _wait(session, job, timeout)
    if remove:
        await _remove(session, job)
    return code


async def _remove(session: Session, job: Job) -> None:
    """Unless it goes on, because we left it."""
    now = await session.store.get(Job, job.name, job.namespace)
    if now.metadata.uid == job.metadata.uid and ended(now):
        await session.store.delete(Job, job.name, job.namespace)
    else:
        click.echo(f"{job.label} goes on, so it is not deleted", err=True)


async def _wait(session: Session, job: Job, timeout: float | None) -> int:
    last = job

    def outcome(informer: Informer) -> int | None:
        nonlocal last
        now = same_job(informer, job)
        if now is None:
            raise Failure(f"{job.label} was deleted before it ended")
        last = now
        return exit_code(now) if ended(now) else None

    try:
        code = await until(session, job_key(job), outcome, timeout)
    except TimeoutError as error:
        raise Failure(f"{job.label} has not ended within {timeout:g} s (it is {last.status.phase}); it goes on") from error
    if code:
        click.echo(
            f"{job.label} failed with exit code {code}: {last.status.message or last.status.reason or 'see mxctl logs'}", err=True
        )
    return code if 0 <= code < 256 else FAILED
