"""Which idle nodes to switch off, which to wake. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdleView:
    """A node. ``idle_for``: seconds without a job while it was there."""

    name: str
    ready: bool = True
    open: bool = True
    """Takes jobs."""
    asleep: bool = False
    """Was switched off for being idle, and was not heard since."""
    idle_for: float = 0.0
    can_switch: bool = True
    pending: bool = False
    """It is being switched by this policy."""
    woken: bool = False
    """What was asked for last is that it is on."""
    refused: bool = False
    """What was asked for last did not work."""


@dataclass(frozen=True, slots=True)
class IdlePlan:
    """Names. ``awake``: those that are up again, or never went to sleep."""

    sleep: tuple[str, ...] = ()
    wake: tuple[str, ...] = ()
    awake: tuple[str, ...] = ()


def plan_idle(nodes: Sequence[IdleView], *, waiting: int, after: float | None, keep: int) -> IdlePlan:
    """``waiting``: jobs that no node has room for. ``after`` None: nothing is switched off, and what sleeps is woken."""
    asleep = [node for node in nodes if node.asleep]
    awake = [node.name for node in asleep if node.ready and not node.pending and (node.woken or node.refused)]
    coming = sum(1 for node in asleep if node.woken and not node.refused and not node.ready)
    sleepers = [node.name for node in asleep if not node.pending and not node.ready and not node.woken]
    failed = [node.name for node in asleep if node.woken and node.refused and not node.ready]
    ready = [node for node in nodes if node.ready and node.open]
    if after is None:
        return IdlePlan(wake=tuple(sleepers), awake=tuple(awake))
    short = max(waiting - coming, keep - len(ready) - coming, 0)
    if short or any(node.pending for node in nodes) or waiting:
        return IdlePlan(wake=tuple((sleepers + failed)[:short]), awake=tuple(awake))
    spare = [node for node in ready if node.can_switch and node.idle_for >= after]
    longest = sorted(spare, key=lambda node: (-node.idle_for, node.name))
    return IdlePlan(sleep=tuple(node.name for node in longest[:1]) if len(ready) > keep else (), awake=tuple(awake))
