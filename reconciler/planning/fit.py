"""Whether a job may run on a node at all, load aside."""

from collections.abc import Mapping, Sequence
from typing import Protocol

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
    def tolerations(self) -> Sequence[str]: ...

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


def _lacking(node: NodeView, cpu_flags: frozenset[str]) -> str:
    """A program looks once at what the processor can do, so it must find all of it again. What is not known is no reason."""
    missing = sorted(cpu_flags - node.cpu_flags) if node.cpu_flags else []
    if not missing:
        return ""
    more = f" and {len(missing) - MOST_SHOWN} more" if len(missing) > MOST_SHOWN else ""
    return f"its processor lacks {', '.join(missing[:MOST_SHOWN])}{more}"
