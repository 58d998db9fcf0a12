"""The demo's figures, and the two bounds they are held against."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from lab.demo.witness import Statement


@dataclass(frozen=True, slots=True)
class Summary:
    """What the demo prints at its end. Times are seconds unless the name says otherwise."""

    nodes: int
    jobs: int
    moves: int
    moves_failed: int
    lost: int
    freeze_ms_median: float
    freeze_ms_max: float
    seconds: float
    seconds_unmoved_bound: float
    seconds_ideal_bound: float


def summarise(
    cores: Sequence[float], statements: Sequence[Statement], freezes_ms: Sequence[float], moves_failed: int, seconds: float
) -> Summary:
    """Bounds from the CPU time that the jobs say they used: all of it on the first node, and spread without any loss.

    ``cores`` are the nodes' CPUs, the first being the one on which all jobs start. No schedule can beat the ideal bound: the work
    is done at most at the speed of all nodes together, and no single-threaded job runs faster than the fastest node.
    """
    work = sum(statement.cpu_seconds for statement in statements)
    longest = max(statement.cpu_seconds for statement in statements)
    return Summary(
        nodes=len(cores),
        jobs=len(statements),
        moves=len(freezes_ms),
        moves_failed=moves_failed,
        lost=sum(statement.faults for statement in statements),
        freeze_ms_median=round(median(freezes_ms), 1) if freezes_ms else 0.0,
        freeze_ms_max=round(max(freezes_ms, default=0.0), 1),
        seconds=round(seconds, 1),
        seconds_unmoved_bound=round(work / cores[0], 1),
        seconds_ideal_bound=round(max(work / sum(cores), longest / max(cores)), 1),
    )
