"""``guests: evict``: as soon as the owner of a node logs in, jobs of others leave it, and none comes while he is there.

Neither minimum residency nor gain is asked for, for the node is not theirs; the budget holds. A guest goes where it raises the
opportunity cost least; when no other node has room it stays, for a job is never ended to make place for its node's owner.
"""

import numpy as np

from crds.balancepolicy import Guests
from reconciler.planning.draft import Draft
from reconciler.planning.memory import why_nowhere
from reconciler.planning.picture import NOWHERE
from reconciler.planning.rules import OpportunityCost, figures
from reconciler.planning.types import Cause


def evict(draft: Draft) -> None:
    """Closes the nodes whose owner is there, and adds the moves of their guests, those of high priority first."""
    picture = draft.picture
    owned = np.array([view.owner_present for view in picture.views], np.bool_)
    if draft.policy.guests is not Guests.EVICT or not owned.any():
        return
    picture.open &= ~owned
    views = picture.jobs.views
    guests = [int(row) for node in np.flatnonzero(owned) for row in picture.on(int(node)) if views[row].guest]
    for row in sorted(guests, key=lambda row: (-views[row].priority, row)):
        _send_away(draft, row)


def _send_away(draft: Draft, row: int) -> None:
    picture, view = draft.picture, draft.picture.jobs.views[row]
    source = int(picture.jobs.at[row])
    if not view.movable:
        draft.keep(row, f"a guest whose node's owner is there, but {view.why_not_movable or 'it may not be moved'}")
    elif waits := draft.cools_down(view) or draft.cannot_give(source):
        draft.hold(row, waits)
    elif (best := _cheapest(draft, row, source)) == NOWHERE:
        draft.keep(row, f"a guest whose node's owner is there, but no node takes it: {why_nowhere(draft, row, source)}")
    else:
        reason = f"the owner of {view.node} is there, its guests leave: {picture.names[best]} has {figures(picture, best)}"
        draft.move(row, best, reason, 0.0, Cause.OWNER)


def _cheapest(draft: Draft, row: int, source: int) -> int:
    picture, view = draft.picture, draft.picture.jobs.views[row]
    fitting = picture.open & ~draft.busy & (draft.room >= picture.jobs.memory[row]) & picture.fit.allowed(view)
    nodes = np.flatnonzero(fitting)
    if not len(nodes):
        return NOWHERE
    price = OpportunityCost(draft).judge(np.array([row]), source, nodes).price[0]
    return int(nodes[np.lexsort((nodes, np.round(price, 12)))[0]])
