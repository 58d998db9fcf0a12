"""From a change to the keys it touches: the functions that several controllers share in their declarations."""

from collections.abc import Iterable, Iterator

from crds.job import FINISHED, Job
from crds.meta import find_condition
from crds.migration import MigrationPhase
from crds.node import READY, Node, takes_jobs
from crds.placement import Placement, Role
from reconciler.world import Delta, World, job_key

OPEN = frozenset({MigrationPhase.PENDING, MigrationPhase.MOVING})


def own(delta: Delta, _: World) -> Iterable[str]:
    """Objects: the object itself. Below /mx/nodes/ and /mx/placements/: the job that the key is about."""
    namespace, name = delta.parts[-2:]
    return [name] if namespace == "_" else [job_key(namespace, name)]


def node_of(delta: Delta, _: World) -> Iterable[str]:
    """Below /mx/nodes/ and /mx/placements/: the node that the key is about."""
    return [delta.parts[1]]


def job_of(delta: Delta, _: World) -> Iterable[str]:
    """Below /mx/nodes/: the job, for reports and claims."""
    return [job_key(*delta.parts[3:])] if len(delta.parts) == 5 else []


def jobs_of_node(delta: Delta, world: World) -> Iterable[str]:
    """A Node: the jobs on it, when what they depend on changed."""
    return world.placements.on_node(delta.parts[3]) if _bearing(delta.old) != _bearing(delta.new) else []


def waiting_jobs(delta: Delta, world: World) -> Iterable[str]:
    """The jobs without a node, when this change may make room for one of them."""
    return list(world.pending) if world.pending and _may_make_room(delta) else []


def moves_of_job(delta: Delta, world: World) -> Iterable[str]:
    """A Job, or a report, claim or placement of it: its moves that are not over."""
    if delta.parts[0] == "nodes" and len(delta.parts) != 5:
        return []
    namespace, name = delta.parts[-2:]
    return [job_key(namespace, move) for move in open_moves(world, job_key(namespace, name))]


def moves_of_node(delta: Delta, world: World) -> Iterable[str]:
    """A Node: the moves from or to it, when its readiness changed."""
    for job in jobs_of_node(delta, world):
        for move in open_moves(world, job):
            yield job_key(job.partition("/")[0], move)


def open_moves(world: World, job: str) -> set[str]:
    """Names of the job's Migrations that are not over, also of one whose object somebody deleted meanwhile."""
    wished = {m.name for m in world.migrations_of(job) if m.status.phase in OPEN}
    return wished | {p.move.migration for p in _ordered(world, job) if p.move and p.role != Role.RUN}


def _ordered(world: World, job: str) -> Iterator[Placement]:
    for seen in world.placements.of_job(job).values():
        yield seen.value


def _bearing(node: object) -> object:
    """What jobs care about in a Node: load comes every few seconds and is none of it."""
    if not isinstance(node, Node):
        return None
    ready = find_condition(node.status.conditions, READY)
    return node.spec, takes_jobs(node), node.metadata.labels, node.status.capacity, ready.status if ready else None


def _may_make_room(delta: Delta) -> bool:
    match delta.parts[0], delta.parts[1]:
        case "kinds", "nodes":
            return _bearing(delta.old) != _bearing(delta.new)
        case "kinds", "jobs":
            return delta.new is None or (isinstance(delta.new, Job) and delta.new.status.phase in FINISHED)
        case "placements", _:
            return delta.new is None
        case "nodes", _:
            return delta.parts[2] == "alive"
    return False
