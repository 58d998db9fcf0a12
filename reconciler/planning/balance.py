"""plan_moves: which running jobs move now. Owners and memory first, then load; nothing when nothing is gained.

Pure: the same snapshot and policy always give the same plan, and a plan is data that somebody else applies. It carries the reason
for every move, and for every candidate that stays. Balanced is said only when nothing but a rotation is under way, nothing waits,
and either the imbalance is within the target or no move gains.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from crds.balancepolicy import MOVING, NO_GAIN, ROTATING, SWITCHED_OFF, WAITING, WITHIN_TARGET, BalancePolicySpec, Goal
from reconciler.planning.draft import Draft
from reconciler.planning.home import go_home
from reconciler.planning.kept import Kept
from reconciler.planning.load import Evening
from reconciler.planning.memory import usher
from reconciler.planning.owner import evict
from reconciler.planning.picture import Picture, draw
from reconciler.planning.room import make_room
from reconciler.planning.rotation import rotate
from reconciler.planning.rules import Mosix, OpportunityCost, Rule, Threshold
from reconciler.planning.samples import distrust
from reconciler.planning.types import Cause, Plan, Snapshot

RULES: dict[Goal, Callable[[Draft], Rule]] = {Goal.OPPORTUNITY_COST: OpportunityCost, Goal.MOSIX: Mosix, Goal.THRESHOLD: Threshold}


def plan_moves(snapshot: Snapshot, policy: BalancePolicySpec) -> Plan:
    """The moves to begin now, within the budget; apply them, look again, and it comes to rest."""
    picture = draw(snapshot, partial(distrust, max_age=policy.max_sample_age), policy.min_residency)
    unevenness, figures = imbalance(picture)
    within = unevenness <= policy.imbalance_target
    if policy.goal is Goal.NONE:
        return Plan((), (), unevenness, within, SWITCHED_OFF, f"goal is none; {figures}", picture.ignored)
    draft = Draft(policy, picture)
    evict(draft)
    lines = [*usher(draft), make_room(draft)]
    if not within and len(picture.views) > 1:
        Evening(draft, RULES[policy.goal](draft)).run()
        rotate(draft)
    go_home(draft)
    balanced, reason, message = _verdict(draft, within, figures)
    told = "; ".join((message, *filter(None, lines)))
    return Plan(tuple(draft.moves), Kept(draft), unevenness, balanced, reason, told, picture.ignored)


def imbalance(picture: Picture) -> tuple[float, str]:
    """(most loaded - mean) / mean of runnable tasks by power, and the figures in words.

    A cordoned node without load does not count: nothing could even it out.
    """
    counted = np.flatnonzero(picture.open | (picture.tasks > 0))
    if not len(counted):
        return 0.0, "no node with a usable load sample"
    mean = float(picture.tasks[counted].sum() / picture.power[counted].sum())
    leaving = picture.leaving
    most = int(counted[np.argmax(leaving[counted])])
    load = float(leaving[most])
    unevenness = max(0.0, load / mean - 1) if mean > 0 else 0.0
    return unevenness, f"{picture.names[most]} has most, {load:.1f} runnable by core, mean {mean:.1f}: imbalance {unevenness:.2f}"


def _verdict(draft: Draft, within: bool, figures: str) -> tuple[bool, str, str]:
    """Balanced, reason, message."""
    causes = {move.cause for move in draft.moves} | {move.cause for move in draft.picture.snapshot.moves}
    if causes == {Cause.ROTATION} and not draft.waiting:
        return True, ROTATING, f"jobs change places, {len(draft.moves)} now, {draft.under_way} under way; {figures}"
    if causes:
        return False, MOVING, f"{len(draft.moves)} moves planned, {draft.under_way} under way; {figures}"
    if not draft.picture.views:
        return False, WAITING, figures
    if draft.waiting:
        return False, WAITING, f"{draft.waiting}; {figures}"
    if within:
        return True, WITHIN_TARGET, figures
    return True, NO_GAIN, f"no move gains; {figures}"
