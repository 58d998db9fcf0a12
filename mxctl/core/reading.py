"""Reading what was named: all that is there, and all that is missing or broken told apart, so that one bad name hides nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from crds.keys import object_key
from crds.meta import CLUSTER_SCOPE, Resource
from mxctl.core.session import Session
from mxctl.core.targets import Target
from store.errors import Invalid, NotFound, StoreError
from store.objects import Broken


@dataclass(slots=True)
class Found:
    """``errors`` are of objects that were named. ``raw`` is what those hold that cannot be read, as far as it is JSON objects."""

    objects: list[Resource] = field(default_factory=list)
    errors: list[StoreError] = field(default_factory=list)
    raw: list[dict[str, Any]] = field(default_factory=list)


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
        except NotFound as error:
            found.errors.append(error)
        except Invalid as error:
            found.errors.append(error)
            found.raw += await _raw(session, target.kind, target.name, namespace or session.namespace)
    return found


async def _raw(session: Session, kind: type[Resource], name: str, namespace: str) -> list[dict[str, Any]]:
    """The stored text, with the condition that says what is wrong with it; none when it is no JSON object."""
    stored = await session.kv.get(object_key(kind, name, namespace if kind.NAMESPACED else CLUSTER_SCOPE))
    try:
        data = json.loads(stored.value) if stored else None
    except (ValueError, RecursionError):
        return []
    return [data] if isinstance(data, dict) else []


def warn_of(broken: Sequence[Broken]) -> None:
    """One line for each object that cannot be shown, so that nobody takes it for absent."""
    for one in broken:
        click.echo(f"Warning: {one.error}", err=True)
