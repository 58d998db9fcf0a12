"""What images there are to boot, and what differs between them: the answers that rollouts and drift need."""

from crds.image import Image
from crds.manifest import differences
from reconciler.world import World


def current_digest(world: World, image: str) -> str:
    """Of the revision that new nodes get; empty while there is none."""
    found = world.find(Image, image)
    revision = found.status.current_revision if found else None
    return revision.digest if revision else ""


MOST_CHANGES = 5
"""That a condition names; the others are counted."""


def content_changes(world: World, old: tuple[str, str], new: tuple[str, str]) -> str:
    """What a node notices on its way from one revision (image, digest) to another; empty when that is not known."""
    before, after = world.manifests.get(old), world.manifests.get(new)
    if before is None or after is None or old == new:
        return ""
    changes = differences(before, after)
    more = len(changes) - MOST_CHANGES
    if more > 0:
        changes = [*changes[:MOST_CHANGES], f"and {more} more: mxctl image diff {_name(world, old)} {_name(world, new)}"]
    return f" ({', '.join(changes)})"


def _name(world: World, which: tuple[str, str]) -> str:
    """As people name it: numpy:2."""
    image, digest = which
    found = world.find(Image, image)
    revision = found.status.of_digest(digest) if found else None
    return f"{image}:{revision.number}" if revision else image
