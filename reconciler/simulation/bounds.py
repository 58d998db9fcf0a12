"""What no schedule can beat."""

import heapq
from collections.abc import Sequence

from reconciler.planning.types import NodeView
from reconciler.simulation.work import Work


def least_mean_slowdown(nodes: Sequence[NodeView], works: Sequence[Work]) -> float:
    """A lower bound of the mean slowdown of any schedule, also of one that knows all beforehand, and has memory enough.

    All nodes are taken for one machine that stops and goes on at no cost. Mean busy time, weighted, is least there when the highest
    weight by work goes first (Goemans et al.); a job ends at least half its time alone after its mean busy time. None is below 1.
    """
    power = sum(node.cpu_capacity * node.speed for node in nodes)
    best = {work.name: work.best(list(nodes)) for work in works}
    coming = sorted(works, key=lambda work: (work.arrival, work.name), reverse=True)
    open_: list[tuple[float, str]] = []
    rest = {work.name: work.cpu_seconds for work in works}
    sums, now = dict.fromkeys(rest, 0.0), 0.0
    size = {work.name: work.cpu_seconds for work in works}
    while coming or open_:
        if not open_:
            now = max(now, coming[-1].arrival)
        while coming and coming[-1].arrival <= now:
            work = coming.pop()
            heapq.heappush(open_, (best[work.name] * work.cpu_seconds, work.name))
        name = open_[0][1]
        until = min(now + rest[name] / power, coming[-1].arrival if coming else float("inf"))
        done = min(rest[name], (until - now) * power)
        sums[name] += done * (now + until) / 2
        rest[name] -= done
        if rest[name] <= 1e-9 * size[name]:
            heapq.heappop(open_)
        now = until
    total = sum((sums[work.name] / work.cpu_seconds - work.arrival) / best[work.name] + 0.5 for work in works)
    return max(1.0, total / len(works)) if works else 1.0
