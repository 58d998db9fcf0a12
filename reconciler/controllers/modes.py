"""What is known when the way of a move is chosen: the wish, the budget, the nodes, what the job is like, what moves have cost."""

from collections.abc import Iterator

from crds.job import Job, MigrationMode
from crds.migration import Migration
from reconciler.calibration import calibrate_modes
from reconciler.planning.mode import POST_COPY, PRE_COPY, ModeRequest
from reconciler.world import World, work_key

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
    return ModeRequest(
        wish=wish_of(migration, job),
        memory=load.memory if load else job.status.memory,
        cpu=load.cpu_demand if load else 1.0,
        budget=migrating.freeze_budget,
        hard=migrating.hard_budget,
        lacking=dict(_lacking(world, source, destination)),
        costs=calibrate_modes(world.all(Migration)),
    )


def _lacking(world: World, *nodes: str) -> Iterator[tuple[MigrationMode, str]]:
    for mode in FEATURES:
        without = [name for name in nodes if name not in world.alive or str(mode) not in world.alive[name].value.features]
        if without:
            yield mode, f"node/{' and node/'.join(without)} cannot do it (see the log of its agent)"
