"""Builds snapshots for the tests of planning, and carries plans out as if every move succeeded at once."""

from collections.abc import Sequence
from dataclasses import replace

from crds.balancepolicy import BalancePolicySpec, MoveBudget
from reconciler.planning.types import JobView, NodeView, Plan, Snapshot

MIB = 2**20
CORES = 0.35
POLICY = BalancePolicySpec(budget=MoveBudget(per_node=2, cluster=4))


def node(name: str, jobs: Sequence[JobView] = (), *, cores: float = CORES, memory: int = 512 * MIB, **more: object) -> NodeView:
    """A node whose figures agree with its jobs unless ``more`` says otherwise."""
    mine = [job for job in jobs if job.node == name]
    figures: dict[str, object] = {"cpu_demand": sum(job.cpu_demand for job in mine), "memory_used": sum(job.memory for job in mine)}
    return NodeView(name, cores, memory, **(figures | more))  # type: ignore[arg-type]


def spinners(counts: Sequence[int], *, memory: int = 20 * MIB) -> list[JobView]:
    """CPU-bound jobs, so many on n1, n2, ..."""
    where = [f"n{i}" for i, count in enumerate(counts, 1) for _ in range(count)]
    return [JobView(f"default/j{i:03}", name, 1.0, memory) for i, name in enumerate(where, 1)]


def cluster(counts: Sequence[int], cores: Sequence[float] = (), *, memory: int = 20 * MIB) -> Snapshot:
    """Nodes n1, n2, ... with so many CPU-bound jobs each."""
    jobs = spinners(counts, memory=memory)
    return of(jobs, [f"n{i}" for i in range(1, len(counts) + 1)], cores)


def of(jobs: Sequence[JobView], names: Sequence[str], cores: Sequence[float] = ()) -> Snapshot:
    """These jobs on nodes of these names."""
    sizes = cores or [CORES] * len(names)
    return Snapshot(tuple(node(name, jobs, cores=size) for name, size in zip(names, sizes, strict=True)), tuple(jobs))


def with_node(snapshot: Snapshot, name: str, **changes: object) -> Snapshot:
    """The snapshot with one node changed."""
    nodes = tuple(replace(view, **changes) if view.name == name else view for view in snapshot.nodes)  # type: ignore[arg-type]
    return replace(snapshot, nodes=nodes)


def with_job(snapshot: Snapshot, key: str, **changes: object) -> Snapshot:
    """The snapshot with one job changed."""
    jobs = tuple(replace(job, **changes) if job.key == key else job for job in snapshot.jobs)  # type: ignore[arg-type]
    return replace(snapshot, jobs=jobs)


def carried_out(snapshot: Snapshot, plan: Plan) -> Snapshot:
    """The cluster after all moves of the plan, with samples that show it."""
    to = {move.job: move.destination for move in plan.moves}
    jobs = tuple(replace(job, node=to.get(job.key, job.node)) for job in snapshot.jobs)
    nodes = tuple(
        replace(
            view,
            cpu_demand=sum(job.cpu_demand for job in jobs if job.node == view.name),
            memory_used=view.memory_used + sum(job.memory for job in jobs if job.node == view.name) - _memory(snapshot, view.name),
        )
        for view in snapshot.nodes
    )
    return replace(snapshot, nodes=nodes, jobs=jobs)


def counts(snapshot: Snapshot) -> list[int]:
    """Jobs on each node, in the order of the nodes."""
    return [sum(job.node == view.name for job in snapshot.jobs) for view in snapshot.nodes]


def _memory(snapshot: Snapshot, name: str) -> int:
    return sum(job.memory for job in snapshot.jobs if job.node == name)
