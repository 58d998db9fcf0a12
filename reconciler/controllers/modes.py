"""What is known when the way of a move is chosen: the wish, the budget, the nodes, what the job is like, what moves have cost."""

from collections.abc import Iterator

from crds.job import Job, MigrationMode
from crds.migration import Migration
from crds.quantity import human_memory
from reconciler.calibration import calibrate_modes, written
from reconciler.planning.mode import POST_COPY, PRE_COPY, STOP, ModeRequest
from reconciler.world import World, work_key

ROOM = (1.15, 32 << 20)
"""Times a job's memory, and bytes beside it, that images of it take on the node it leaves."""
FEATURES = (PRE_COPY, POST_COPY)
"""Ways that not every node is able to; the feature has the name of the way."""


def wish_of(migration: Migration, job: Job) -> MigrationMode:
    """The move's own, else the job's."""
    return migration.spec.mode or job.spec.migration.mode


def needed_for(migration: Migration, job: Job) -> frozenset[str]:
    """Features that the destination must have for the way that was asked for."""
    wish = wish_of(migration, job)
    return frozenset({str(wish)}) if wish in FEATURES else frozenset()


def mode_request(world: World, migration: Migration, job: Job, destination: str) -> ModeRequest:
    """For ``planning.mode``. Without a sample of the job it is taken for a busy one."""
    source, migrating = job.status.node or "", job.spec.migration
    sample = world.load.get(source)
    load = sample.value.jobs.get(work_key(job)) if sample else None
    memory = load.memory if load else job.status.memory
    migrations = world.all(Migration)
    return ModeRequest(
        wish=wish_of(migration, job),
        memory=memory,
        cpu=load.cpu_demand if load else 1.0,
        budget=migrating.freeze_budget,
        hard=migrating.hard_budget,
        written=written(migrations).get(work_key(job), 0.0),
        lacking=dict([*_lacking(world, source, destination), *_without_room(world, source, memory)]),
        costs=calibrate_modes(migrations),
    )


def _lacking(world: World, *nodes: str) -> Iterator[tuple[MigrationMode, str]]:
    for mode in FEATURES:
        without = [name for name in nodes if name not in world.alive or str(mode) not in world.alive[name].value.features]
        if without:
            yield mode, f"node/{' and node/'.join(without)} cannot do it (see the log of its agent)"


def _without_room(world: World, source: str, memory: int) -> Iterator[tuple[MigrationMode, str]]:
    """A node that is short of memory has none for images; post-copy needs none, for the memory is sent from where it is."""
    sample = world.load.get(source)
    if sample is None or not sample.value.memory_capacity:
        return
    free, needed = sample.value.memory_capacity - sample.value.memory_used, int(memory * ROOM[0]) + ROOM[1]
    if free < needed:
        why = f"node/{source} has {human_memory(max(0, free))} of memory free, its images take {human_memory(needed)}"
        yield from ((mode, why) for mode in (STOP, PRE_COPY))
