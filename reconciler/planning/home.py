"""Home preference: a job returns to the node it belongs to when that costs nobody anything.

That is: a core there is free for it with a margin, it runs no slower there, and the freeze is a small part of what it expects to go
on for. So what sent it away, load, memory or an owner, is over, and by the rules of load it has no reason to leave again.
"""

import numpy as np

from reconciler.planning.draft import Draft
from reconciler.planning.picture import NOWHERE
from reconciler.planning.types import Cause
from reconciler.planning.worth import SPARE, freezes, remaining, stretch

SMALL = 0.02
"""Share of its remaining time that the freeze may cost."""


def go_home(draft: Draft) -> None:
    """Adds the moves, when nothing else is to be done."""
    if draft.moves:
        return
    picture = draft.picture
    for row, view in enumerate(picture.jobs.views):
        if draft.spent:
            return
        if view.home and view.home != view.node and picture.staying[row] and view.movable:
            _return(draft, row, picture.find(view.home))


def _return(draft: Draft, row: int, home: int) -> None:
    picture, view, one = draft.picture, draft.picture.jobs.views[row], np.array([row])
    node = int(picture.jobs.at[row])
    if home == NOWHERE or not picture.open[home] or not picture.fit.allowed(view)[home]:
        return
    with_spare = picture.load[home] + (1 + SPARE) * view.cpu_demand / picture.power[home]
    alone, here = 1 / picture.speed[home], float(stretch(picture.leaving[node], picture.speed[node]))
    freeze = float(freezes(picture, one)[0])
    if with_spare > alone or alone > here or freeze > SMALL * float(remaining(picture, one)[0]):
        return
    if draft.no_room(home, row) or draft.not_now(row) or draft.cannot_give(node) or draft.cannot_take(home):
        return
    reason = f"{view.home} is its home and has a core free for it: {freeze:.1f} s of freeze"
    draft.move(row, home, reason, float(1 - alone / here), Cause.HOME)
