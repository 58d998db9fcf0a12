"""How fast each node's cores are: what people declare, else what its agent measured, made equal for machines that are alike.

A measurement has noise (a busy host, a warm processor), and noise must move nothing. So nodes that call their processor by the same
name share one figure, the median of theirs; it counts in steps of a tenth. A machine far off its like has its own: it may be a
virtual one on another host.
"""

from collections import defaultdict
from math import log
from statistics import median

from crds.node import Node
from reconciler.world import World

STEP = 1.1
LEAST, MOST = 1e-3, 1e3
"""What is beyond is no measurement."""
FAR = 1.5
"""A machine that is so many times faster or slower than the median of its like is not like them."""


def speeds(world: World) -> dict[str, float]:
    """For every declared node; 1 where nothing is known."""
    alike = defaultdict(list)
    for name, seen in world.alive.items():
        if seen.value.speed is not None and LEAST <= seen.value.speed <= MOST:
            alike[seen.value.system.processor].append((name, seen.value.speed))
    measured: dict[str, float] = {}
    for group in alike.values():
        middle = median(speed for _, speed in group)
        measured |= {name: step(middle if middle / FAR <= speed <= middle * FAR else speed) for name, speed in group}
    return {node.name: node.spec.speed or measured.get(node.name, 1.0) for node in world.all(Node)}


def step(speed: float) -> float:
    """The nearest step: 1, 1.1, 1.21, … and the same downwards."""
    return round(float(STEP ** round(log(speed, STEP))), 4)
