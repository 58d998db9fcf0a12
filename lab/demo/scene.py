"""What the demo shows: the cluster at one moment, read from the informer's cache."""

from dataclasses import dataclass

from pydantic import ValidationError

from crds import keys
from crds.job import FINISHED, Job, JobPhase
from crds.load import LoadVector
from crds.meta import is_true
from crds.migration import Migration, MigrationPhase
from crds.node import READY, Node
from store.informer import Informer


@dataclass(frozen=True, slots=True)
class NodeScene:
    """One node: cores, runnable tasks, bytes, and the names of the unfinished jobs on it."""

    name: str
    ready: bool
    cpu_capacity: float
    cpu_demand: float
    memory_used: int
    jobs: tuple[str, ...]
    moving: frozenset[str]


@dataclass(frozen=True, slots=True)
class Scene:
    """The cluster at one moment."""

    nodes: tuple[NodeScene, ...]
    jobs: tuple[Job, ...]
    migrations: tuple[Migration, ...]
    """Oldest first."""

    @property
    def finished(self) -> int:
        """Jobs that have ended, well or not."""
        return sum(job.status.phase in FINISHED for job in self.jobs)

    @property
    def moved(self) -> tuple[Migration, ...]:
        """Moves that went well."""
        return tuple(m for m in self.migrations if m.status.phase == MigrationPhase.SUCCEEDED)

    @property
    def failed(self) -> tuple[Migration, ...]:
        """Moves that cost a pause and nothing else."""
        return tuple(m for m in self.migrations if m.status.phase == MigrationPhase.FAILED)


def read_scene(informer: Informer) -> Scene:
    """The scene as the cache knows it now."""
    jobs = tuple(informer.list(Job).items)
    nodes = tuple(_node(informer, node, jobs) for node in informer.list(Node).items)
    migrations = sorted(informer.list(Migration).items, key=lambda m: (str(m.metadata.creation_timestamp), m.name))
    return Scene(nodes, jobs, tuple(migrations))


def _node(informer: Informer, node: Node, jobs: tuple[Job, ...]) -> NodeScene:
    load = _load(informer, node.name)
    here = [job for job in jobs if job.status.node == node.name and job.status.phase not in FINISHED]
    return NodeScene(
        name=node.name,
        ready=is_true(node.status.conditions, READY),
        cpu_capacity=node.status.capacity.cpu,
        cpu_demand=load.cpu_demand if load else 0.0,
        memory_used=load.memory_used if load else 0,
        jobs=tuple(sorted(job.name for job in here)),
        moving=frozenset(job.name for job in here if job.status.phase == JobPhase.MOVING),
    )


def _load(informer: Informer, node: str) -> LoadVector | None:
    found = informer.items.get(keys.load(node))
    try:
        return LoadVector.model_validate_json(found.value) if found else None
    except ValidationError:
        return None  # the picture goes on without it; the reconciler reports it
