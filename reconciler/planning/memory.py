"""Memory ushering: a node short of memory is relieved before anybody looks at load (MOSIX, see Barak, Guday, Wheeler).

A node above the high water gives jobs away until it is below the low water: the smallest job that suffices, or else the largest and
so on; each to the node that it fills best without passing the low water. So every move of the set is needed, and none can come
back: with it, its old node would again be above the low water. A node whose tasks wait for memory (PSI) is short already above the
low water. Of jobs of different priority the lower goes first.
"""

import numpy as np

from crds.quantity import human_memory
from reconciler.planning.draft import Draft
from reconciler.planning.fit import closed, refused
from reconciler.planning.picture import NOWHERE, Picture, floats
from reconciler.planning.types import Cause

PRESSURE = 10.0
"""Per cent of the time in which some task waits for memory, from which on a node is short of it: what comes next is swapping."""
MOST_TOLD = 20
"""Nodes that are named when they stay short."""


def usher(draft: Draft) -> tuple[str, ...]:
    """Adds the moves that memory wants. Returns a line for each node that stays above its high water."""
    picture, water = draft.picture, draft.policy.memory
    share = _shares(picture)
    pressed = floats(picture.views, "memory_pressure") >= PRESSURE
    short = np.flatnonzero((share > water.high_water) | (pressed & (share > water.low_water)))
    order = short[np.lexsort((short, -share[short]))]
    lines = [line for node in order if (line := _Relief(draft, int(node)).run())]
    more = f"and {len(lines) - MOST_TOLD} more nodes are short of memory"
    return (*lines[:MOST_TOLD], *([more] if len(lines) > MOST_TOLD else []))


def _shares(picture: Picture) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray((picture.memory - picture.departing) / picture.capacity)


class _Relief:
    """Of one node."""

    def __init__(self, draft: Draft, node: int) -> None:
        self.draft, self.picture, self.node = draft, draft.picture, node

    @property
    def share(self) -> float:
        picture, node = self.picture, self.node
        return float((picture.memory[node] - picture.departing[node]) / picture.capacity[node])

    def run(self) -> str:
        """Moves jobs away; the line that is to be said when that is not enough."""
        draft, water = self.draft, self.draft.policy.memory
        jobs = self._candidates()
        while jobs and self.share > water.low_water:
            spent = draft.budget_of(self.node)
            if spent:
                for row in jobs if self.share > water.high_water else []:
                    draft.hold(row, spent)
                break
            row = self._pick(jobs)
            jobs.remove(row)
            self._send(row)
        if self.share <= water.high_water:
            return ""
        return f"{self.picture.names[self.node]} has {self.share:.2f} of its memory in use, above high water {water.high_water:g}"

    def _candidates(self) -> list[int]:
        """Jobs that may leave now; the others are noted with why."""
        free, roomy = [], float(np.max(self.draft.room[self.picture.open & ~self.draft.busy], initial=-np.inf))
        for row in map(int, self.picture.on(self.node)):
            view = self.picture.jobs.views[row]
            blocked = self.draft.not_now(row)
            if not view.movable:
                self.draft.keep(row, view.why_not_movable or "may not be moved")
            elif view.memory <= 0:
                self.draft.keep(row, f"has no memory to free on {view.node}")
            elif blocked:
                self.draft.hold(row, blocked)
            elif view.memory > roomy and not self.draft.budget_of(self.node):
                self._stays(row)
            else:
                free.append(row)
        return free

    def _pick(self, jobs: list[int]) -> int:
        """The smallest that suffices, else the largest."""
        picture, node = self.picture, self.node
        low = self.draft.policy.memory.low_water
        excess = picture.memory[node] - picture.departing[node] - low * picture.capacity[node]
        size, views = picture.jobs.memory, picture.jobs.views
        enough = [row for row in jobs if size[row] >= excess]
        if enough:
            return min(enough, key=lambda row: (views[row].priority, size[row], row))
        return min(jobs, key=lambda row: (views[row].priority, -size[row], row))

    def _send(self, row: int) -> None:
        draft, picture = self.draft, self.picture
        size = picture.jobs.memory[row]
        best = best_fit(draft, row, self.node)
        if best == NOWHERE:
            self._stays(row)
            return
        before = self.share
        after = (picture.memory[self.node] - picture.departing[self.node] - size) / picture.capacity[self.node]
        then = (picture.memory[best] + size) / picture.capacity[best]
        high = draft.policy.memory.high_water
        short = f"above high water {high:g}" if before > high else "and tasks wait for it"
        reason = (
            f"{picture.names[self.node]} has {before:.2f} of its memory in use, {short}: "
            f"{human_memory(size)} go to {picture.names[best]}, then at {then:.2f}"
        )
        draft.move(row, best, reason, 1 - max(0.0, after) / before, Cause.MEMORY)

    def _stays(self, row: int) -> None:
        self.draft.keep(row, f"no node has room for it: {why_nowhere(self.draft, row, self.node)}")


def best_fit(draft: Draft, row: int, source: int) -> int:
    """The node that the job fills best without passing the low water; NOWHERE when there is none."""
    picture, room = draft.picture, draft.room
    size, view = picture.jobs.memory[row], picture.jobs.views[row]
    fitting = picture.open & ~draft.busy & (room >= size)
    fitting[source] = False
    if not fitting.any():
        return NOWHERE
    nodes = np.flatnonzero(fitting & picture.fit.allowed(view))
    return int(nodes[np.lexsort((nodes, picture.load[nodes], room[nodes]))[0]]) if len(nodes) else NOWHERE


def why_nowhere(draft: Draft, row: int, source: int) -> str:
    """What speaks against the first three nodes."""
    picture = draft.picture
    others = [node for node in range(min(4, len(picture.views))) if node != source][:3]
    against = []
    for node in others:
        view = picture.views[node]
        why = closed(view) or refused(view, picture.jobs.views[row]) or draft.no_room(node, row) or draft.cannot_take(node)
        against.append(f"{picture.names[node]}: {why}")
    return "; ".join(against) or "there is no other"
