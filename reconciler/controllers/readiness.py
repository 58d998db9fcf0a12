"""Which nodes can be counted on, and when one that is silent surely runs nothing any more. One answer for all controllers."""

from dataclasses import dataclass

from crds import keys
from crds.job import Fencing
from crds.meta import is_true
from crds.node import READY, Node
from crds.report import ENDED
from reconciler.context import Context
from reconciler.world import World, split_key


@dataclass(frozen=True, slots=True)
class Silence:
    """Whether no instruction of a job is executed on a silent node, nor will be before the node has read its placements anew.

    Who acts on it compares, in the same transaction, the keys of ``silence_keys``: so the node has not been heard again, nor taken
    its promise back; and he leaves the node a placement with the role drop.
    """

    fenced: bool
    why: str
    """In words, without a subject: "it stands still there since ...". It does not change with every second."""
    after: float | None = None
    """Seconds until it will be fenced if nothing else happens; None when waiting alone does not help, or it is."""


HEARD = Silence(False, "its node answers")


def is_ready(world: World, node: str) -> bool:
    """Whether what the node reports is the present. An undeclared node counts as long as its heartbeat is there."""
    found = world.find(Node, node)
    return node in world.alive if found is None else is_true(found.status.conditions, READY)


def takes_orders(world: World, node: str) -> bool:
    """Whether new work may be given to it: declared, ready, and its heartbeat is there right now."""
    return world.find(Node, node) is not None and node in world.alive and is_ready(world, node)


def is_written_off(world: World, node: str) -> bool:
    """Neither declared nor heard of: nobody will ever report from it again."""
    return not world.is_there(Node, node) and node not in world.alive and world.object_key(Node, node) not in world.broken


def silence(context: Context, node: str) -> float:
    """Seconds, by our own clock, for which the node's heartbeat has surely been absent; 0 while it is there.

    It is counted from when we first asked, so ask as soon as it may be gone; a heartbeat in between begins it anew."""
    if _is_heard(context.world, node):
        return 0.0
    return context.stopwatch.running(("silent", node, context.world.sessions.get(node, 0)))


def silence_keys(node: str, job: str) -> list[str]:
    """What ``has_fenced`` relies on: heartbeat (absent), report and placement of the job (``job`` is a work key)."""
    namespace, name = split_key(job)
    return [keys.alive(node), keys.report(node, namespace, name), keys.placement(node, namespace, name)]


def has_fenced(world: World, node: str, job: str, absent: float) -> Silence:
    """Whether the node must have fenced its copy of the job by now. ``absent``: seconds as ``silence`` gives them."""
    if _is_heard(world, node):
        return HEARD
    placed, report = world.placements.find(node, job), world.reports.find(node, job)
    if report is None or (placed is not None and report.value.uid != placed.value.uid):
        return Silence(False, "its node never reported of it: it may run there, and nobody can say how long")
    if report.value.phase in ENDED and (placed is None or report.value.epoch >= placed.value.epoch):
        return Silence(True, "it ended there before")
    promised = report.value.fenced_after
    if promised is None:
        return Silence(False, _why_never(placed.value.fencing if placed else Fencing.FREEZE))
    if absent < promised:
        return Silence(False, f"it was where it is; its node stops it within {promised:g} s of silence", promised - absent)
    killed = placed is not None and placed.value.fencing == Fencing.KILL
    return Silence(True, f"it {'was killed' if killed else 'stands still'} there since its node's lease ran out")


def _why_never(fencing: Fencing) -> str:
    if fencing == Fencing.KEEP:
        return "it runs on there for all we know (fencing: keep)"
    return "it may run on there: its node had promised nothing, for it has no guard or no freezer"


def _is_heard(world: World, node: str) -> bool:
    """A heartbeat that cannot be read is one, too."""
    return world.mod_revision(keys.alive(node)) != 0
