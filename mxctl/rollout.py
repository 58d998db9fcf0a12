"""``mxctl rollout``: bring nodes to what they should run, a few at a time, without killing a job."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from crds.image import Image
from crds.keys import OBJECTS
from crds.meta import Truth, find_condition
from crds.node import IMAGE_DRIFT, Node
from crds.rollout import UNDER_WAY, Rollout, RolloutPhase
from mxctl.core.failures import Failure
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.types import DURATION, NAME
from mxctl.core.verb import Verb
from mxctl.core.watching import watching
from mxctl.output.table import table
from store.errors import NotFound
from store.informer import Informer

F = TypeVar("F", bound=Callable[..., Any])

_OVER = (RolloutPhase.COMPLETE, RolloutPhase.STOPPED)
_EXAMPLES = {
    "image": """
mxctl rollout image numpy --max-unavailable 2
# to an older revision, see mxctl image list
mxctl rollout image numpy --to 3
""",
    "node": """
# what would it change?
mxctl rollout status
mxctl rollout node n1 n2 --deadline 5m
""",
    "cluster": """
# after kernel arguments, name servers or mounts of the Cluster have changed
mxctl rollout cluster
""",
}


@click.group(short_help="Bring nodes to what they should run, without killing a job")
def rollout() -> None:
    """Bring nodes to what they should run, a few at a time.

    Each node is emptied by moving its jobs, restarted over the network and waited for, then the next. A node that does not come
    back in time is put back on what it last ran well with, and the rollout stops. A node whose jobs cannot leave is not restarted.
    """


def _options(command: F) -> F:
    for option in (
        click.option("--name", type=NAME, help="Name of the rollout; one is made unless given."),
        click.option("--max-unavailable", type=click.IntRange(min=1), default=1, show_default=True, help="Nodes away at once."),
        click.option("--deadline", type=DURATION, default="10m", show_default=True, help="From its restart until Ready."),
        click.option("--drain-deadline", type=DURATION, default="10m", show_default=True, help="For its jobs to leave it."),
        click.option("--wait/--no-wait", default=True, show_default=True, help="Tell how it goes, until it is over."),
        click.option("--timeout", type=DURATION, default="1h", show_default=True, help="Watch no longer; the rollout goes on."),
    ):
        command = option(command)
    return command


@rollout.command("image", cls=Verb, examples=_EXAMPLES["image"], short_help="All nodes of an image")
@click.argument("name_of_image", metavar="IMAGE")
@click.option("--to", metavar="REVISION", help="Number or digest of the revision; the current one unless given.")
@_options
@click.pass_obj
def image_(settings: Settings, /, name_of_image: str, to: str | None, **options: object) -> int:
    """Bring all nodes of IMAGE to its current revision."""

    async def verb(session: Session) -> int:
        found = await session.store.get(Image, name_of_image)
        spec: dict[str, object] = {"image": found.name}
        if to is not None:
            spec["revision"] = _revision(found, to)
        return await _begin(session, found.name, spec, options)

    return run(settings, verb)


@rollout.command("node", cls=Verb, examples=_EXAMPLES["node"], short_help="Some nodes")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@_options
@click.pass_obj
def node_(settings: Settings, /, nodes: tuple[str, ...], **options: object) -> int:
    """Bring these nodes to the current revision of their image, and to what they and the Cluster say now."""

    async def verb(session: Session) -> int:
        for name in nodes:
            node = await session.store.get(Node, name)
            if node.spec.image is None:
                raise Failure(f"node/{name} has no image, so there is nothing to bring it to: set spec.image")
        return await _begin(session, nodes[0], {"nodes": list(nodes)}, options)

    return run(settings, verb)


@rollout.command("cluster", cls=Verb, examples=_EXAMPLES["cluster"], short_help="All nodes")
@_options
@click.pass_obj
def cluster_(settings: Settings, /, **options: object) -> int:
    """Bring all nodes to what they should run, e.g. after a change of the Cluster."""
    return run(settings, lambda session: _begin(session, "cluster", {}, options))


def _revision(image: Image, word: str) -> str:
    known = image.status.revisions
    found = image.status.numbered(int(word)) if word.isdigit() and len(word) < 6 else image.status.of_digest(word)
    if found is None:
        there = ", ".join(f"{r.number} ({r.digest})" for r in known) or "none"
        raise Failure(f"{image.label} has no revision {word}; there are: {there}")
    return found.digest


async def _begin(session: Session, about: str, spec: dict[str, object], options: dict[str, object]) -> int:
    name = options["name"] or f"{about[:50].rstrip('-.')}-{secrets.token_hex(3)}"
    wait, timeout = options["wait"], options["timeout"]
    spec |= {key: options[key] for key in ("max_unavailable", "deadline", "drain_deadline")}
    made = await session.store.create(Rollout.model_validate({"metadata": {"name": name}, "spec": spec}))
    click.echo(f"{made.label} created")
    await warn_if_unled(session)
    assert isinstance(timeout, int | float)
    return await _follow(session, made, timeout) if wait else 0


async def _follow(session: Session, made: Rollout, timeout: float) -> int:
    """Tells each step of each node. 0 when it is complete; Failure when it stopped or is not over in time."""
    told: dict[str, str] = {}
    try:
        async with asyncio.timeout(timeout), watching(session, OBJECTS) as watched:
            while True:
                now = _now(watched.informer, made)
                _tell(watched.informer, now, told)
                if now.status.observed_generation >= made.metadata.generation and _is_over(now):
                    break
                await watched.changes()
    except TimeoutError as error:
        raise Failure(f"{made.label} is not over after {timeout:g} s; it goes on, see mxctl rollout status {made.name}") from error
    if now.status.phase == RolloutPhase.STOPPED:
        raise Failure(
            f"{made.label} {now.status.message}; when that is repaired: mxctl rollout resume {made.name}, or undo it: "
            f"mxctl rollout undo {made.name}"
        )
    click.echo(f"{made.label} is complete: {now.status.updated} of {now.status.total} nodes: {now.status.message}")
    return 0


def _is_over(now: Rollout) -> bool:
    same = now.status.undone == now.spec.undo
    return same and now.status.phase in _OVER and not now.status.away


def _now(informer: Informer, made: Rollout) -> Rollout:
    try:
        return informer.get(Rollout, made.name)
    except NotFound as error:
        raise Failure(f"{made.label} was deleted before it was over") from error


def _tell(informer: Informer, now: Rollout, told: dict[str, str]) -> None:
    for node in informer.list(Node).items:
        update = node.status.update
        if update is None or update.uid != now.metadata.uid:
            continue
        line = f"{node.label} {update.step}: {update.message}"
        if told.get(node.name) != line:
            told[node.name] = line
            click.echo(f"[{now.status.updated}/{now.status.total}] {line}")


@rollout.command("status", cls=Verb, examples="mxctl rollout status\nmxctl rollout status numpy-1a2b3c", short_help="How it goes")
@click.argument("name", required=False)
@click.pass_obj
def status_(settings: Settings, /, name: str | None) -> None:
    """Show where each node stands in a rollout; without a name: what a rollout would change on each node."""

    async def verb(session: Session) -> None:
        found = await session.store.get(Rollout, name) if name else None
        nodes = (await session.store.list(Node)).items
        await warn_if_unled(session)
        lines = _steps(found, nodes) if found else _drifts(nodes)
        click.echo("\n".join(lines))

    run(settings, verb)


def _steps(found: Rollout, nodes: Sequence[Node]) -> list[str]:
    status = found.status
    rows = []
    for node in nodes:
        update = node.status.update
        if update is not None and update.uid == found.metadata.uid:
            going = "" if update.step in UNDER_WAY else " (over)"
            rows.append([node.name, f"{update.step}{going}", f"{update.target.image} {update.target.revision}", update.message])
    head = f"{found.label} {status.phase}: {status.updated} of {status.total} nodes: {status.message or 'not looked at yet'}"
    return [head, *(table(["NODE", "STEP", "TO", "MESSAGE"], rows) if rows else [])]


def _drifts(nodes: Sequence[Node]) -> list[str]:
    rows = []
    for node in nodes:
        condition = find_condition(node.status.conditions, IMAGE_DRIFT)
        if condition is not None and condition.status != Truth.FALSE:
            rows.append([node.name, condition.reason, condition.message])
    return table(["NODE", "DRIFT", "CHANGES"], rows) if rows else ["every node runs what it should"]


@rollout.command("pause", cls=Verb, examples="mxctl rollout pause numpy-1a2b3c", short_help="Begin no further node")
@click.argument("name")
@click.pass_obj
def pause(settings: Settings, /, name: str) -> None:
    """Begin no further node. Those under way are brought to an end."""

    def change(found: Rollout) -> None:
        found.spec.paused = True

    run(settings, lambda session: _change(session, name, change, "paused"))


@rollout.command("resume", cls=Verb, examples="mxctl rollout resume numpy-1a2b3c", short_help="Go on, also after a failure")
@click.argument("name")
@click.pass_obj
def resume(settings: Settings, /, name: str) -> None:
    """Go on with a rollout that was paused, or that stopped: nodes that failed are tried again."""

    async def verb(session: Session) -> None:
        before = await session.store.get(Rollout, name)
        attempt = before.spec.attempt + (1 if before.status.phase == RolloutPhase.STOPPED else 0)

        def change(found: Rollout) -> None:
            found.spec.paused, found.spec.attempt = False, attempt

        await _change(session, name, change, "resumed")

    run(settings, verb)


@rollout.command("undo", cls=Verb, examples="mxctl rollout undo numpy-1a2b3c", short_help="Bring its nodes back")
@click.argument("name")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Tell how it goes, until it is over.")
@click.option("--timeout", type=DURATION, default="1h", show_default=True, help="Watch no longer; it goes on.")
@click.pass_obj
def undo(settings: Settings, /, name: str, wait: bool, timeout: float) -> int:
    """Bring the nodes that a rollout has updated back to what they ran before, in the same careful way."""

    def change(found: Rollout) -> None:
        found.spec.undo, found.spec.paused = True, False

    async def verb(session: Session) -> int:
        now = await _change(session, name, change, "is being undone")
        return await _follow(session, now, timeout) if wait else 0

    return run(settings, verb)


async def _change(session: Session, name: str, change: Callable[[Rollout], None], word: str) -> Rollout:
    now = await session.store.change(Rollout, name, None, change)
    click.echo(f"{now.label} {word}")
    await warn_if_unled(session)
    return now
