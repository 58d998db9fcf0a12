"""What is simulated: workloads, conditions, and which methods run on them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from crds.balancepolicy import BalancePolicySpec, TimeSharing
from reconciler.planning.types import NodeView
from reconciler.simulation import workloads
from reconciler.simulation.work import STOP, Physics, Work
from reconciler.simulation.workloads import SPEEDS, Stream

POLICY = BalancePolicySpec()
"""Ours as it is unless somebody changes it."""
OTHERS = ("mosix", "enhanced-mosix")
ALL = (*OTHERS, "threshold", "none", "enhanced-pvm", "pvm", "least-loaded", "two-choices", "random")
AGED = "+aged"
"""Behind a method's name: with aged time-sharing on the nodes."""
RIVALS = ("mx", f"mx{AGED}", *OTHERS)


@dataclass(frozen=True, slots=True)
class Case:
    """One workload under one condition. ``runs`` executions make one seed's figure."""

    name: str
    make: Callable[[Random], tuple[list[NodeView], list[Work]]]
    physics: Physics = field(default_factory=Physics)
    policy: BalancePolicySpec = field(default_factory=BalancePolicySpec)
    methods: tuple[str, ...] = (*RIVALS, "none")
    runs: int = 1

    def with_(self, name: str, **physics: object) -> "Case":
        """The same under another condition, fewer methods; a fifth of the executions, as nothing published is compared."""
        changed = replace(self.physics, **physics)  # type: ignore[arg-type]
        policy = POLICY.model_copy(update={"max_sample_age": max(POLICY.max_sample_age, 2 * changed.stale)})
        few = {"methods": (*RIVALS, "none"), "runs": max(1, self.runs // 5)}
        return replace(self, name=f"{self.name}, {name}", physics=changed, policy=policy, **few)


def aged(policy: BalancePolicySpec) -> BalancePolicySpec:
    """The same with aged time-sharing."""
    return policy.model_copy(update={"time_sharing": TimeSharing.AGED})


def _stream(name: str, stream: Stream, methods: tuple[str, ...], runs: int) -> Case:
    return Case(name, lambda random: (stream.nodes(), stream.works(random)), Physics(thrash=stream.thrash), POLICY, methods, runs)


STREAM = "MOSIX stream"


def cases() -> list[Case]:
    """All of them, the most wanted first."""
    main = _stream(STREAM, Stream(), (*RIVALS, *(m + AGED for m in OTHERS), *ALL[2:]), 25)
    tails = Case("bounded 1/x", workloads.heavy_tailed, methods=("mx", f"mx{AGED}", *ALL))
    sweep = {
        "jobs as large as a machine": Stream(thrash=2.2, most_memory=1.0),
        "thrash 10": Stream(thrash=10.0, divided_memory=True),
        "thrash 4, parts divide memory": Stream(thrash=4.0, divided_memory=True),
        "equal speeds": Stream(speeds=SPEEDS["equal"]),
        "three kinds of machines": Stream(speeds=SPEEDS["three-kinds"]),
        "parts divide all": Stream(divided_cpu=True, divided_memory=True, thrash=10.0),
    }
    return [
        main,
        main.with_("load 5 s late", stale=5.0),
        main.with_("load 30 s late", stale=30.0),
        main.with_("5 % of moves fail", move=replace(STOP, failures=0.05)),
        *(_stream(f"{STREAM}, {name}", stream, (*RIVALS, "none"), 2) for name, stream in sweep.items()),
        tails,
        tails.with_("load 5 s late", stale=5.0),
        tails.with_("load 30 s late", stale=30.0),
        tails.with_("5 % of moves fail", move=replace(STOP, failures=0.05)),
        Case("exponential", workloads.exponential, methods=("mx", f"mx{AGED}", *ALL)),
        Case("old and new machines", workloads.old_and_new, methods=(*RIVALS, *(m + AGED for m in OTHERS), "none", "least-loaded")),
        Case("UNIX mix", workloads.unix_mix),
        Case("oscillator", workloads.oscillator, methods=("mx", *OTHERS, "threshold", "none")),
        Case("memory hog", workloads.memory_hog, methods=("mx", *OTHERS, "threshold", "none")),
    ]
