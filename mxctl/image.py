"""``mxctl image``: what nodes run: building it, looking at its revisions, going back, clearing up."""

import asyncio
import os
import signal
from collections.abc import Sequence

import click

from clip.builder import Builder
from clip.errors import ClipError
from clip.images import Images, layer_owner
from clip.progress import reporting
from clip.revisions import check_unused, find, put_back, remove, roll_back, users_of
from clip.workshop import HostWorkshop
from crds import keys
from crds.image import BUILT, Image, Revision
from crds.keys import object_key
from crds.manifest import Manifest, differences
from crds.meta import Truth, find_condition
from crds.node import Node
from crds.quantity import human_memory
from crds.rollout import Rollout
from mxctl.core.failures import Failure
from mxctl.core.reading import warn_of
from mxctl.core.session import Session, run
from mxctl.core.settings import Settings
from mxctl.core.types import DURATION
from mxctl.core.verb import Verb
from mxctl.core.watching import until
from mxctl.output.age import age
from mxctl.output.table import table
from store.errors import Conflict
from store.informer import Informer
from store.kv import KeyValue
from store.objects import utcnow

_ATTEMPTS = 5
_STOPPED = 143
FOLLOWED_PHASES = 20
COLUMNS = ["IMAGE", "REVISION", "DIGEST", "KERNEL", "AGENT", "INIT", "SIZE", "AGE", "FROM", "NODES"]


@click.group(short_help="Build what nodes run; look at its revisions")
def image() -> None:
    """Build the root file systems that nodes run, compare their revisions, go back, clear up.

    A revision never changes and is named IMAGE:NUMBER. Building makes a new one only when something differs; nodes come to it by a
    rollout.
    """


BUILD_EXAMPLES = """
mxctl image build numpy
# also take newer packages from the mirror
mxctl image build numpy --refresh
"""


@image.command(cls=Verb, examples=BUILD_EXAMPLES, short_help="Build an image as its spec says")
@click.argument("name", metavar="IMAGE")
@click.option("--refresh", is_flag=True, help="Build Debian's part again from the mirror as it is now.")
@click.option("--timeout", type=DURATION, default="20m", show_default=True, help="Wait no longer than this for mx-clip.")
@click.pass_obj
def build(settings: Settings, /, name: str, refresh: bool, timeout: float) -> None:
    """Build an image as its spec says: as root on this machine, which is the head or has its layers. What is there already is not
    built again. Anybody else waits for mx-clip on the head, which builds by itself when a spec changes, and sees its progress.

    A build that fails leaves nothing behind; the image's condition Built says why.
    """
    if not may_build():
        if refresh:
            raise Failure("only root on the head can build from the mirror anew; run it there, e.g. with sudo")
        run(settings, lambda session: _follow(session, name, timeout))
        return
    builder = make_builder()  # before the cluster's network may be entered: packages come by this machine's
    run(settings, lambda session: _build(session, builder, name, refresh))


def may_build() -> bool:
    """Whether we are somebody who can build."""
    return os.geteuid() == 0


def make_builder() -> Builder:
    """Builds on this machine."""
    return Builder(workshop=HostWorkshop.staying())


async def _build(session: Session, builder: Builder, name: str, refresh: bool) -> None:
    images = Images(session.store, builder, layer_owner(session.context.name))
    before = await session.store.get(Image, name)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _cancel, asyncio.current_task())
    try:
        if not refresh and images.is_current(before):
            click.echo(f"{before.label} unchanged: {_named(before, before.status.current_revision)}")
            return
        with reporting(f"image {name}", builder.phases(before.spec, anew=refresh)) as report:
            revision = await images.build(name, anew=refresh, tell=lambda phase, _: report(phase))
    except ClipError as error:
        raise Failure(f"{before.label}: {error}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and _ASKED in error.args:
            task.uncancel()
            raise Failure(f"{before.label}: the build was stopped", exit_code=_STOPPED) from error
        raise
    current = before.status.current_revision
    word = "unchanged" if current and current.number == revision.number else "built"
    click.echo(f"{before.label} {word}: {_named(before, revision)}")


async def _follow(session: Session, name: str, timeout: float) -> None:
    """Shows how mx-clip builds it. Raises Failure when that fails, or nobody does it in time."""
    wish = await session.store.get(Image, name)
    with reporting(f"image {name}", FOLLOWED_PHASES) as report:
        last = ""

        def over(informer: Informer) -> Image | None:
            nonlocal last
            now = informer.get(Image, name)
            if now.status.building is not None and now.status.building.phase != last:
                last = now.status.building.phase
                report(last)
            condition = find_condition(now.status.conditions, BUILT)
            ended = now.status.building is None and condition is not None and condition.status is not Truth.UNKNOWN
            return now if ended and condition and condition.observed_generation >= wish.metadata.generation else None

        try:
            now = await until(session, object_key(Image, name), over, timeout)
        except TimeoutError as error:
            raise Failure(
                f"{wish.label} was not built within {timeout:g} s: does mx-clip run on the head? or run this there as root"
            ) from error
    condition = find_condition(now.status.conditions, BUILT)
    if condition is None or condition.status is not Truth.TRUE:
        raise Failure(f"{wish.label}: {condition.message if condition else 'it was not built'}")
    click.echo(f"{now.label} built: {_named(now, now.status.current_revision)}")


_ASKED = "SIGTERM"


def _cancel(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel(_ASKED)


def _named(obj: Image, revision: Revision | None) -> str:
    if revision is None:
        return "no revision"
    return f"{obj.name}:{revision.number}, digest {revision.digest}, kernel {revision.kernel}, {human_memory(revision.size)}"


@image.command("list", cls=Verb, examples="mxctl image list\nmxctl image list numpy", short_help="Show revisions")
@click.argument("names", nargs=-1, metavar="[IMAGE]...")
@click.pass_obj
def list_(settings: Settings, /, names: tuple[str, ...]) -> None:
    """Show the revisions of images, newest first, and the nodes that run each. * marks the current one."""
    run(settings, lambda session: _list(session, names))


async def _list(session: Session, names: tuple[str, ...]) -> None:
    if names:
        found: Sequence[Image] = [await session.store.get(Image, name) for name in names]
    else:
        listing = await session.store.list(Image)
        warn_of(listing.broken)
        found = listing.items
    nodes = (await session.store.list(Node)).items
    rows = [_row(obj, revision, nodes) for obj in found for revision in reversed(obj.status.revisions)]
    for obj in found:
        if not obj.status.revisions:
            click.echo(f"{obj.label} has no revision yet; build it with mxctl image build {obj.name}", err=True)
    if rows:
        click.echo("\n".join(table(COLUMNS, rows)))


def _row(obj: Image, revision: Revision, nodes: Sequence[Node]) -> list[str]:
    current = "*" if revision.number == obj.status.current else ""
    return [
        obj.name,
        f"{revision.number}{current}",
        revision.digest,
        revision.kernel,
        revision.agent,
        revision.init,
        human_memory(revision.size),
        age(revision.built, utcnow()),
        str(revision.rollback_of or "-"),
        ",".join(users_of(revision, nodes)) or "-",
    ]


DIFF_EXAMPLES = """
mxctl image diff numpy:1 numpy:2
# against the current one
mxctl image diff numpy:1
# two images
mxctl image diff numpy numpy-systemd
"""


@image.command(cls=Verb, examples=DIFF_EXAMPLES, short_help="Show what differs between two revisions")
@click.argument("old", metavar="IMAGE[:REVISION]")
@click.argument("new", required=False, metavar="[IMAGE[:REVISION]]")
@click.pass_obj
def diff(settings: Settings, /, old: str, new: str | None) -> None:
    """Show what changes for a node that goes from one revision to another: kernel, agent, packages, files, users.

    Without a revision the current one is meant, as it is for the second word when there is none.
    """
    run(settings, lambda session: _diff(session, old, new or old.partition(":")[0]))


async def _diff(session: Session, old: str, new: str) -> None:
    lines = differences(await _manifest(session, old), await _manifest(session, new))
    click.echo("\n".join(lines) if lines else f"{old} and {new} are the same")


async def _manifest(session: Session, word: str) -> Manifest:
    obj, revision = await _revision(session, word)
    stored = await session.kv.get(keys.manifest(obj.name, revision.digest))
    if stored is None:
        raise Failure(f"{obj.label}: what is in revision {revision.number} is not known; build the image again")
    return Manifest.model_validate_json(stored.value)


async def _revision(session: Session, word: str) -> tuple[Image, Revision]:
    """``numpy:2``, or ``numpy`` for its current one. Raises Failure."""
    name, colon, number = word.partition(":")
    obj = await session.store.get(Image, name)
    if colon and not number.isdigit():
        raise Failure(f'"{word}" names no revision; write IMAGE:NUMBER, e.g. {name}:1')
    try:
        revision = find(obj, int(number)) if colon else obj.status.current_revision
    except ClipError as error:
        raise Failure(str(error)) from error
    if revision is None:
        raise Failure(f"{obj.label} has no revision yet; build it with mxctl image build {name}")
    return obj, revision


@image.command(cls=Verb, examples="mxctl image rm numpy:1\nmxctl image rm numpy:1 numpy:2", short_help="Remove old revisions")
@click.argument("words", nargs=-1, required=True, metavar="IMAGE:REVISION...")
@click.pass_obj
def rm(settings: Settings, /, words: tuple[str, ...]) -> None:
    """Remove old revisions, and of their layers what nobody else needs. Neither the current one nor one that nodes run."""
    builder = make_builder()
    run(settings, lambda session: _rm(session, builder, words))


async def _rm(session: Session, builder: Builder, words: tuple[str, ...]) -> None:
    for word in words:
        if ":" not in word:
            raise Failure(f"{word} names no revision; write IMAGE:NUMBER (see mxctl image list {word})")
        obj, revision = await _remove(session, word)
        gone = await Images(session.store, builder, layer_owner(session.context.name)).drop((*revision.layers, revision.boot))
        click.echo(f"{obj.label}:{revision.number} removed" + (f" with {', '.join(gone)}" if gone else ""))


async def _remove(session: Session, word: str) -> tuple[Image, Revision]:
    """A rollout that begins a node in this very moment compares the image, so it is seen afterwards, or finds the revision gone."""
    obj, revision, manifest = await _take_out(session, word)
    nodes, rollouts = await _users(session)
    try:
        check_unused(obj, revision, nodes, rollouts)
    except ClipError as error:
        await session.store.change_status(Image, obj.name, None, lambda now: put_back(now, revision))
        if manifest is not None:
            await session.store.transaction().put(manifest.key, Manifest.model_validate_json(manifest.value)).commit()
        raise Failure(str(error)) from error
    return obj, revision


async def _users(session: Session) -> tuple[Sequence[Node], Sequence[Rollout]]:
    return (await session.store.list(Node)).items, (await session.store.list(Rollout)).items


async def _take_out(session: Session, word: str) -> tuple[Image, Revision, KeyValue | None]:
    for attempt in range(_ATTEMPTS):
        obj, revision = await _revision(session, word)
        manifest = await session.kv.get(keys.manifest(obj.name, revision.digest))
        try:
            remove(obj, revision.number, *await _users(session))
        except ClipError as error:
            raise Failure(str(error)) from error
        transaction = session.store.transaction().put_status(obj)
        if obj.status.of_digest(revision.digest) is None:
            transaction.delete(keys.manifest(obj.name, revision.digest))
        try:
            await transaction.commit()
            return obj, revision, manifest
        except Conflict:
            if attempt + 1 == _ATTEMPTS:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


ROLLBACK_EXAMPLES = """
mxctl image rollback numpy
mxctl image rollback numpy --to 3
"""


@image.command(cls=Verb, examples=ROLLBACK_EXAMPLES, short_help="Make an older revision's content the current one")
@click.argument("name", metavar="IMAGE")
@click.option("--to", type=click.IntRange(1), metavar="REVISION", help="Which; the last one with another content unless given.")
@click.pass_obj
def rollback(settings: Settings, /, name: str, to: int | None) -> None:
    """Make an older revision's content the current one again: as a new revision, so that history only goes forward.

    Nodes come to it by a rollout. The spec stays; it is built again when it changes, or with mxctl image build.
    """
    run(settings, lambda session: _rollback(session, name, to))


async def _rollback(session: Session, name: str, to: int | None) -> None:
    made: list[Revision] = []

    def change(obj: Image) -> None:
        made[:] = [roll_back(obj, to, utcnow())]

    try:
        obj = await session.store.change_status(Image, name, None, change)
    except ClipError as error:
        raise Failure(str(error)) from error
    click.echo(f"{obj.label} rolled back: {obj.name}:{made[0].number} has the content of {obj.name}:{made[0].rollback_of}")
