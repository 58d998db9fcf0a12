"""BalancePolicy: when running processes move, and when they must not."""

from enum import StrEnum
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from crds.meta import Column, Model, Resource, Status, Time, is_true
from crds.quantity import Duration

BALANCED = "Balanced"

WITHIN_TARGET = "WithinTarget"
MOVING = "Moving"
WAITING = "Waiting"
NO_GAIN = "NoMoveGains"
SWITCHED_OFF = "SwitchedOff"
OVERRIDDEN = "AnotherPolicyInForce"


class Goal(StrEnum):
    """What the balancer strives for."""

    OPPORTUNITY_COST = "opportunity-cost"
    NONE = "none"


class MemoryWater(Model):
    """Memory decides before load when a node is above the high water; it is relieved down to the low water."""

    high_water: float = Field(default=0.9, gt=0, le=1)
    """Share of a node's memory above which it must be relieved."""
    low_water: float = Field(default=0.75, gt=0, le=1)
    """Share down to which it is relieved; no move may bring its destination above."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low_water > self.high_water:
            raise ValueError(f"lowWater {self.low_water} is above highWater {self.high_water}")
        return self


class MoveBudget(Model):
    """How many moves may be under way at once."""

    per_node: int = Field(default=1, ge=1)
    """Moves that one node takes part in."""
    cluster: int = Field(default=4, ge=1)
    """Moves in the whole cluster."""


class BalancePolicySpec(Model):
    """When processes move."""

    goal: Goal = Goal.OPPORTUNITY_COST
    """opportunity-cost balances CPU and memory; none moves nothing by itself."""
    imbalance_target: float = Field(default=0.1, ge=0)
    """Balanced when (most loaded - mean) / mean of CPU demand by capacity is at most this."""
    min_gain: float = Field(default=0.05, ge=0)
    """A moved job must save this share of its remaining time, beyond what the move itself costs."""
    memory: MemoryWater = Field(default_factory=MemoryWater)
    """High and low water of memory."""
    budget: MoveBudget = Field(default_factory=MoveBudget)
    """Moves under way at once."""
    min_residency: Duration = 10.0
    """A job stays at least this long where it was started or moved to."""
    interval: Duration = 2.0
    """Pause between two decisions."""
    max_sample_age: Duration = 10.0
    """Load samples older than this are not acted on."""
    failure_cooldown: Duration = 30.0
    """A job whose move failed is left alone this long."""


class Kept(Model):
    """A candidate that was not moved, and why."""

    job: str
    """"<namespace>/<job>"."""
    reason: str
    """One line."""


class Decision(Model):
    """The last plan that differed from the one before."""

    time: Time
    """When it was made."""
    moves: list[str] = Field(default_factory=list)
    """Each move with its reason, one line."""
    kept: list[Kept] = Field(default_factory=list)
    """Candidates not moved; at most 20."""


class BalancePolicyStatus(Status):
    """What the policy sees."""

    imbalance: float | None = None
    """(most loaded - mean) / mean of CPU demand by capacity."""
    moves: int = 0
    """Moves asked for since the policy was made."""
    last_decision: Decision | None = None
    """Last plan."""
    ignored: list[str] = Field(default_factory=list)
    """Samples not acted on, and why."""


class BalancePolicy(Resource):
    """When running processes move, and when they must not. The first by name is in force."""

    KIND: ClassVar[str] = "BalancePolicy"
    PLURAL: ClassVar[str] = "balancepolicies"
    SHORT: ClassVar[tuple[str, ...]] = ("bp", "policy")
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("GOAL", lambda p: str(p.spec.goal)),
        Column("BALANCED", lambda p: str(is_true(p.status.conditions, BALANCED))),
        Column("IMBALANCE", lambda p: "-" if p.status.imbalance is None else f"{p.status.imbalance:.2f}"),
        Column("MOVES", lambda p: str(p.status.moves)),
    )

    kind: Literal["BalancePolicy"] = "BalancePolicy"
    """Kind of the resource."""
    spec: BalancePolicySpec = Field(default_factory=BalancePolicySpec)
    """Desired state."""
    status: BalancePolicyStatus = Field(default_factory=BalancePolicyStatus)
    """Observed state."""
