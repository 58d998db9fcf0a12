"""Aged time-sharing: how much of a node's CPU each of its jobs gets. Agents set it and the simulator reckons with it, by this rule.

A task whose job has had much CPU yields to young ones (foreground-background scheduling, weighted): of heavy-tailed life times most
end soon, and those that have lasted long will last long anyway, so letting the young go first shortens the mean wait. Bounded: from
``OLD`` seconds on nobody yields any more, so that an old task keeps a share and none starves.
"""

YOUNG = 0.5
"""Seconds of service that everybody is taken to have had at least: what keeps the weights finite."""
OLD = 60.0
"""Seconds of service from which on nobody yields any more: an old task keeps YOUNG / (YOUNG + OLD) of a new one's share."""


def weight(attained: float) -> float:
    """Weight of one task whose job had so many seconds of CPU by task, between 1 / (YOUNG + OLD) and 1 / YOUNG."""
    return 1.0 / (YOUNG + min(max(attained, 0.0), OLD))
