"""What images there are to boot: the answers of Image.status that rollouts and drift need."""

from crds.image import Image
from reconciler.world import World


def current_digest(world: World, image: str) -> str:
    """Of the revision that new nodes get; empty while there is none."""
    found = world.find(Image, image)
    revision = found.status.current_revision if found else None
    return revision.digest if revision else ""
