"""Where a job goes: its first node, or the destination of a move that names none.

Of the nodes that may and can take it, the one whose opportunity cost rises least (the rule of Amir et al., see ``cost``). Old
samples do not stop a placement: a job must start somewhere, and what was placed since the sample counts all the same.
"""

from crds.quantity import format_cpu, human_memory
from reconciler.planning.cost import Scale, scale
from reconciler.planning.fit import closed, refused
from reconciler.planning.picture import NodeState, draw
from reconciler.planning.samples import impossible
from reconciler.planning.types import Choice, PlacementRequest, Snapshot


def choose_node(snapshot: Snapshot, request: PlacementRequest) -> Choice:
    """The node for the job with the reason in one line; for each node that does not fit, why. Equal ones are decided by name."""
    picture = draw(snapshot, lambda view, jobs: closed(view) or impossible(view, jobs))
    rejected = dict(picture.distrusted)
    fitting: list[NodeState] = []
    for name, state in picture.nodes.items():
        why = _unfit(state, request)
        if why:
            rejected[name] = why
        else:
            fitting.append(state)
    if not fitting:
        return Choice(None, _none_fits(request, rejected), dict(sorted(rejected.items())))
    return _cheapest(list(picture.nodes.values()), fitting, request, dict(sorted(rejected.items())))


def _unfit(state: NodeState, request: PlacementRequest) -> str:
    node = state.view
    if request.node is not None and node.name != request.node:
        return f"the job must run on {request.node}"
    if node.name in request.exclude:
        return "excluded"
    why = refused(node, request)
    if why:
        return why
    if state.memory + request.memory > node.memory_capacity:
        free = max(0.0, node.memory_capacity - state.memory)
        return f"{human_memory(free)} of {human_memory(node.memory_capacity)} memory free, {human_memory(request.memory)} wanted"
    return ""


def _none_fits(request: PlacementRequest, rejected: dict[str, str]) -> str:
    if request.node is not None:
        why = rejected.get(request.node, "there is no such node")
        return f"{request.node}: {why}"
    if not rejected:
        return "there are no nodes"
    shown = [f"{name}: {why}" for name, why in sorted(rejected.items())]
    more = f"; and {len(shown) - 3} more" if len(shown) > 3 else ""
    return f"none of {len(shown)} nodes fits: " + "; ".join(shown[:3]) + more


def _cheapest(nodes: list[NodeState], fitting: list[NodeState], request: PlacementRequest, rejected: dict[str, str]) -> Choice:
    after = [state.load + request.cpu / state.view.cpu_capacity for state in fitting]
    measure = scale(
        [state.load for state in nodes] + after,
        [state.view.cpu_capacity for state in nodes],
        [state.view.memory_capacity for state in nodes],
    )
    best = min(fitting, key=lambda state: (round(_rise(measure, state, request), 9), state.view.name))
    node = best.view
    figures = (
        f"{best.load * node.cpu_capacity:.1f} runnable on {format_cpu(node.cpu_capacity)} cores, "
        f"{human_memory(max(0.0, node.memory_capacity - best.memory))} memory free"
    )
    if request.node is not None:
        return Choice(node.name, f"asked for {node.name}: {figures}", rejected)
    return Choice(node.name, f"cheapest of {len(fitting)} nodes: {figures}", rejected)


def _rise(measure: Scale, state: NodeState, request: PlacementRequest) -> float:
    node = state.view
    rise = measure.cpu_rise(state.load, node.cpu_capacity, request.cpu)
    return rise + measure.memory_rise(state.memory, node.memory_capacity, request.memory)
