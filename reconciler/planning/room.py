"""Make room: a job that no node has the memory for gets the fewest moves of others after which one has (Ganeti's users ask for it).

One such job at a time, the one of the highest priority. For each node that it may run on, as few of its jobs as suffice are chosen:
the largest that are needed, then instead of the last one the smallest that does. Each must find another node, by best fit, below
the low water. The node with the fewest moves is taken, of those the one with the fewest bytes. When the budget does not let all
of them begin at once, the next plan goes on: what is on its way out counts as gone. Until the job is there its room is kept for it.
"""

from dataclasses import dataclass

import numpy as np

from crds.quantity import human_memory
from reconciler.planning.draft import Draft
from reconciler.planning.picture import Floats
from reconciler.planning.types import Cause, PlacementRequest

LOOK_AT = 64
"""Nodes that are tried, those first that lack least."""


@dataclass(frozen=True, slots=True)
class _Clearing:
    """Jobs (rows) that leave ``node``, with where each goes."""

    node: int
    moves: tuple[tuple[int, int], ...]
    size: float

    @property
    def rank(self) -> tuple[int, float, int]:
        return len(self.moves), self.size, self.node


def make_room(draft: Draft) -> str:
    """Adds the moves; a line that says for whom, or why there is no way. Empty when nobody waits for memory."""
    picture = draft.picture
    for request in sorted(draft.picture.snapshot.pending, key=lambda request: (-request.priority, request.job)):
        free = picture.capacity - picture.memory + picture.departing
        usable = picture.open & picture.fit.allowed(request) & (picture.capacity >= request.memory)
        usable &= np.array([name not in request.exclude and request.node in (None, name) for name in picture.names], np.bool_)
        if not usable.any():
            continue  # other nodes than these are needed
        fitting = np.flatnonzero(usable & (free >= request.memory))
        if len(fitting):  # there is room, or will be when the moves under way have ended: nobody else is to take it
            _reserve(draft, request, int(fitting[np.argmin(free[fitting])]))
            continue
        best = min(
            _clearings(draft, request, np.where(usable, request.memory - free, np.inf)), key=lambda one: one.rank, default=None
        )
        if best is None:
            return f"{request.job} waits for {human_memory(request.memory)}, which no moves can free on one node"
        _begin(draft, request, best)
        _reserve(draft, request, best.node)
        return f"room for {request.job} on {picture.names[best.node]} takes {len(best.moves)} moves"
    return ""


def _reserve(draft: Draft, request: PlacementRequest, node: int) -> None:
    draft.picture.memory[node] += request.memory
    draft.picture.surplus[node] += request.cpu


def _clearings(draft: Draft, request: PlacementRequest, lack: Floats) -> list[_Clearing]:
    nodes = np.flatnonzero(np.isfinite(lack) & ~draft.takers)
    nearest = nodes[np.lexsort((nodes, lack[nodes]))][:LOOK_AT]
    found = (_clear(draft, request, int(node), float(lack[node])) for node in nearest)
    return [one for one in found if one is not None]


def _clear(draft: Draft, request: PlacementRequest, node: int, lack: float) -> _Clearing | None:
    """The fewest jobs of this node that must leave; None when that does not help."""
    picture = draft.picture
    views, size = picture.jobs.views, picture.jobs.memory
    leave = [row for row in map(int, picture.on(node)) if _can_leave(draft, request, row, node)]
    leave.sort(key=lambda row: (-size[row], views[row].priority, row))
    sums = np.cumsum([size[row] for row in leave])
    count = int(np.searchsorted(sums, lack - 0.5)) + 1
    if count > len(leave):
        return None
    before = float(sums[count - 2]) if count > 1 else 0.0
    last = min((row for row in leave[count - 1 :] if before + size[row] >= lack - 0.5), key=lambda row: (size[row], row))
    chosen = [*leave[: count - 1], last]
    places = _fit_in(draft, chosen, node)
    return _Clearing(node, places, float(size[chosen].sum())) if places else None


def _can_leave(draft: Draft, request: PlacementRequest, row: int, node: int) -> bool:
    view = draft.picture.jobs.views[row]
    if not view.movable or view.memory <= 0 or view.priority > request.priority or draft.not_now(row):
        return False
    return bool(_takers(draft, row, node, draft.room).any())


def _takers(draft: Draft, row: int, node: int, room: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    picture = draft.picture
    fits = picture.open & ~draft.givers & (room >= picture.jobs.memory[row]) & picture.fit.allowed(picture.jobs.views[row])
    fits[node] = False
    return np.asarray(fits)


def _fit_in(draft: Draft, jobs: list[int], node: int) -> tuple[tuple[int, int], ...]:
    """Each job with its node, by best fit, the largest first; empty when one finds none."""
    room, places = draft.room.copy(), []
    for row in jobs:
        there = np.flatnonzero(_takers(draft, row, node, room))
        if not len(there):
            return ()
        best = int(there[np.lexsort((there, room[there]))[0]])
        room[best] -= draft.picture.jobs.memory[row]
        places.append((row, best))
    return tuple(places)


def _begin(draft: Draft, request: PlacementRequest, clearing: _Clearing) -> None:
    """As many as the budget allows; the others wait."""
    picture, size = draft.picture, draft.picture.jobs.memory
    for row, place in clearing.moves:
        if waits := draft.cannot_give(clearing.node) or draft.cannot_take(place):
            draft.hold(row, waits)
            continue
        reason = (
            f"room for {request.job}, which needs {human_memory(request.memory)}: {human_memory(size[row])} go to "
            f"{picture.names[place]}, one of {len(clearing.moves)} moves"
        )
        draft.move(row, place, reason, 0.0, Cause.ROOM)
