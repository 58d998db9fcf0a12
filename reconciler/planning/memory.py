"""Memory ushering: a node short of memory is relieved before anybody looks at load (MOSIX, see Barak, Guday, Wheeler).

A node above the high water gives jobs away until it is below the low water: the smallest job that suffices, or else the largest and
so on; each to the node that it fills best without passing the low water. So every move of the set is needed, and none can come
back: with it, its old node would again be above the low water.
"""

from crds.quantity import human_memory
from reconciler.planning.draft import MEMORY, Draft
from reconciler.planning.fit import closed, refused
from reconciler.planning.picture import NodeState
from reconciler.planning.types import JobView


def usher(draft: Draft) -> tuple[str, ...]:
    """Adds the moves that memory wants. Returns a line for each node that stays above its high water."""
    high = draft.policy.memory.high_water
    short = [state for state in draft.picture.nodes.values() if _share(state) > high]
    return tuple(
        line for state in sorted(short, key=lambda state: (-_share(state), state.view.name)) if (line := _relieve(draft, state))
    )


def _share(state: NodeState) -> float:
    return (state.memory - state.departing) / state.view.memory_capacity


def _relieve(draft: Draft, source: NodeState) -> str:
    water, node = draft.policy.memory, source.view
    jobs = _candidates(draft, source)
    while jobs and _share(source) > water.low_water:
        spent = draft.budget_of(node.name)
        if spent:
            _hold(draft, jobs if _share(source) > water.high_water else [], spent)
            break
        excess = source.memory - source.departing - water.low_water * node.memory_capacity
        job = _pick(jobs, excess)
        jobs.remove(job)
        _send(draft, source, job)
    if _share(source) <= water.high_water:
        return ""
    return f"{node.name} has {_share(source):.2f} of its memory in use, above high water {water.high_water:g}"


def _candidates(draft: Draft, source: NodeState) -> list[JobView]:
    """Jobs that may leave now; the others are noted with why."""
    free = []
    for job in source.jobs:
        blocked = draft.not_now(job)
        if not job.movable:
            draft.keep(job, MEMORY, job.why_not_movable or "may not be moved")
        elif job.memory <= 0:
            draft.keep(job, MEMORY, f"has no memory to free on {source.view.name}")
        elif blocked:
            draft.hold(job, MEMORY, blocked)
        else:
            free.append(job)
    return free


def _hold(draft: Draft, jobs: list[JobView], why: str) -> None:
    for job in jobs:
        draft.hold(job, MEMORY, why)


def _pick(jobs: list[JobView], excess: float) -> JobView:
    """The smallest that suffices, else the largest."""
    enough = [job for job in jobs if job.memory >= excess]
    if enough:
        return min(enough, key=lambda job: (job.memory, job.key))
    return min(jobs, key=lambda job: (-job.memory, job.key))


def _send(draft: Draft, source: NodeState, job: JobView) -> None:
    against = {name: _against(draft, state, job) for name, state in draft.picture.nodes.items() if state is not source}
    fitting = [draft.picture.nodes[name] for name, why in against.items() if not why]
    if not fitting:
        shown = "; ".join(f"{name}: {why}" for name, why in list(against.items())[:3])
        draft.keep(job, MEMORY, "no node has room for it: " + (shown or "there is no other"))
        return
    best = min(fitting, key=lambda state: (_room_left(draft, state, job), state.load, state.view.name))
    before = _share(source)
    after = (source.memory - source.departing - job.memory) / source.view.memory_capacity
    reason = (
        f"{source.view.name} has {before:.2f} of its memory in use, above high water {draft.policy.memory.high_water:g}: "
        f"{human_memory(job.memory)} go to {best.view.name}, then at {(best.memory + job.memory) / best.view.memory_capacity:.2f}"
    )
    draft.move(job, source, best, reason, 1 - max(0.0, after) / before)


def _against(draft: Draft, state: NodeState, job: JobView) -> str:
    """Why the job cannot go there; empty when it can."""
    why = closed(state.view) or refused(state.view, job)
    return why or draft.room(state, job) or draft.cannot_take(state.view.name)


def _room_left(draft: Draft, state: NodeState, job: JobView) -> float:
    """Bytes below the low water that would remain."""
    return draft.policy.memory.low_water * state.view.memory_capacity - state.memory - job.memory
