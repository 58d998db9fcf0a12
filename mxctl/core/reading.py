"""Reading what was named: all that is there, and all that is missing or broken told apart, so that one bad name hides nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import click

from crds.meta import Resource
from mxctl.core.session import Session
from mxctl.core.targets import Target
from store.errors import Invalid, NotFound, StoreError
from store.objects import Broken


@dataclass(slots=True)
class Found:
    """``errors`` are of objects that were named."""

    objects: list[Resource] = field(default_factory=list)
    errors: list[StoreError] = field(default_factory=list)


async def read(session: Session, targets: Sequence[Target], namespace: str | None) -> Found:
    """``namespace`` None: all. Raises Unavailable. Broken objects of a kind asked for as a whole are warned of on stderr."""
    found = Found()
    for target in targets:
        if target.name is None:
            listing = await session.store.list(target.kind, namespace)
            found.objects += listing.items
            warn_of(listing.broken)
            continue
        try:
            found.objects.append(await session.store.get(target.kind, target.name, namespace or session.namespace))
        except (NotFound, Invalid) as error:
            found.errors.append(error)
    return found


def warn_of(broken: Sequence[Broken]) -> None:
    """One line for each object that cannot be shown, so that nobody takes it for absent."""
    for one in broken:
        click.echo(f"Warning: {one.error}", err=True)
