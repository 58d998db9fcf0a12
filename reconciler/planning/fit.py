"""Whether a job may run on a node at all, load aside."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crds.network import FEATURE
from reconciler.planning.types import NodeView

LACKS = {
    "post-copy": "its kernel or criu cannot take jobs by post-copy (its agent's log says why)",
    "pre-copy": "its kernel cannot take jobs by pre-copy (its agent's log says why)",
    FEATURE: "it has no bridge for jobs with a network of their own (its agent's log names it)",
}
"""What a missing feature means to people."""
MOST_SHOWN = 6
"""CPU features that are named."""


def closed(node: NodeView) -> str:
    """Why the node takes no job of anybody; empty when it does."""
    if not node.ready:
        return "not ready"
    if not node.schedulable:
        return "cordoned"
    return ""


class Wanting(Protocol):
    """A job, placed or not."""

    @property
    def node_selector(self) -> Mapping[str, str]: ...

    @property
    def tolerations(self) -> tuple[str, ...]: ...

    @property
    def needs(self) -> frozenset[str]: ...

    @property
    def cpu_flags(self) -> frozenset[str]: ...

    @property
    def unfit(self) -> Mapping[str, str]: ...


def refused(node: NodeView, job: Wanting) -> str:
    """Why this job may not run there; empty when it may."""
    for need in sorted(job.needs - node.features):
        return LACKS.get(need, f"feature {need} is missing")
    for label, value in sorted(job.node_selector.items()):
        if node.labels.get(label) != value:
            return f"label {label}={value} is missing"
    if "*" not in job.tolerations:
        for taint in node.taints:
            if taint not in job.tolerations:
                return f"taint {taint} is not tolerated"
    return _lacking(node, job.cpu_flags) or job.unfit.get(node.name, "")


class Fit:
    """Which of these nodes a job may run on, in columns. Jobs that want the same are looked at once."""

    def __init__(self, nodes: Sequence[NodeView]) -> None:
        self._nodes = nodes
        self._known: dict[Hashable, NDArray[np.bool_]] = {}
        self._plain = not any(node.taints for node in nodes)

    @property
    def free_for_all(self) -> bool:
        """Whether all jobs that were asked for may run on all nodes."""
        return all(known.all() for known in self._known.values())

    def allowed(self, job: Wanting) -> NDArray[np.bool_]:
        """One truth a node; not to be written to."""
        kind = wants(job)
        known = self._known.get(kind)
        if known is None:
            if self._plain and not (job.needs or job.node_selector or job.cpu_flags or job.unfit):
                known = np.ones(len(self._nodes), np.bool_)
            else:
                known = np.fromiter((not refused(node, job) for node in self._nodes), np.bool_, len(self._nodes))
            self._known[kind] = known
        return known


def wants(job: Wanting) -> Hashable:
    """The same for jobs that may run on the same nodes."""
    selector, unfit = job.node_selector, job.unfit
    if not selector and not unfit:
        return job.needs, job.cpu_flags, job.tolerations
    return (
        frozenset(selector.items()) if selector else None,
        job.tolerations,
        job.needs,
        job.cpu_flags,
        frozenset(unfit) if unfit else None,
    )


def _lacking(node: NodeView, cpu_flags: frozenset[str]) -> str:
    """A program looks once at what the processor can do, so it must find all of it again. What is not known is no reason."""
    if not node.cpu_flags or cpu_flags <= node.cpu_flags:
        return ""
    missing = sorted(cpu_flags - node.cpu_flags)
    more = f" and {len(missing) - MOST_SHOWN} more" if len(missing) > MOST_SHOWN else ""
    return f"its processor lacks {', '.join(missing[:MOST_SHOWN])}{more}"
