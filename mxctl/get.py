"""``mxctl get``: objects as a table, or in a form for programs; once, or as they change."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import click

from crds.meta import CLUSTER_SCOPE, Resource
from crds.node import Node
from crds.registry import KINDS
from mxctl.core.discovered import discovered
from mxctl.core.failures import FAILED, Failure, tell
from mxctl.core.reading import read, warn_of
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.targets import Target, complete_kinds, parse_selector, parse_targets
from mxctl.core.verb import Verb
from mxctl.core.watching import watching
from mxctl.output.expression import Expression
from mxctl.output.formats import Format, OutputType, cells, custom_columns, render, render_data
from mxctl.output.rows import Rows, sort_key
from mxctl.output.table import Table
from store.kv import KeyValue
from store.objects import Broken, decode_or_broken, prefix_of

EXAMPLES = """
mxctl get nodes
mxctl get jobs -o wide -w
mxctl get job w -o jsonpath='{.status.node}'
mxctl get jobs,migrations -A
mxctl get jobs -l app=sim -o custom-columns=JOB:.metadata.name,NODE:.status.node
mxctl get jobs --sort-by=.status.moveCount
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for; ``named`` when single objects were."""

    targets: Sequence[Target]
    form: Format
    chosen: Callable[[Mapping[str, str]], bool]
    everywhere: bool
    headers: bool
    sort_by: Expression | None

    @property
    def named(self) -> bool:
        return self.targets[0].name is not None

    def namespace(self, session: Session) -> str | None:
        """Where to look; None for everywhere."""
        return None if self.everywhere else session.namespace

    def table(self, kind: type[Resource]) -> "Shown":
        """How objects of the kind are shown as rows."""
        if self.form.kind == "custom-columns":
            columns = custom_columns(self.form.detail)
            return Shown(Table([title for title, _ in columns]), lambda obj: cells(columns, obj.to_data()))
        several = len({target.kind for target in self.targets}) > 1
        rows = Rows(kind, wide=self.form.kind == "wide", everywhere=self.everywhere, prefixed=several)
        return Shown(Table(rows.titles), rows.row)


@dataclass(frozen=True, slots=True)
class Shown:
    """A table and how an object becomes a row of it."""

    table: Table
    row: Callable[[Resource], list[str]]

    last: dict[str, list[str]] = field(default_factory=dict)
    """Rows as a watch saw them last, without their age."""

    def lines(self, objects: Sequence[Resource], *, titles: bool) -> list[str]:
        return self.table.lines([self.row(obj) for obj in objects], titles=titles)

    def looks_new(self, obj: Resource) -> bool:
        """Whether its row, but for its age, is another than last time: figures that no column shows change all the time."""
        row = self.row(obj)[:-1] if self.table.titles[-1] == "AGE" else self.row(obj)
        before = self.last.get(obj.label)
        self.last[obj.label] = row
        return row != before


@click.command(cls=Verb, examples=EXAMPLES, short_help="Show objects")
@click.argument("words", nargs=-1, shell_complete=complete_kinds, metavar="KIND [NAME...] | KIND,KIND | KIND/NAME...")
@click.option(
    "-o",
    "--output",
    "form",
    type=OutputType(),
    default=Format(),
    metavar="FORMAT",
    help="wide, yaml, json, name, jsonpath=…, custom-columns=…",
)
@click.option("-w", "--watch", is_flag=True, help="Go on showing what changes.")
@click.option("-l", "--selector", default="", help="Only objects with these labels: app=x, app!=x, 'app in (x,y)', app, !app.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@click.option("--no-headers", is_flag=True, help="Without the line of titles.")
@click.option("--sort-by", metavar="JSONPATH", help="Order by this value instead of the name, e.g. .status.moveCount.")
@click.pass_obj
def get(
    settings: Settings,
    words: tuple[str, ...],
    form: Format,
    watch: bool,
    selector: str,
    everywhere: bool,
    no_headers: bool,
    sort_by: str | None,
) -> int:
    """Show objects of a kind, or those that are named.

    Kinds: cluster, image (img), node (no), balancepolicy (bp), job, migration (mig), event (ev); singular or plural.
    """
    targets = parse_targets(words)
    if targets[0].name is not None and (selector or everywhere):
        raise Failure("names go neither with -l nor with -A")
    wish = Wish(targets, form, parse_selector(selector), everywhere, not no_headers, Expression(sort_by) if sort_by else None)
    if watch:
        if len(targets) > 1:
            raise Failure("-w watches one kind, or one object")
        return run(settings, lambda session: _watch(session, wish))
    return run(settings, lambda session: _once(session, wish))


async def _once(session: Session, wish: Wish) -> int:
    await warn_if_unled(session)
    found = await read(session, wish.targets, wish.namespace(session))
    objects = _order([obj for obj in found.objects if wish.chosen(obj.metadata.labels)], wish)
    objects += await _held(session, wish, found.objects)
    if not objects and not wish.named and wish.form.tabular:
        click.echo(_nothing(session, wish), err=True)
    elif objects or not wish.named:
        click.echo("\n".join(_text(objects, wish)), nl=wish.form.tabular)
    if found.raw and wish.form.kind in ("yaml", "json", "jsonpath"):
        for data in found.raw:  # what is broken is shown as it is, so that it can be seen and repaired
            click.echo(render_data([data], wish.form, single=True), nl=False)
    for error in found.errors:
        for line in tell(error):
            click.echo(line, err=True)
    return FAILED if found.errors else 0


async def _held(session: Session, wish: Wish, objects: Sequence[Resource]) -> Sequence[Resource]:
    """Among all nodes also the machines that wait to become one; in tables only, as they are no objects."""
    everything = any(target.kind is Node and target.name is None for target in wish.targets)
    if not everything or not wish.form.tabular or not wish.chosen({}):
        return ()
    return await discovered(session, [obj for obj in objects if isinstance(obj, Node)])


async def _watch(session: Session, wish: Wish) -> int:
    """Until interrupted. A deleted object is shown once more, as it last was."""
    await warn_if_unled(session)
    [target] = wish.targets
    shown = wish.table(target.kind)
    prefix = prefix_of(target.kind, wish.namespace(session))
    if target.name:
        await session.store.get(target.kind, target.name, session.namespace)
        prefix += target.name if target.kind.NAMESPACED else f"{CLUSTER_SCOPE}/{target.name}"
    async with watching(session, prefix) as watched:
        stored = list(watched.informer.items.values())
        first = [obj for obj in _read(stored, target, prefix, wish) if shown.looks_new(obj)]
        _show(_order(first, wish), shown, wish, titles=wish.headers)
        while True:
            for _, old, new in await watched.changes():
                objects = list(_read([kv for kv in (new or old,) if kv], target, prefix, wish))
                if new is None or not wish.form.tabular or any(map(shown.looks_new, objects)):
                    _show(objects, shown, wish, titles=False)


def _read(stored: Sequence[KeyValue], target: Target, prefix: str, wish: Wish) -> Iterator[Resource]:
    for kv in stored:
        if target.name and kv.key != prefix:
            continue
        obj = decode_or_broken(target.kind, kv)
        if isinstance(obj, Broken):
            warn_of([obj])
        elif wish.chosen(obj.metadata.labels):
            yield obj


def _show(objects: Sequence[Resource], shown: Shown, wish: Wish, *, titles: bool) -> None:
    """Some rows, or one document or text for each object."""
    if wish.form.tabular:
        for line in shown.lines(objects, titles=titles):
            click.echo(line)
        return
    for obj in objects:
        text = render([obj], wish.form, single=True)
        click.echo(text if wish.form.kind != "yaml" else f"---\n{text}", nl=not text.endswith("\n"))


def _text(objects: Sequence[Resource], wish: Wish) -> Iterator[str]:
    if not wish.form.tabular:
        yield render(objects, wish.form, single=wish.named and len(wish.targets) == 1)
        return
    if wish.form.kind == "custom-columns":
        yield from wish.table(Resource).lines(objects, titles=wish.headers)
        return
    for number, kind in enumerate(kind for kind in KINDS if any(type(obj) is kind for obj in objects)):
        if number:
            yield ""
        yield from wish.table(kind).lines([obj for obj in objects if type(obj) is kind], titles=wish.headers)


def _order(objects: list[Resource], wish: Wish) -> list[Resource]:
    expression = wish.sort_by
    return sorted(objects, key=lambda obj: sort_key(expression, obj.to_data())) if expression else objects


def _nothing(session: Session, wish: Wish) -> str:
    scoped = any(target.kind.NAMESPACED for target in wish.targets) and not wish.everywhere
    return f"No resources found in {session.namespace} namespace." if scoped else "No resources found."
