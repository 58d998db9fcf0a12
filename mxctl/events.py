"""``mxctl events``: what happened, oldest first; with -w also what goes on happening."""

from collections.abc import Iterable, Sequence

import click

from crds.event import Event
from mxctl.core.reading import warn_of
from mxctl.core.session import Session, run
from mxctl.core.settings import Settings
from mxctl.core.targets import Target, parse_object
from mxctl.core.verb import Verb
from mxctl.core.watching import watching
from mxctl.output.age import age
from mxctl.output.table import Table
from store.kv import KeyValue
from store.objects import decode_all, prefix_of

EXAMPLES = """
mxctl events
mxctl events --for job/w
mxctl events -A -w
"""

TITLES = ("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE")


@click.command(cls=Verb, examples=EXAMPLES, short_help="Show what happened")
@click.option("--for", "about", metavar="KIND/NAME", help="Only to this object.")
@click.option("-w", "--watch", is_flag=True, help="Go on showing what happens.")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")
@click.option("--no-headers", is_flag=True, help="Without the line of titles.")
@click.pass_obj
def events(settings: Settings, about: str | None, watch: bool, everywhere: bool, no_headers: bool) -> None:
    """Show what happened to objects lately. Events are kept for about an hour.

    Those of kinds without a namespace (nodes, …) are in the namespace "default".
    """
    target = parse_object(about) if about else None

    async def verb(session: Session) -> None:
        prefix = prefix_of(Event, None if everywhere else session.namespace)
        shown = Table(TITLES)
        if not watch:
            found = _chosen((await session.kv.list(prefix)).items, target)
            _print(shown, found, titles=not no_headers)
            return
        async with watching(session, prefix) as watched:
            _print(shown, _chosen(watched.informer.items.values(), target), titles=not no_headers)
            while True:
                _print(shown, _chosen([new for _, _, new in await watched.changes() if new], target), titles=False)

    run(settings, verb)


def _chosen(stored: Iterable[KeyValue], target: Target | None) -> list[Event]:
    """Those about the target, oldest first; broken ones are warned of."""
    listing = decode_all(Event, stored)
    warn_of(listing.broken)
    found = [event for event in listing.items if target is None or _about(event, target)]
    return sorted(found, key=lambda event: (event.last_seen, event.name))


def _about(event: Event, target: Target) -> bool:
    return (event.regarding.kind, event.regarding.name) == (target.kind.KIND, target.name)


def _print(shown: Table, found: Sequence[Event], *, titles: bool) -> None:
    if titles and not found:
        click.echo("No events found.", err=True)
        return
    for line in shown.lines([_row(event) for event in found], titles=titles):
        click.echo(line)


def _row(event: Event) -> tuple[str, ...]:
    times = f" (x{event.count})" if event.count > 1 else ""
    regarding = f"{event.regarding.kind.lower()}/{event.regarding.name}"
    return age(event.last_seen), event.type, event.reason, regarding, event.message + times
