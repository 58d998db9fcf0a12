"""What a node boots next, what it last ran well with, and what a boot or a rollout would change.

A node is assigned what is wanted of it when it is new, and as long as it never came up with what it was assigned: there is nothing
to fall back to, and nobody is disturbed. From then on only rollouts change it.
"""

from crds.assignment import Assignment, differences
from crds.meta import Truth, is_true, set_condition
from crds.node import IMAGE_DRIFT, READY, Node, is_being_updated
from reconciler.context import Context
from reconciler.controllers.revisions import content_changes, current_digest
from reconciler.planning.assignment import runs, wanted_assignment

UP_TO_DATE = "UpToDate"
AT_NEXT_BOOT = "AtNextBoot"
BY_ROLLOUT = "ByRollout"
NO_REVISION = "NoRevision"
NOT_KNOWN = "NotKnown"


def note_image(context: Context, node: Node) -> None:
    """Sets assigned, good and the condition ImageDrift on the copy of the node whose status is about to be written."""
    image = node.spec.image
    if image is None:
        node.status.conditions = [c for c in node.status.conditions if c.type != IMAGE_DRIFT]
        return
    digest = current_digest(context.world, image)
    if not digest:
        _set(context, node, Truth.UNKNOWN, NO_REVISION, f"image/{image} has no revision yet: mxctl image build {image}")
        return
    wanted = wanted_assignment(context.world.cluster, node, image, digest)
    _assign(context, node, wanted)
    _note_good(context, node)
    _set(context, node, *_drift(context, node, wanted))


def _assign(context: Context, node: Node, wanted: Assignment) -> None:
    is_new = node.status.good is None and node.name not in context.world.alive
    if not is_being_updated(node) and (node.status.assigned is None or is_new):
        node.status.assigned = wanted


def _note_good(context: Context, node: Node) -> None:
    alive, assigned = context.world.alive.get(node.name), node.status.assigned
    if alive is None or assigned is None or not is_true(node.status.conditions, READY):
        return
    update = node.status.update
    if is_being_updated(node) and update is not None and update.boot_id == alive.value.boot_id:
        return  # it is about to be restarted: it cannot run yet what it was assigned a moment ago
    if runs(alive.value.image, alive.value.assigned, assigned):
        node.status.good = assigned


def _drift(context: Context, node: Node, wanted: Assignment) -> tuple[Truth, str, str]:
    """Status, reason, message."""
    alive, good = context.world.alive.get(node.name), node.status.good
    if good is None and alive is None:
        return Truth.UNKNOWN, NOT_KNOWN, f"it never ran what it is assigned ({wanted.image} {wanted.revision})"
    runs_good = good is not None and (alive is None or runs(alive.value.image, alive.value.assigned, good))
    if good is None or not runs_good:
        found = alive.value.image if alive else ""
        content = content_changes(context.world, (wanted.image, found), (wanted.image, wanted.revision))
        return Truth.TRUE, AT_NEXT_BOOT, f"image: {found or 'none of ours'} -> {wanted.image} {wanted.revision}{content}"
    changes = differences(good, wanted)
    if changes and (good.image, good.revision) != (wanted.image, wanted.revision):  # that is the first of them
        changes[0] += content_changes(context.world, (good.image, good.revision), (wanted.image, wanted.revision))
    if not changes:
        return Truth.FALSE, UP_TO_DATE, f"runs {wanted.image} {wanted.revision}, and all it was told at its boot still holds"
    if node.status.assigned == wanted:
        return Truth.TRUE, AT_NEXT_BOOT, f"its next boot changes {'; '.join(changes)}"
    return Truth.TRUE, BY_ROLLOUT, f"mxctl rollout node {node.name} changes {'; '.join(changes)}"


def _set(context: Context, node: Node, status: Truth, reason: str, message: str) -> None:
    now, generation = context.now(), node.metadata.generation
    node.status.conditions = set_condition(node.status.conditions, IMAGE_DRIFT, status, reason, message, now, generation)
