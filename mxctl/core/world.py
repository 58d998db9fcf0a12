"""The cluster as its reconciler sees it, for verbs that ask the reconciler's own pure code what it would do."""

from crds import keys
from mxctl.core.session import Session
from reconciler.world import World


async def read_world(session: Session) -> World:
    """Everything that decisions rest on, as it stood together at one revision. Raises Unavailable."""
    world, revision = World(), 0
    for prefix in (keys.OBJECTS, keys.NODES, keys.PLACEMENTS, keys.FILES):
        page = await session.kv.list(prefix, revision=revision)
        revision = revision or page.revision
        for kv in page.items:
            world.apply(kv.key, None, kv)
    return world
