"""What planning believes of each node while it draws up a plan: the snapshot with moves counted where they go.

A load comes in two readings, both on the safe side (MOSIX keeps two asymmetric indices for the same purpose):

- ``leaving_load``, for a node that might give a job away: the jobs that stay there and nothing else, so that the demand of a
  job that has just left, which fades only slowly from the node's own figure, drives out no second one;
- ``load``, for a node that might receive one: the larger of that and the node's own figure, and a newcomer counts as one whole task
  until it is known, so that two decisions in a row do not fill the same gap.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.planning.types import JobView, NodeView, Snapshot


@dataclass(slots=True)
class NodeState:
    """One node, as it will be when the moves under way and those planned so far have happened."""

    view: NodeView
    tasks: float = 0.0
    """Runnable tasks of the jobs that stay or come."""
    surplus: float = 0.0
    """Tasks beyond these that the node reports, or that newcomers are taken to have."""
    memory: float = 0.0
    """Bytes used, with all that comes."""
    departing: float = 0.0
    """Bytes of jobs that go; they are free only when these have gone."""
    jobs: list[JobView] = field(default_factory=list)
    """Jobs on it that are not moving, sorted by key."""

    @property
    def leaving_load(self) -> float:
        """Runnable tasks by core, the lower reading."""
        return self.tasks / self.view.cpu_capacity

    @property
    def load(self) -> float:
        """Runnable tasks by core, the upper reading."""
        return (self.tasks + self.surplus) / self.view.cpu_capacity

    @property
    def memory_share(self) -> float:
        """Share of its memory in use, with all that comes and before anything goes."""
        return self.memory / self.view.memory_capacity

    def receive(self, job: JobView) -> None:
        """Counts a job that comes."""
        self.tasks += job.cpu_demand
        self.memory += job.memory

    def give(self, job: JobView) -> None:
        """Counts a job that goes."""
        self.tasks -= job.cpu_demand
        self.departing += job.memory
        self.jobs.remove(job)


@dataclass(slots=True)
class Picture:
    """All nodes that count, by name in name order."""

    nodes: dict[str, NodeState]
    distrusted: dict[str, str]
    """Nodes that are left out, and why."""
    lost: list[str]
    """Jobs that are left out, and why."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """All that is left out, one line each."""
        return (*(f"{name}: {why}" for name, why in self.distrusted.items()), *self.lost)


def draw(snapshot: Snapshot, distrust: Callable[[NodeView, list[JobView]], str], newcomer: float = 0.0) -> Picture:
    """The picture without the nodes that ``distrust`` gives a reason for. A job is a newcomer for that many seconds."""
    placed: dict[str, list[JobView]] = defaultdict(list)
    for job in sorted(snapshot.jobs, key=lambda job: job.key):
        placed[job.node].append(job)
    picture = Picture({}, {}, [])
    moving = {move.job for move in snapshot.moves}
    for view in sorted(snapshot.nodes, key=lambda view: view.name):
        why = distrust(view, [job for job in placed[view.name] if job.key not in moving])
        if why:
            picture.distrusted[view.name] = why
        else:
            picture.nodes[view.name] = _state(view, placed[view.name], newcomer)
    known = {view.name for view in snapshot.nodes}
    picture.lost += [f"{job.key}: its node {name} is unknown" for name in sorted(placed.keys() - known) for job in placed[name]]
    _count_moves(picture, snapshot)
    return picture


def _state(view: NodeView, jobs: list[JobView], newcomer: float) -> NodeState:
    """Memory is at least that of the jobs placed there, whatever a late sample says."""
    tasks = sum(job.cpu_demand for job in jobs)
    unknown = sum(max(0.0, 1.0 - job.cpu_demand) for job in jobs if job.resident_for < newcomer)
    memory = float(max(view.memory_used, sum(job.memory for job in jobs)))
    return NodeState(view, tasks, max(0.0, view.cpu_demand - tasks) + unknown, memory, 0.0, jobs)


def _count_moves(picture: Picture, snapshot: Snapshot) -> None:
    """Each move under way counts at its destination, and as one task at least: a frozen job shows no demand."""
    jobs = {job.key: job for job in snapshot.jobs}
    for move in snapshot.moves:
        job = jobs.get(move.job)
        if job is None:
            picture.lost.append(f"{move.job}: moves from {move.source} to {move.destination}, but is unknown")
            continue
        here, there = picture.nodes.get(job.node), picture.nodes.get(move.destination)
        if here is there and here is not None:
            here.jobs.remove(job)
            continue
        if here is not None:
            here.give(job)
        if there is not None:
            there.receive(job)
            there.surplus += max(0.0, 1.0 - job.cpu_demand)
