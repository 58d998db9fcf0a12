"""plan_moves: which running jobs move now. Memory first, then load; nothing when nothing is gained.

Pure: the same snapshot and policy always give the same plan, and a plan is data that somebody else applies. It carries the reason
for every move and for every candidate that stays. Balanced is said only when nothing is under way, nothing waits, and either the
imbalance is within the target or no move gains.
"""

from crds.balancepolicy import MOVING, NO_GAIN, SWITCHED_OFF, WAITING, WITHIN_TARGET, BalancePolicySpec, Goal
from reconciler.planning.draft import Draft
from reconciler.planning.load import even_out
from reconciler.planning.memory import usher
from reconciler.planning.picture import Picture, draw
from reconciler.planning.samples import distrust
from reconciler.planning.types import Plan, Snapshot


def plan_moves(snapshot: Snapshot, policy: BalancePolicySpec) -> Plan:
    """The moves to begin now, within the budget; apply them, look again, and it comes to rest."""
    picture = draw(snapshot, lambda view, jobs: distrust(view, jobs, policy.max_sample_age), policy.min_residency)
    unevenness, figures = imbalance(picture)
    within = unevenness <= policy.imbalance_target
    if policy.goal is Goal.NONE:
        return Plan((), (), unevenness, within, SWITCHED_OFF, f"goal is none; {figures}", picture.ignored)
    draft = Draft(snapshot, policy, picture)
    short = usher(draft)
    if not within and len(picture.nodes) > 1:
        even_out(draft)
    balanced, reason, message = _verdict(draft, within, figures)
    return Plan(tuple(draft.moves), draft.kept(), unevenness, balanced, reason, "; ".join((message, *short)), picture.ignored)


def imbalance(picture: Picture) -> tuple[float, str]:
    """(most loaded - mean) / mean of runnable tasks by core, and the figures in words.

    A cordoned node without load does not count: nothing could even it out.
    """
    states = [state for state in picture.nodes.values() if state.view.schedulable or state.tasks > 0]
    if not states:
        return 0.0, "no node with a usable load sample"
    mean = sum(state.tasks for state in states) / sum(state.view.cpu_capacity for state in states)
    most = min(states, key=lambda state: (-state.leaving_load, state.view.name))
    load = most.leaving_load
    unevenness = max(0.0, load / mean - 1) if mean > 0 else 0.0
    return unevenness, f"{most.view.name} has most, {load:.1f} runnable by core, mean {mean:.1f}: imbalance {unevenness:.2f}"


def _verdict(draft: Draft, within: bool, figures: str) -> tuple[bool, str, str]:
    """Balanced, reason, message."""
    if draft.moves or draft.under_way:
        return False, MOVING, f"{len(draft.moves)} moves planned, {draft.under_way} under way; {figures}"
    if not draft.picture.nodes:
        return False, WAITING, figures
    if draft.waiting:
        return False, WAITING, f"{draft.waiting}; {figures}"
    if within:
        return True, WITHIN_TARGET, figures
    return True, NO_GAIN, f"no move gains; {figures}"
