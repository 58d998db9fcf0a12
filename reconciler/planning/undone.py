"""Which moves were mistakes: a job that comes back although nothing new had happened should never have left. Pure.

The one definition for the policy's status and for the simulator.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UNDONE_WITHIN = 600.0
"""Seconds: a move that is reversed sooner may be a wasted one."""


@dataclass(frozen=True, slots=True)
class Step:
    """A move that was made, at ``time`` (seconds on any clock). ``announced``: it has a reason of its own, such as rotation."""

    time: float
    job: str
    source: str
    destination: str
    announced: bool = False


def returns(steps: Iterable[Step], within: float = UNDONE_WITHIN) -> list[tuple[float, float]]:
    """Moves that brought a job back to a node that it had left at most ``within`` seconds before, as (left, sent back).

    Not all are mistakes: when other jobs come or end, the node it left may be the one that is free.
    """
    left: dict[tuple[str, str], float] = {}
    found = []
    for step in sorted(steps, key=lambda step: step.time):
        if step.announced:
            continue
        since = left.get((step.job, step.destination), float("-inf"))
        if step.time - since <= within:
            found.append((since, step.time))
        left[step.job, step.source] = step.time
    return found


def wasted(steps: Iterable[Step], news: Sequence[float]) -> list[tuple[float, float]]:
    """Returns between which no job came or ended: the first move was wrong when it was made. ``news``: when jobs came and ended."""
    moments = sorted(news)

    def quiet(since: float, back: float) -> bool:
        at = bisect_left(moments, since)
        return at == len(moments) or moments[at] > back

    return [(since, back) for since, back in returns(steps) if quiet(since, back)]


def left_lately(steps: Iterable[Step], news: float, now: float) -> dict[str, float]:
    """The nodes that a job left lately with nothing new since, each with seconds ago; ``steps`` are its own.

    ``news`` is when a job came or ended for the last time.
    """
    recent = (step for step in steps if not step.announced and now - step.time < UNDONE_WITHIN)
    return {step.source: now - step.time for step in recent if news <= step.time}
