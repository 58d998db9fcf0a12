"""What becomes of an Image's status: a build recorded, a way back, a revision removed, a failure told. Pure.

Numbers only rise, and the current revision is always the last one, so that "newer" needs no clock. Each function changes the image
it is given; whoever calls writes it with compare-and-set.
"""

from collections.abc import Iterable
from datetime import datetime

from clip.builder import Built
from clip.errors import ClipError, ImageError
from crds.image import BUILDING, BUILT, COMPLETE, Building, Image, Revision
from crds.meta import Truth, set_condition
from crds.node import Node, is_being_updated
from crds.rollout import Rollout, RolloutPhase


class RevisionError(ClipError):
    """What was asked of a revision cannot be done; says why, and what can."""


def record(image: Image, built: Built, generation: int, now: datetime) -> Revision:
    """The build as the current revision: a new one, unless the current one has the same content. ``generation`` is the spec's."""
    status, manifest = image.status, built.manifest
    current = status.current_revision
    if current is None or current.digest != manifest.digest:
        current = Revision(
            number=_next_number(image),
            digest=manifest.digest,
            layers=list(built.layers),
            boot=built.boot,
            kernel=manifest.kernel,
            kernel_arguments=manifest.kernel_arguments,
            init=manifest.init,
            agent=manifest.agent,
            built=now,
            size=built.size,
            recipe=built.recipe,
        )
        status.revisions.append(current)
        status.current = current.number
    current.recipe = built.recipe  # another wish may have the same outcome
    status.building = None
    _tell(image, True, COMPLETE, f"revision {current.number}, digest {current.digest}", generation, now)
    return current


def roll_back(image: Image, to: int | None, now: datetime) -> Revision:
    """A new revision with the content of an older one: ``to``, or the last one that was different. RevisionError."""
    status = image.status
    current = status.current_revision
    if current is None:
        raise RevisionError(f"{image.label} has no revision yet; build it with mxctl image build {image.name}")
    old = _chosen(image, current, to)
    if old.digest == current.digest:
        raise RevisionError(f"{image.label}: revision {old.number} has the content of the current one, {current.number}, already")
    fresh = old.model_copy(
        update={"number": _next_number(image), "built": now, "rollback_of": old.number, "recipe": current.recipe}, deep=True
    )
    status.revisions.append(fresh)
    status.current = fresh.number
    _tell(
        image,
        True,
        COMPLETE,
        f"revision {fresh.number} has the content of {old.number} again, digest {fresh.digest}",
        image.metadata.generation,
        now,
    )
    return fresh


def _chosen(image: Image, current: Revision, to: int | None) -> Revision:
    if to is not None:
        return find(image, to)
    for revision in reversed(image.status.revisions):
        if revision.number < (current.rollback_of or current.number) and revision.digest != current.digest:
            return revision
    raise RevisionError(f"{image.label}: there is no older revision than {current.number} to go back to; see mxctl image list")


def remove(image: Image, number: int, nodes: Iterable[Node], rollouts: Iterable[Rollout] = ()) -> Revision:
    """Takes a revision out. RevisionError for the current one, and for one that nodes run or would boot, naming them."""
    revision = find(image, number)
    if number == image.status.current:
        raise RevisionError(f"{image.label}: revision {number} is the current one; build another or roll back, then remove it")
    others = [other for other in image.status.revisions if other is not revision]
    check_unused(image, revision, nodes, rollouts)
    image.status.revisions = others
    return revision


def check_unused(image: Image, revision: Revision, nodes: Iterable[Node], rollouts: Iterable[Rollout] = ()) -> None:
    """RevisionError naming who needs this revision, and no other revision of its content is there for them."""
    if any(other.digest == revision.digest and other.number != revision.number for other in image.status.revisions):
        return
    users = users_of(revision, nodes)
    users += sorted(rollout.label for rollout in rollouts if _goes_to(rollout, image.name, revision.digest))
    if users:
        raise RevisionError(
            f"{image.label}: revision {revision.number} is in use by {', '.join(users)}; "
            "bring the nodes to another by a rollout, then remove it"
        )


def put_back(image: Image, revision: Revision) -> None:
    """A revision that was taken out, where it was."""
    if image.status.numbered(revision.number) is None:
        image.status.revisions = sorted([*image.status.revisions, revision], key=lambda found: found.number)


def _goes_to(rollout: Rollout, image: str, digest: str) -> bool:
    """A rollout that stopped finds it gone, if somebody resumes it after all, and says so."""
    on_its_way = rollout.status.phase in (RolloutPhase.PROGRESSING, RolloutPhase.PAUSED)
    return on_its_way and digest == rollout.status.revisions.get(
        image, rollout.spec.revision if rollout.spec.image == image else None
    )


def find(image: Image, number: int) -> Revision:
    """The revision of this number. RevisionError naming those there are."""
    found = image.status.numbered(number)
    if found is None:
        have = ", ".join(str(revision.number) for revision in image.status.revisions) or "none"
        raise RevisionError(f"{image.label} has no revision {number}; there are: {have}")
    return found


def users_of(revision: Revision, nodes: Iterable[Node]) -> list[str]:
    """Names of the nodes that run this content, or boot it next."""
    return sorted(node.name for node in nodes if revision.digest in digests_of(node))


def digests_of(node: Node) -> set[str]:
    """Digests of the revisions that a node runs, boots next, is on its way to, or would be put back on."""
    update = node.status.update if is_being_updated(node) else None
    assignments = (node.status.assigned, node.status.good, *((update.target, update.before) if update else ()))
    return {node.status.facts.image, *(assignment.revision for assignment in assignments if assignment)} - {""}


def progress(image: Image, phase: str, fraction: float, generation: int, now: datetime) -> None:
    """A build is on its way."""
    before = image.status.building
    image.status.building = Building(phase=phase, fraction=round(fraction, 2), since=before.since if before else now)
    current = image.status.current_revision
    told = f"; revision {current.number} stays until then" if current else ""
    _tell(image, None, BUILDING, f"{phase}{told}", generation, now)


def fail(image: Image, error: ImageError, generation: int, now: datetime) -> None:
    """A build failed. Revisions there are stay what they are."""
    image.status.building = None
    _tell(image, False, error.reason, str(error), generation, now)


def _next_number(image: Image) -> int:
    return max((revision.number for revision in image.status.revisions), default=0) + 1


def _tell(image: Image, status: bool | None, reason: str, message: str, generation: int, now: datetime) -> None:
    truth = Truth.UNKNOWN if status is None else Truth.TRUE if status else Truth.FALSE
    image.status.conditions = set_condition(image.status.conditions, BUILT, truth, reason, message, now, generation)
