"""A method: where jobs start and which of them move. Ours is the decision code of the real cluster with a policy."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from crds.balancepolicy import BalancePolicySpec, Goal, TimeSharing
from reconciler.planning.balance import plan_moves
from reconciler.planning.placement import choose_node
from reconciler.planning.types import PlacementRequest, Plan, Snapshot
from reconciler.simulation.baselines import BASELINES, stay
from reconciler.simulation.cluster import Decide, Place
from reconciler.simulation.work import NEVER

OURS = "mx"


@dataclass(frozen=True, slots=True)
class Method:
    """``place`` makes a new placer for each run: some keep count."""

    name: str
    what: str
    place: Callable[[Random], Place]
    decide: Decide
    interval: float
    """Seconds between two decisions."""
    aged: bool
    """Time-sharing on the nodes."""


def of_policy(name: str, policy: BalancePolicySpec) -> Method:
    """The real decision code."""

    def decide(snapshot: Snapshot) -> Plan:
        return plan_moves(snapshot, policy)

    moves = policy.goal is not Goal.NONE
    what = f"placed by mx, moved by goal {policy.goal}" if moves else "placed by mx, never moved"
    aged = policy.time_sharing is TimeSharing.AGED
    return Method(name, what, lambda _: place, decide if moves else stay, policy.interval if moves else NEVER, aged)


def place(snapshot: Snapshot, request: PlacementRequest) -> str | None:
    """As the real cluster places; None when the job has to wait for room."""
    return choose_node(snapshot, request).node


def known() -> list[str]:
    """All names that ``method`` takes."""
    return [OURS, *(goal.value for goal in Goal if goal is not Goal.OPPORTUNITY_COST), *BASELINES]


def method(name: str, policy: BalancePolicySpec) -> Method:
    """By name: ``mx`` is the policy as it is, a goal is the policy with that goal, others are baselines. KeyError for no name."""
    if name == OURS:
        return of_policy(name, policy)
    if name in list(Goal):
        return of_policy(name, policy.model_copy(update={"goal": Goal(name)}))
    placer, decide, what = BASELINES[name]
    return Method(name, what, placer, decide, NEVER if decide is stay else policy.interval, policy.time_sharing is TimeSharing.AGED)
