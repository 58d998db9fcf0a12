"""``mxctl describe``: all about an object, for people: what was declared, what is observed, and what happened."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from crds.codec import dump_data
from crds.event import Event
from crds.meta import LAST_APPLIED, Resource
from mxctl.core.failures import FAILED, tell
from mxctl.core.reading import read, warn_of
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.targets import complete_kinds, parse_targets
from mxctl.core.verb import Verb
from mxctl.output.age import age
from mxctl.output.table import table
from store.events import events_of

EXAMPLES = """
mxctl describe job w
mxctl describe node/n1
mxctl describe policy
"""


@click.command(cls=Verb, examples=EXAMPLES, short_help="Show all about an object: conditions, moves, events")
@click.argument("words", nargs=-1, shell_complete=complete_kinds, required=True, metavar="KIND [NAME...] | KIND/NAME...")
@click.pass_obj
def describe(settings: Settings, words: tuple[str, ...]) -> int:
    """Show all about objects: what was declared, what is observed (conditions, moves), and what happened (events)."""
    targets = parse_targets(words)

    async def verb(session: Session) -> int:
        await warn_if_unled(session)
        found = await read(session, targets, session.namespace)
        for number, obj in enumerate(found.objects):
            if number:
                click.echo("")
            click.echo("\n".join(describe_lines(obj, await _events_of(session, obj))))
        for data in found.raw:
            click.echo(dump_data(data), nl=False)
        for error in found.errors:
            for line in tell(error):
                click.echo(line, err=True)
        return FAILED if found.errors else 0

    return run(settings, verb)


def describe_lines(obj: Resource, events: Sequence[Event]) -> Iterator[str]:
    """Metadata and spec as YAML, tables for all lists of status (conditions, moves, …), then events."""
    data = obj.to_data()
    metadata = data["metadata"]
    yield f"Name:         {obj.name}"
    if obj.NAMESPACED:
        yield f"Namespace:    {obj.namespace}"
    yield f"Kind:         {obj.KIND}"
    yield from _pairs("Labels:      ", metadata["labels"])
    yield from _pairs("Annotations: ", {k: v for k, v in metadata["annotations"].items() if k != LAST_APPLIED})
    yield f"Created:      {metadata.get('creationTimestamp', '-')} ({age(obj.metadata.creation_timestamp)} ago)"
    if obj.metadata.deletion_timestamp:
        yield f"Deleted:      {metadata['deletionTimestamp']}, waits for {', '.join(obj.metadata.finalizers)}"
    yield from _block("Spec", data.get("spec", {}))
    status = data.get("status", {})
    tables = {name: value for name, value in status.items() if _tabular(value)}
    yield from _block("Status", {name: value for name, value in status.items() if name not in tables})
    for name, rows in tables.items():
        yield from _table(name, rows)
    yield from _events(events)


async def _events_of(session: Session, obj: Resource) -> list[Event]:
    """What happened to this very object, not to an earlier one of its name; oldest first."""
    found = await events_of(session.store, obj)
    warn_of(found.broken)
    return [event for event in found.items if event.regarding.uid in (None, obj.metadata.uid)]


def _pairs(title: str, pairs: Mapping[str, str]) -> Iterator[str]:
    for number, (key, value) in enumerate(sorted(pairs.items()) or [("-", "")]):
        yield f"{title if not number else ' ' * len(title)} {key}{'=' if value else ''}{value}"


def _block(title: str, data: Mapping[str, Any]) -> Iterator[str]:
    filled = {name: value for name, value in data.items() if value not in ([], {}, "")}
    yield f"{title}:"
    yield from (f"  {line}" for line in dump_data(filled).splitlines()) if filled else ("  -",)


def _tabular(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    yield f"{name[0].upper()}{name[1:]}:"
    yield from (f"  {line}" for line in table([_title(column) for column in columns], cells))


def _title(column: str) -> str:
    """``lastTransitionTime`` as LAST TRANSITION TIME."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column).upper()


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.0f}" if isinstance(value, float) else str(value)


def _events(events: Sequence[Event]) -> Iterator[str]:
    yield "Events:"
    rows = [(age(e.last_seen), e.type, e.reason, f"{e.message} (x{e.count})" if e.count > 1 else e.message) for e in events]
    yield from (f"  {line}" for line in table(["LAST SEEN", "TYPE", "REASON", "MESSAGE"], rows)) if rows else ("  none",)
