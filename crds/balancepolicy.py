"""BalancePolicy: when running processes move, and when they must not."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from crds.meta import Column, Model, Resource, Status, Time, find_condition, is_true
from crds.quantity import Duration
from crds.wording import shorten

BALANCED = "Balanced"

WITHIN_TARGET = "WithinTarget"
MOVING = "Moving"
WAITING = "Waiting"
NO_GAIN = "NoMoveGains"
ROTATING = "Rotating"
SWITCHED_OFF = "SwitchedOff"
OVERRIDDEN = "AnotherPolicyInForce"


class Goal(StrEnum):
    """What the balancer strives for."""

    OPPORTUNITY_COST = "opportunity-cost"
    """Every move lowers what use of CPU and memory costs the jobs to come, and gains more than it costs."""
    MOSIX = "mosix"
    """MOSIX's rule: to where the load with 1.3 times the job would still be below the load here."""
    THRESHOLD = "threshold"
    """From nodes above one load to nodes below another."""
    NONE = "none"
    """Nothing moves by itself."""


class TimeSharing(StrEnum):
    """How the jobs of one node share its CPU."""

    FAIR = "fair"
    """Evenly."""
    AGED = "aged"
    """Jobs that have had much CPU yield to young ones, within bounds: most jobs end soon, and the old ones last long anyway."""


class Rotation(StrEnum):
    """What becomes of more equal jobs than cores, when no move evens them out any more."""

    AUTO = "auto"
    """Those that got least change places with those that got most, where that pays for the moves: they end together."""
    OFF = "off"
    """They stay where they are."""


class Guests(StrEnum):
    """What becomes of jobs of others on a node when its owner logs in."""

    KEEP = "keep"
    EVICT = "evict"


def _words(value: Any) -> Any:
    """YAML reads a bare ``off`` as false and ``on`` as true."""
    return {True: "auto", False: "off"}[value] if isinstance(value, bool) else value


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


class LoadThresholds(Model):
    """Of goal threshold: runnable tasks by core, a core of a faster node counting for more."""

    high: float = Field(default=1.5, gt=0)
    """Nodes above give jobs away."""
    low: float = Field(default=1.0, gt=0)
    """Nodes below take them; none is filled above high."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}; nodes between the two neither give nor take")
        return self


class BalancePolicySpec(Model):
    """When processes move."""

    goal: Goal = Goal.OPPORTUNITY_COST
    """By which rule load is evened out: opportunity-cost, mosix, threshold; none moves nothing by itself."""
    threshold: LoadThresholds = Field(default_factory=LoadThresholds)
    """High and low load; only of goal threshold."""
    rotation: Annotated[Rotation, BeforeValidator(_words)] = Rotation.AUTO
    """auto: more equal jobs than cores change places, so that they end together; off: they stay. Goal opportunity-cost only."""
    time_sharing: TimeSharing = TimeSharing.FAIR
    """aged: on each node young jobs go before those that have had much CPU; fair: evenly."""
    guests: Guests = Guests.KEEP
    """evict: jobs of others leave a node as soon as its owner logs in."""
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
    """A job whose move failed is left alone this long; twice as long after each further failure in a row."""


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
    moves_per_hour: int = 0
    """Of these, moves that succeeded in the last hour."""
    failed_per_hour: int = 0
    """Of these, moves that failed in the last hour."""
    wasted_per_hour: int = 0
    """Moves of the last hour that were undone within ten minutes although no job had come or ended: mistakes. Rotation is none."""
    last_decision: Decision | None = None
    """Last plan."""
    ignored: list[str] = Field(default_factory=list)
    """Samples not acted on, and why."""


def _reason(policy: "BalancePolicy") -> str:
    condition = find_condition(policy.status.conditions, BALANCED)
    return condition.reason if condition else "-"


def _last_decision(policy: "BalancePolicy") -> str:
    decision = policy.status.last_decision
    if decision is None:
        return "-"
    return shorten(decision.moves[0] if decision.moves else f"{len(decision.kept)} candidates stay", 80)


class BalancePolicy(Resource):
    """When running processes move, and when they must not. The first by name is in force."""

    KIND: ClassVar[str] = "BalancePolicy"
    PLURAL: ClassVar[str] = "balancepolicies"
    SHORT: ClassVar[tuple[str, ...]] = ("bp", "policy")
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("GOAL", lambda p: str(p.spec.goal)),
        Column("BALANCED", lambda p: str(is_true(p.status.conditions, BALANCED))),
        Column("IMBALANCE", lambda p: "-" if p.status.imbalance is None else f"{p.status.imbalance:.2f}"),
        Column("REASON", _reason),
        Column("MOVES", lambda p: str(p.status.moves)),
        Column("MOVES/H", lambda p: str(p.status.moves_per_hour)),
        Column("WASTED/H", lambda p: str(p.status.wasted_per_hour)),
        Column("FAILED/H", lambda p: str(p.status.failed_per_hour), wide=True),
        Column("IGNORED", lambda p: str(len(p.status.ignored)), wide=True),
        Column("LAST DECISION", _last_decision, wide=True),
    )

    kind: Literal["BalancePolicy"] = "BalancePolicy"
    """Kind of the resource."""
    spec: BalancePolicySpec = Field(default_factory=BalancePolicySpec)
    """Desired state."""
    status: BalancePolicyStatus = Field(default_factory=BalancePolicyStatus)
    """Observed state."""
