"""What would have to be different for a job to move: the planner is asked again, with one thing changed at a time. Pure.

So an answer is no opinion about the rules but what they do. Not all that could be different is tried: what people can change (the
policy, the job, a node), what passes by itself (patience, budgets), and load.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from crds.balancepolicy import BalancePolicySpec, Goal, MoveBudget
from reconciler.planning.types import JobView, Plan, Snapshot

Planner = Callable[[Snapshot, BalancePolicySpec], Plan]

MOST_NODES = 8
"""Other nodes that are thought empty, the least loaded first."""
MORE_TASKS = (1, 2, 4, 8)
"""Runnable tasks that are thought to come to its node."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``change``: what would be different; ``destination``: where the job would then go, with why."""

    change: str
    destination: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Trial:
    change: str
    snapshot: Snapshot
    policy: BalancePolicySpec


def what_would_move(plan_moves: Planner, snapshot: Snapshot, policy: BalancePolicySpec, job: JobView) -> list[Answer]:
    """Each single change that would make the job move now; empty when none of those that are tried does."""
    answers = []
    for trial in (*_passing(snapshot, policy, job), *_of_policy(snapshot, policy), *_of_job(snapshot, policy, job)):
        answers += _ask(plan_moves, trial, job)
    answers += [answer for trial in _of_nodes(snapshot, policy, job) for answer in _ask(plan_moves, trial, job)]
    for trial in _more_load(snapshot, policy, job):
        if found := _ask(plan_moves, trial, job):
            return answers + found  # more of it says nothing new
    return answers


def _ask(plan_moves: Planner, trial: _Trial, job: JobView) -> list[Answer]:
    """A change may well make another job of the node move first: then it is tried once more without those."""
    plan = plan_moves(trial.snapshot, trial.policy)
    found = [Answer(trial.change, move.destination, move.reason) for move in plan.moves if move.job == job.key]
    if found or not any(move.source == job.node for move in plan.moves):
        return found
    plan = plan_moves(_others_fixed(trial.snapshot, job), trial.policy)
    change = f"{trial.change}, and no other job of {job.node} went first"
    return [Answer(change, move.destination, move.reason) for move in plan.moves if move.job == job.key]


def _others_fixed(snapshot: Snapshot, job: JobView) -> Snapshot:
    others = [other for other in snapshot.jobs if other.node == job.node and other.key != job.key and other.movable]
    return _with_jobs(snapshot, [replace(other, movable=False, why_not_movable="only thought fixed") for other in others])


def _passing(snapshot: Snapshot, policy: BalancePolicySpec, job: JobView) -> Iterator[_Trial]:
    """What is over by itself after a while."""
    rest = policy.min_residency - job.resident_for
    if rest > 0:
        patient = replace(job, resident_for=policy.min_residency)
        yield _Trial(f"in {rest:.0f} s, when it has been here for minResidency", _with_job(snapshot, patient), policy)
    if job.since_failed_move is not None:
        yield _Trial("when its failed move is long enough ago", _with_job(snapshot, replace(job, since_failed_move=None)), policy)
    most = MoveBudget(per_node=1 << 20, cluster=1 << 20)
    if snapshot.moves:
        yield _Trial("when the moves under way are over", replace(snapshot, moves=()), policy)
    yield _Trial("if the budget allowed more moves at once", snapshot, policy.model_copy(update={"budget": most}))


def _of_policy(snapshot: Snapshot, policy: BalancePolicySpec) -> Iterator[_Trial]:
    changes: list[tuple[str, dict[str, object]]] = []
    if policy.goal is Goal.NONE:
        changes.append(("if goal were opportunity-cost", {"goal": Goal.OPPORTUNITY_COST}))
    if policy.imbalance_target > 0:
        changes.append((f"if imbalanceTarget were 0, not {policy.imbalance_target:g}", {"imbalance_target": 0.0}))
    if policy.min_gain > 0:
        changes.append((f"if minGain were 0, not {policy.min_gain:g}", {"min_gain": 0.0}))
    changes.append((f"if samples older than {policy.max_sample_age:g} s were believed", {"max_sample_age": float("inf")}))
    for change, update in changes:
        yield _Trial(change, snapshot, policy.model_copy(update=update))


def _of_job(snapshot: Snapshot, policy: BalancePolicySpec, job: JobView) -> Iterator[_Trial]:
    if not job.movable:
        free = replace(job, movable=True, why_not_movable="")
        yield _Trial(f"if it could be moved ({job.why_not_movable})", _with_job(snapshot, free), policy)
    if job.node_selector:
        yield _Trial("if it had no nodeSelector", _with_job(snapshot, replace(job, node_selector={})), policy)
    if any(node.taints for node in snapshot.nodes):
        yield _Trial("if it tolerated all taints", _with_job(snapshot, replace(job, tolerations=("*",))), policy)
    if job.cpu_flags:
        alike = replace(job, cpu_flags=frozenset())
        yield _Trial("if all processors had the features of its node's", _with_job(snapshot, alike), policy)
    if job.unfit:
        yield _Trial("if all nodes had the files that it has mapped", _with_job(snapshot, replace(job, unfit={})), policy)
    others = [o for o in snapshot.jobs if o.node == job.node and o.key != job.key and o.movable]
    if others:
        first = "if none of the other jobs of its node were moved first"
        yield _Trial(
            first, _with_jobs(snapshot, [replace(o, movable=False, why_not_movable="thought fixed") for o in others]), policy
        )


def _of_nodes(snapshot: Snapshot, policy: BalancePolicySpec, job: JobView) -> Iterator[_Trial]:
    others = sorted(
        (n for n in snapshot.nodes if n.name != job.node), key=lambda n: (n.cpu_demand / max(n.cpu_capacity, 1e-9), n.name)
    )
    for node in others:
        if node.ready and not node.schedulable:
            opened = tuple(replace(n, schedulable=True) if n.name == node.name else n for n in snapshot.nodes)
            yield _Trial(f"if {node.name} were open for jobs", replace(snapshot, nodes=opened), policy)
    busy = [n for n in others if n.ready and n.schedulable and n.cpu_demand > 0]
    for node in busy[:MOST_NODES]:
        emptied = tuple(
            replace(n, cpu_demand=0.0, memory_used=0, memory_pressure=0.0) if n.name == node.name else n for n in snapshot.nodes
        )
        left = tuple(o for o in snapshot.jobs if o.node != node.name)
        yield _Trial(f"if {node.name} had nothing to do", replace(snapshot, nodes=emptied, jobs=left), policy)


def _more_load(snapshot: Snapshot, policy: BalancePolicySpec, job: JobView) -> Iterator[_Trial]:
    for more in MORE_TASKS:
        busier = tuple(replace(n, cpu_demand=n.cpu_demand + more) if n.name == job.node else n for n in snapshot.nodes)
        thought = tuple(
            JobView(f"~/thought-{number}", job.node, movable=False, why_not_movable="only thought") for number in range(more)
        )
        tasks = f"{more} more task{'s' if more > 1 else ''}"
        yield _Trial(f"if {tasks} ran on {job.node}", replace(snapshot, nodes=busier, jobs=snapshot.jobs + thought), policy)


def _with_job(snapshot: Snapshot, job: JobView) -> Snapshot:
    return _with_jobs(snapshot, [job])


def _with_jobs(snapshot: Snapshot, jobs: list[JobView]) -> Snapshot:
    new = {job.key: job for job in jobs}
    return replace(snapshot, jobs=tuple(new.get(job.key, job) for job in snapshot.jobs))
