"""N jobs of 300 s on 16 nodes in virtual time, all there at the start."""

from multiprocessing import get_context
from random import Random
from typing import Any

from bench.spanning.table import IDLE_ONLY, MX, STATIC, bound, row, static
from crds.balancepolicy import BalancePolicySpec, Goal, Rotation
from reconciler.planning.types import NodeView
from reconciler.simulation.compare import simulate
from reconciler.simulation.methods import Method, method, of_policy
from reconciler.simulation.outcome import Outcome
from reconciler.simulation.work import Physics, Work

NODES = 16
COUNTS = (16, 17, 20, 24, 25, 28, 33, 40, 48)
LENGTH = 300.0
MIB = 2**20
METHODS = (MX, "mosix", "threshold", "enhanced-mosix", "enhanced-pvm", "pvm", "random")


def lengths(count: int, random: Random | None) -> list[float]:
    """Equal jobs, or with ``random`` jobs of 50 to 550 s."""
    return [random.uniform(50, 550) if random else LENGTH for _ in range(count)]


def rows(seeds: int, *, equal: bool) -> list[dict[str, Any]]:
    """The table. With equal jobs only random placement depends on the seed."""
    work = [(count, seed, equal) for count in COUNTS for seed in range(1 if equal else seeds)]
    with get_context("spawn").Pool(2) as pool:
        found = pool.map(_run, work, chunksize=1)
    return [row(count, [one for (number, _, _), one in zip(work, found, strict=True) if number == count]) for count in COUNTS]


def _run(work: tuple[int, int, bool]) -> dict[str, float]:
    count, seed, equal = work
    sizes = lengths(count, None if equal else Random(seed))
    nodes = [NodeView(f"n{i:02}", 1.0, 4096 * MIB) for i in range(1, NODES + 1)]
    works = [Work(f"j{i:02}", size, memory=20 * MIB) for i, size in enumerate(sizes)]
    policy = BalancePolicySpec()
    idle_only = policy.model_copy(update={"goal": Goal.OPPORTUNITY_COST, "rotation": Rotation.OFF})
    found = {"bound": bound(sizes, NODES), STATIC: static(sizes, NODES)}
    found[IDLE_ONLY] = _simulate(of_policy(IDLE_ONLY, idle_only), nodes, works, seed).makespan
    for name in METHODS:
        outcome = _simulate(method(name, policy), nodes, works, seed)
        found[name] = outcome.makespan
        if name == MX:
            found |= {"moves": float(len(outcome.moves)), "wasted": float(outcome.wasted())}
    return found


def _simulate(one: Method, nodes: list[NodeView], works: list[Work], seed: int) -> Outcome:
    return simulate(one, nodes, works, Physics(), seed=seed)
