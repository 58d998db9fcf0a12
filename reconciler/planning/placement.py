"""Where a job goes: its first node, or the destination of a move that names none.

Of the nodes that may and can take it, the one with the lowest price: the rise of its opportunity cost (the rule of Amir et al., see
``cost``) times how many times longer than alone the job would take there. The first factor looks after the jobs still to come, the
second after this one; without it a job went to a node half as fast while cores of fast ones were free. Slow cores count
``LASTING`` times as much as load, for load passes. Old samples do not stop a placement: a job must start somewhere, and what was
placed since the sample counts all the same.
"""

import numpy as np

from crds.balancepolicy import Guests
from crds.quantity import format_cpu, human_memory
from reconciler.planning.cost import scale
from reconciler.planning.fit import refused
from reconciler.planning.picture import NOWHERE, Bools, Floats, Ints, Picture, draw
from reconciler.planning.samples import unusable
from reconciler.planning.types import Choice, PlacementRequest, Snapshot
from reconciler.planning.worth import HOME, NEAR

LASTING = 1.5
"""How much worse it is to be slow for good than to share for a while. Simulated on nodes of two speeds, slowdowns fell by 11 %
(1.485 to 1.317, ten seeds), more the larger this is up to about 1.5; those of the MOSIX stream by 2 %."""


def choose_node(snapshot: Snapshot, request: PlacementRequest, guests: Guests = Guests.KEEP) -> Choice:
    """The node for the job with the reason in one line; for each node that does not fit, why. Equal ones are decided by name.

    With ``guests`` EVICT a node whose owner is there takes only jobs whose home it is, and those that ask for it.
    """
    picture = draw(snapshot, unusable)
    rejected = dict(picture.distrusted)
    fitting = _fitting(picture, request, guests)
    for row in np.flatnonzero(~fitting):
        rejected[picture.names[row]] = _unfit(picture, int(row), request, guests)
    rejected = dict(sorted(rejected.items()))
    if not fitting.any():
        return Choice(None, _none_fits(request, rejected), rejected)
    return _cheapest(picture, np.flatnonzero(fitting), request, rejected)


def _fitting(picture: Picture, request: PlacementRequest, guests: Guests) -> Bools:
    fits = picture.fit.allowed(request) & (picture.memory + request.memory <= picture.capacity)
    if request.node is not None:
        fits &= np.array([name == request.node for name in picture.names], np.bool_)
    if request.exclude:
        fits &= np.array([name not in request.exclude for name in picture.names], np.bool_)
    if guests is Guests.EVICT and request.node is None:
        fits &= np.array([not view.owner_present or view.name == request.home for view in picture.views], np.bool_)
    return np.asarray(fits)


def _unfit(picture: Picture, row: int, request: PlacementRequest, guests: Guests) -> str:
    node = picture.views[row]
    if request.node is not None and node.name != request.node:
        return f"the job must run on {request.node}"
    if node.name in request.exclude:
        return "excluded"
    why = refused(node, request)
    if why:
        return why
    if guests is Guests.EVICT and request.node is None and node.owner_present and node.name != request.home:
        return "its owner is logged in, and the policy evicts guests"
    free = max(0.0, node.memory_capacity - picture.memory[row])
    return f"{human_memory(free)} of {human_memory(node.memory_capacity)} memory free, {human_memory(request.memory)} wanted"


def _none_fits(request: PlacementRequest, rejected: dict[str, str]) -> str:
    if request.node is not None:
        why = rejected.get(request.node, "there is no such node")
        return f"{request.node}: {why}"
    if not rejected:
        return "there are no nodes"
    shown = [f"{name}: {why}" for name, why in sorted(rejected.items())]
    more = f"; and {len(shown) - 3} more" if len(shown) > 3 else ""
    return f"none of {len(shown)} nodes fits: " + "; ".join(shown[:3]) + more


def _cheapest(picture: Picture, fitting: Ints, request: PlacementRequest, rejected: dict[str, str]) -> Choice:
    load, power = picture.load, picture.power
    after = load[fitting] + request.cpu / power[fitting]
    measure = scale(np.concatenate((load, after)), power, picture.capacity)
    rise = measure.cpu_rise(load[fitting], power[fitting], request.cpu)
    rise += measure.memory_rise(picture.memory[fitting], picture.capacity[fitting], request.memory)
    slow = np.maximum(LASTING / picture.speed[fitting], after)
    price = rise * slow * (1 - _liking(picture, fitting, request))
    best = int(fitting[np.lexsort((fitting, np.round(price, 9)))[0]])
    name, cores, speed = picture.names[best], picture.cores[best], picture.speed[best]
    figures = (
        f"{load[best] * power[best]:.1f} runnable on {format_cpu(cores)} cores{'' if speed == 1 else f' of speed {speed:.3g}'}, "
        f"{human_memory(max(0.0, picture.capacity[best] - picture.memory[best]))} memory free"
    )
    if request.node is not None:
        return Choice(name, f"asked for {name}: {figures}", rejected)
    return Choice(name, f"cheapest of {len(fitting)} nodes: {figures}", rejected)


def _liking(picture: Picture, fitting: Ints, request: PlacementRequest) -> Floats:
    """The share of the price that it gladly pays for its home, and for being where those are that it talks to."""
    liking = np.array([HOME if picture.names[row] == request.home else 0.0 for row in fitting], np.float64)
    for key in request.near:
        if (friend := picture.jobs.find(key)) != NOWHERE:
            liking = np.maximum(liking, NEAR * (fitting == picture.jobs.at[friend]))
    return liking
