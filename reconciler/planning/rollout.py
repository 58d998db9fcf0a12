"""Rollouts: from how the nodes are to what has to be done next. Pure; called again and again until nothing is left to do.

What holds after every call, whatever happened in between:
  - Never more than ``max_unavailable`` nodes are away because of the rollout, those included that it updated and that fell over.
  - After a failure no further node is begun in this attempt.
  - A node is only restarted when no job lives on it.
  - A node that did not come back is assigned what it last ran well with.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crds.assignment import Assignment
from crds.power import PowerPhase
from crds.rollout import UNDER_WAY, NodeUpdate, RolloutPhase, UpdateStep
from reconciler.planning.assignment import runs

ASK_AGAIN = 15.0
"""Seconds between two requests for the same restart."""
MOST_RESTARTS = 5
_IN_FLIGHT = (None, PowerPhase.ACTING, PowerPhase.DONE)


@dataclass(frozen=True, slots=True)
class Restart:
    """What became of the last request for a restart. ``phase`` None: nobody has taken it up."""

    phase: PowerPhase | None
    message: str = ""
    age: float = 0.0
    """Seconds since it was asked for."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as it is. ``age``: seconds since the step of ``update`` began."""

    name: str
    ready: bool = True
    heard: bool = True
    boot_id: str = ""
    image: str = ""
    booted: str = ""
    assigned: Assignment | None = None
    good: Assignment | None = None
    update: NodeUpdate | None = None
    age: float = 0.0
    wanted: Assignment | None = None
    why_unknown: str = ""
    """Why ``wanted`` is None; when the rollout is undone: why it cannot go back to what it ran before."""
    occupants: tuple[str, ...] = ()
    """What lives on it, in words; empty: it may be restarted."""
    restart: Restart | None = None
    """Of this step; None when none was asked for."""
    taken_over: bool = False
    """A younger rollout has it, or had it last: this one leaves it alone."""
    can_restart: bool = True
    """It has a power driver."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the Rollout says. ``stopping``: it is being deleted."""

    name: str
    uid: str
    max_unavailable: int = 1
    deadline: float = 600.0
    drain_deadline: float = 600.0
    paused: bool = False
    undo: bool = False
    attempt: int = 0
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What to write about one node, in one transaction. ``restart``: ask for a restart. ``begin``: it was not under way before."""

    node: str
    step: UpdateStep
    message: str
    target: Assignment
    before: Assignment | None = None
    assign: Assignment | None = None
    restart: bool = False
    cancel: bool = False
    """Take a request for a restart back, when nobody has acted on it."""
    failed: bool = False
    begin: bool = False


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """``drain``: nodes whose jobs have to be moved away."""

    phase: RolloutPhase
    message: str
    changes: tuple[Change, ...] = ()
    drain: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    updated: int = 0
    total: int = 0
    after: float | None = None
    """Seconds until a deadline passes."""


def plan_rollout(rules: Rules, nodes: Sequence[NodeView]) -> RolloutPlan:
    """``nodes`` are all that the rollout is about, also those it has done."""
    ordered = sorted(nodes, key=lambda node: natural(node.name))
    mine = [node for node in ordered if _is_mine(rules, node) and node.update is not None and node.update.step in UNDER_WAY]
    failed = tuple(f"{n.name}: {n.update.message}" for n in ordered if n.update and _failed_now(rules, n))
    halted = bool(failed) or rules.stopping
    changes = [change for node in mine if (change := _go_on(rules, node, halted)) is not None]
    fails = [change for change in changes if change.failed]
    if not halted and not fails and not rules.paused:
        changes += _begin(rules, ordered, len(mine))
    done = sum(1 for node in ordered if _is_done(rules, node))
    drain = tuple(node.name for node in mine if node.update and node.update.step == UpdateStep.DRAINING and node.occupants)
    return RolloutPlan(
        phase=_phase(rules, ordered, mine, failed, done),
        message=_message(rules, ordered, mine, failed, done),
        changes=tuple(changes),
        drain=() if halted else drain,
        away=tuple(node.name for node in mine),
        failed=failed,
        updated=done,
        total=len(ordered),
        after=_next_deadline(rules, mine),
    )


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts n2 before n10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


# --- nodes under way ---


def _go_on(rules: Rules, node: NodeView, halted: bool) -> Change | None:
    assert node.update is not None
    match node.update.step:
        case UpdateStep.DRAINING:
            return _drain(rules, node, node.update, halted)
        case UpdateStep.RESTARTING:
            return _restarting(rules, node, node.update)
        case _:
            return _reverting(rules, node, node.update)


def _drain(rules: Rules, node: NodeView, update: NodeUpdate, halted: bool) -> Change | None:
    if halted or rules.undo != update.undo:
        return _say(node, update, UpdateStep.KEPT, "the rollout was stopped before it was restarted")
    if not node.occupants and node.heard and node.ready:
        told = "is restarted" if node.can_restart else "is empty: restart it by hand, for it has no power driver (spec.power)"
        return _say(node, update, UpdateStep.RESTARTING, told, assign=update.target, restart=node.can_restart)
    why = "; ".join(node.occupants) if node.heard else "it does not answer"
    if node.age > rules.drain_deadline:
        return _say(node, update, UpdateStep.KEPT, f"not empty after {rules.drain_deadline:g} s: {why}", failed=True)
    return _say(node, update, update.step, why) if why != update.message else None


def _restarting(rules: Rules, node: NodeView, update: NodeUpdate) -> Change | None:
    restarted = node.boot_id not in ("", update.boot_id)
    if node.ready and node.heard and restarted:
        if runs(node.image, node.booted, update.target):
            return _say(node, update, UpdateStep.UPDATED, "runs what it should")
        return _back(node, update, f"came back with {node.image or 'an unknown image'} instead of {update.target.revision}")
    if rules.undo and not update.undo:
        return _back(node, update, "the rollout was undone")
    if node.age > rules.deadline:
        return _back(node, update, f"not Ready within {rules.deadline:g} s of its restart{_told_by_power(node)}")
    return _ask_again(node, update)


def _back(node: NodeView, update: NodeUpdate, why: str) -> Change:
    """To what it ran before. A node that was never restarted, and will not be any more, simply stays as it is."""
    before = update.before
    failed = why != "the rollout was undone"
    if before is None:
        return _say(node, update, UpdateStep.STUCK, f"{why}; nothing is known that it ran well with", failed=True)
    if node.ready and node.heard:
        never = node.boot_id == update.boot_id and (node.restart is None or node.restart.phase not in _IN_FLIGHT[1:])
        if never:
            return _say(node, update, UpdateStep.KEPT, f"{why}: it was never restarted", assign=before, cancel=True, failed=failed)
        if node.boot_id != update.boot_id and runs(node.image, node.booted, before):
            return _say(node, update, UpdateStep.REVERTED, why, assign=before, failed=failed)
    return _say(node, update, UpdateStep.REVERTING, why, assign=before, restart=node.can_restart, failed=failed)


def _reverting(rules: Rules, node: NodeView, update: NodeUpdate) -> Change | None:
    restarted = node.boot_id not in ("", update.boot_id)
    if update.before is None:
        return _say(node, update, UpdateStep.STUCK, update.message, failed=True)
    if node.ready and node.heard and restarted and runs(node.image, node.booted, update.before):
        return _say(node, update, UpdateStep.REVERTED, f"{update.message}; it runs what it ran before")
    if node.age > rules.deadline:
        told = f"{update.message}; nor did it come back with what it ran before{_told_by_power(node)}"
        return _say(node, update, UpdateStep.STUCK, told, failed=True)
    return _ask_again(node, update)


def _ask_again(node: NodeView, update: NodeUpdate) -> Change | None:
    """When the power driver could not do it, or was not there to do it."""
    missed = node.restart is not None and node.restart.phase not in _IN_FLIGHT and node.restart.age >= ASK_AGAIN
    if missed and node.can_restart and update.restarts < MOST_RESTARTS:
        return _say(node, update, update.step, update.message, restart=True)
    return None


def _told_by_power(node: NodeView) -> str:
    if not node.can_restart:
        return " (it has no power driver: somebody has to restart it)"
    if node.restart is None or node.restart.phase is None:
        return " (nobody switched it: does mx-clip run?)"
    return "" if node.restart.phase == PowerPhase.DONE else f" ({node.restart.phase}: {node.restart.message})"


def _say(
    node: NodeView,
    update: NodeUpdate,
    step: UpdateStep,
    message: str,
    *,
    assign: Assignment | None = None,
    restart: bool = False,
    cancel: bool = False,
    failed: bool = False,
) -> Change:
    return Change(node.name, step, message, update.target, update.before, assign, restart, cancel, failed or update.failed)


# --- the others ---


def _begin(rules: Rules, nodes: Sequence[NodeView], active: int) -> list[Change]:
    fallen = sum(1 for n in nodes if _is_mine(rules, n) and n.update and n.update.step == UpdateStep.UPDATED and not n.ready)
    room = rules.max_unavailable - active - fallen
    found: list[Change] = []
    for node in nodes:
        target = _target(rules, node)
        if (
            target is None
            or node.taken_over
            or _is_done(rules, node)
            or (node.update is not None and node.update.step in UNDER_WAY)
        ):
            continue
        before = node.update.target if rules.undo and node.update else node.good
        if not node.ready and not node.heard:
            told = "did not answer: boots it when it is next switched on"
            found.append(Change(node.name, UpdateStep.DEFERRED, told, target, before, assign=target, begin=True))
        elif node.ready and node.heard and room > 0:
            room -= 1
            found.append(Change(node.name, UpdateStep.DRAINING, "is being emptied", target, before, begin=True))
    return found


def _target(rules: Rules, node: NodeView) -> Assignment | None:
    if not rules.undo:
        return node.wanted
    return node.update.before if _is_mine(rules, node) and node.update and not node.why_unknown else None


def _is_mine(rules: Rules, node: NodeView) -> bool:
    return node.update is not None and node.update.uid == rules.uid


def _failed_now(rules: Rules, node: NodeView) -> bool:
    update = node.update
    if update is None or not _is_mine(rules, node) or not update.failed:
        return False
    return update.attempt == rules.attempt and update.undo == rules.undo


def _is_done(rules: Rules, node: NodeView) -> bool:
    update = node.update
    if node.taken_over:
        return True
    if update is not None and update.step in UNDER_WAY:
        return False
    if rules.undo:  # nothing is to be taken back where nothing was changed
        if update is None or not _is_mine(rules, node) or update.step not in (UpdateStep.UPDATED, UpdateStep.DEFERRED):
            return True
        return update.undo or update.before is None
    if node.wanted is None or node.assigned != node.wanted:
        return False
    deferred = update is not None and _is_mine(rules, node) and update.step == UpdateStep.DEFERRED
    return node.good == node.wanted or (deferred and not node.heard)


def _phase(rules: Rules, nodes: Sequence[NodeView], mine: Sequence[NodeView], failed: tuple[str, ...], done: int) -> RolloutPhase:
    if failed:
        return RolloutPhase.STOPPED
    if not mine and done == len(nodes):
        return RolloutPhase.COMPLETE
    return RolloutPhase.PAUSED if rules.paused else RolloutPhase.PROGRESSING


def _message(rules: Rules, nodes: Sequence[NodeView], mine: Sequence[NodeView], failed: tuple[str, ...], done: int) -> str:
    if failed:
        return f"stopped: {'; '.join(failed)}"
    if mine:
        return "; ".join(f"{node.name}: {node.update.message}" for node in mine if node.update)
    unknown = sorted({node.why_unknown for node in nodes if node.why_unknown and not _is_done(rules, node)})
    if unknown:
        return "; ".join(unknown)
    if done == len(nodes):
        return "every node runs what it ran before" if rules.undo else "every node runs what it should"
    if rules.paused:
        return "paused: no further node is begun"
    waiting = [node.name for node in nodes if not _is_done(rules, node)]
    return f"next: {', '.join(waiting[:5])}"


def _next_deadline(rules: Rules, mine: Iterable[NodeView]) -> float | None:
    left = []
    for node in mine:
        assert node.update is not None
        limit = rules.drain_deadline if node.update.step == UpdateStep.DRAINING else rules.deadline
        left.append(max(limit - node.age, 0.1))
    return min(left, default=None)
