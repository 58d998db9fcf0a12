"""Node: says whether the machine is there, and what it has.

The heartbeat is a key under the agent's lease. When it vanishes the node stays Ready for ``Cluster.spec.nodeGracePeriod``, so that
an agent that is restarted harms nobody. The load itself is in keys of its own, which people's tools read; here it is copied only
every few seconds, because 10,000 nodes must not rewrite 10,000 objects a second.
"""

from collections.abc import Iterable

from crds.job import FINISHED, Job
from crds.load import LoadVector
from crds.meta import Truth, find_condition, set_condition
from crds.node import (
    BOOTED,
    CPU_PRESSURE,
    GUARD_RUNS,
    GUARDED,
    HEARTBEAT,
    LEAVE_FINALIZER,
    MEMORY_PRESSURE,
    NEVER_SEEN,
    NO_GUARD,
    NO_HEARTBEAT,
    READY,
    Capacity,
    Node,
    NodeFacts,
    NodeStatus,
)
from crds.placement import Role
from reconciler.context import Context
from reconciler.controllers.drift import note_image
from reconciler.controllers.policy import in_force
from reconciler.controllers.readiness import silence
from reconciler.controllers.watches import node_of, own
from reconciler.planning.boot import judge, with_agent
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import Delta, World

LOAD_EVERY = 5.0
"""Seconds between two writes of a status in which only load changed."""
HEARTBEAT_EVERY = 60.0
"""Seconds between two writes of lastHeartbeat when nothing else changed."""
IS_GUARDED = "its guard stops the jobs when the node loses touch, even if the agent hangs"
CALM = 0.8
"""A pressure ends only below this share of the value at which it began, so that it does not flicker."""


def _all(world: World) -> Iterable[str]:
    return [node.name for node in world.all(Node)]


def _every_node(_: Delta, world: World) -> Iterable[str]:
    return _all(world)


def _node_of_job(delta: Delta, _: World) -> Iterable[str]:
    """A job that ends is not counted any more."""
    jobs = [job for job in (delta.old, delta.new) if isinstance(job, Job)]
    changed = len({job.status.phase in FINISHED for job in jobs}) != 1
    return {job.status.node for job in jobs if job.status.node} if changed else ()


def _node_of_machine(delta: Delta, world: World) -> Iterable[str]:
    """The network card's owner."""
    owner = world.addresses.get(delta.parts[1])
    return () if owner is None or owner.value.is_of_job else [owner.value.owner]


def _nodes_of_image(delta: Delta, world: World) -> Iterable[str]:
    """What is written of an image: the object itself, and what is in its revisions."""
    image = delta.parts[3] if delta.parts[0] == "kinds" else delta.parts[1]
    return [node.name for node in world.all(Node) if node.spec.image == image]


@controller(
    "node",
    kind=Node,
    start=_all,
    watches=[
        Watch("kinds/nodes/", own),
        Watch("nodes/", node_of),
        Watch("placements/", node_of),
        Watch("machines/", _node_of_machine),
        Watch("kinds/jobs/", _node_of_job),
        Watch("kinds/clusters/", _every_node),
        Watch("kinds/images/", _nodes_of_image),
        Watch("manifests/", _nodes_of_image),
    ],
)
async def reconcile_node(context: Context, name: str) -> Again:
    node = context.world.find(Node, name)
    if node is None:
        return DONE
    if name in context.world.alive and LEAVE_FINALIZER not in node.metadata.finalizers and not node.metadata.deletion_timestamp:
        return await _hold(context, node)
    new = node.model_copy(update={"status": node.status.model_copy()})  # whose fields are replaced here, never changed
    new.status.observed_generation = node.metadata.generation
    new.status.jobs = _count_jobs(context.world, name)
    grace_left = _heartbeat(context, new)
    _load(context, new)
    patience_left = _boot(context, new)
    note_image(context, new)
    return await _write(context, node, new, _first(grace_left, patience_left))


async def _hold(context: Context, node: Node) -> Again:
    """From now on it may have jobs, so it does not go without further ado."""
    held = node.model_copy(deep=True)
    held.metadata.finalizers.append(LEAVE_FINALIZER)
    await context.store.update(held)
    return DONE  # its change brings us back


def _heartbeat(context: Context, node: Node) -> float | None:
    """Ready, and what the agent found. Returns the seconds of grace that are left, None when none runs."""
    alive = context.world.alive.get(node.name)
    if alive is not None:
        found = alive.value
        node.status.last_heartbeat = context.now()
        node.status.capacity = Capacity(cpu=found.cpu, memory=found.memory)
        node.status.facts = NodeFacts(
            boot_id=found.boot_id,
            agent_version=found.agent_version,
            kernel=found.kernel,
            criu=found.criu,
            image=found.image,
            assigned=found.assigned,
            address=found.address,
            speed=found.speed,
        )
        _set(context, node, READY, Truth.TRUE, HEARTBEAT, f"agent {found.agent_version} at {found.address}")
        return None
    ready = find_condition(node.status.conditions, READY)
    if node.status.last_heartbeat is None:
        _set(context, node, READY, Truth.FALSE, NEVER_SEEN, "no agent of this name was heard yet: boot the machine")
        return None
    left = context.world.cluster.node_grace_period - silence(context, node.name)
    if ready is not None and ready.status == Truth.TRUE and left > 0:
        return left
    _set(context, node, READY, Truth.UNKNOWN, NO_HEARTBEAT, "its agent does not answer: look whether the machine is up")
    return None


def _boot(context: Context, node: Node) -> float | None:
    """How far its machine's boot is. Returns after how many seconds to look again; nothing is said of nodes CLiP never saw."""
    seen = context.world.machines.get(node.spec.mac or "")
    if seen is None:
        return None
    alive = context.world.alive.get(node.name)
    boot = with_agent(seen.value.boot, node.status.boot, alive.value.since if alive else None)
    node.status.hardware, node.status.boot = seen.value.hardware, boot
    verdict = judge(boot, seen.value.problem, context.now())
    truth = Truth.UNKNOWN if verdict.booted is None else Truth.TRUE if verdict.booted else Truth.FALSE
    _set(context, node, BOOTED, truth, verdict.reason, verdict.message)
    return verdict.look_again


def _load(context: Context, node: Node) -> None:
    """The latest sample, and whether it means pressure. Without a heartbeat a sample is history."""
    sample = context.world.load.get(node.name)
    if sample is None or node.name not in context.world.alive:
        for kind in (MEMORY_PRESSURE, CPU_PRESSURE, GUARDED):
            _set(context, node, kind, Truth.UNKNOWN, "NoSample", "the node reports no load")
        return
    load = node.status.load = sample.value
    why = (NO_GUARD, load.unguarded) if load.unguarded else (GUARD_RUNS, IS_GUARDED)
    _set(context, node, GUARDED, Truth.FALSE if load.unguarded else Truth.TRUE, *why)
    policy = in_force(context.world)
    high_water = policy.spec.memory.high_water if policy else 0.9
    share = load.memory_used / load.memory_capacity if load.memory_capacity else 0.0
    text = f"{share:.0%} of memory in use, high water {high_water:.0%}"
    _pressure(context, node, MEMORY_PRESSURE, share / high_water, text)
    demand = load.cpu_demand / load.cpu_capacity if load.cpu_capacity else 0.0
    _pressure(context, node, CPU_PRESSURE, demand / 1.25, _demand(load))


def _demand(load: LoadVector) -> str:
    return f"{load.cpu_demand:.1f} tasks want to run on {load.cpu_capacity:g} cores"


def _pressure(context: Context, node: Node, kind: str, level: float, message: str) -> None:
    """``level`` 1 is where pressure begins. The message is that of the moment in which it began or ended."""
    old = find_condition(node.status.conditions, kind)
    under = level >= (CALM if old and old.status == Truth.TRUE else 1.0)
    truth = Truth.TRUE if under else Truth.FALSE
    if old is None or old.status != truth:
        _set(context, node, kind, truth, "TooHigh" if under else "Enough", message)


async def _write(context: Context, old: Node, new: Node, grace_left: float | None) -> Again:
    """At once when something happened, now and then when only figures changed."""
    figures = ("figures", old.name)
    if _without_figures(old.status) == _without_figures(new.status):
        every = LOAD_EVERY if old.status.load != new.status.load else HEARTBEAT_EVERY
        wait = every - context.stopwatch.passed(figures)
        if old.status == new.status or wait > 0:
            return Again(_first(grace_left, None if old.status == new.status else wait))
    context.stopwatch.restart(figures)
    await context.store.update_status(new)
    await _tell(context, old, new)
    return Again(_first(grace_left, HEARTBEAT_EVERY if new.name in context.world.alive else None))


def _first(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)


def _without_figures(status: NodeStatus) -> NodeStatus:
    return status.model_copy(update={"load": None, "last_heartbeat": None})


async def _tell(context: Context, old: Node, new: Node) -> None:
    before, after = find_condition(old.status.conditions, READY), find_condition(new.status.conditions, READY)
    if after is None or (before is not None and before.status == after.status):
        return
    if after.status == Truth.TRUE:
        await context.tell(new, "NodeReady", after.message)
    elif before is not None:
        await context.warn(new, "NodeNotReady", after.message)


def _count_jobs(world: World, node: str) -> int:
    """Jobs that live there; ended ones keep their placement until they are deleted."""
    placed = [(key, world.placements.find(node, key)) for key in world.placements.on_node(node)]
    jobs = [world.find(Job, key) for key, seen in placed if seen is not None and seen.value.role != Role.DROP]
    return sum(1 for job in jobs if job is not None and job.status.phase not in FINISHED)


def _set(context: Context, node: Node, kind: str, status: Truth, reason: str, message: str) -> None:
    now, generation = context.now(), node.metadata.generation
    node.status.conditions = set_condition(node.status.conditions, kind, status, reason, message, now, generation)
