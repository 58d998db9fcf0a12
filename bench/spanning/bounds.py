"""What a table of makespans is compared with. Pure; times are seconds, lengths those of the jobs alone on a node."""

from collections.abc import Sequence
from random import Random


def preemptive(lengths: Sequence[float], nodes: int) -> float:
    """No schedule ends sooner, however often it moves jobs (McNaughton)."""
    return max(sum(lengths) / nodes, max(lengths))


def idle_only(lengths: Sequence[float], nodes: int) -> float:
    """When jobs, dealt out in turn, move only to a node that has fallen idle, from the one that has most: MOSIX's "optimal"."""
    queues = [list(lengths[node::nodes]) for node in range(nodes)]
    now = 0.0
    while any(queues):
        idle = [queue for queue in queues if not queue]
        for queue in idle:
            fullest = max(queues, key=lambda q: (len(q), sum(q)))
            if len(fullest) > 1:
                queue.append(fullest.pop(fullest.index(max(fullest))))
        step = min(min(queue) * len(queue) for queue in queues if queue)
        now += step
        for queue in queues:
            share = step / len(queue) if queue else 0.0
            queue[:] = [rest - share for rest in queue if rest - share > 1e-9]
    return now


def static(lengths: Sequence[float], nodes: int) -> float:
    """Dealt out in turn and never moved."""
    return max(sum(lengths[node::nodes]) for node in range(nodes))


def lengths_of(kind: str, count: int, mean: float, seed: int) -> list[float]:
    """Equal ones, or ones between a half and one and a half of the mean."""
    if kind == "equal":
        return [mean] * count
    random = Random(seed)
    return [round(mean * random.uniform(0.5, 1.5), 3) for _ in range(count)]
