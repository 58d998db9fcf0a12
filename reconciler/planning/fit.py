"""Whether a job may run on a node at all, load aside."""

from collections.abc import Mapping, Sequence

from crds.network import FEATURE
from reconciler.planning.types import NodeView

LACKS = {
    FEATURE: "it has no bridge for jobs with a network of their own (its agent's log names it)",
}
"""What a missing feature means to people."""


def closed(node: NodeView) -> str:
    """Why the node takes no job of anybody; empty when it does."""
    if not node.ready:
        return "not ready"
    if not node.schedulable:
        return "cordoned"
    return ""


def refused(node: NodeView, selector: Mapping[str, str], tolerations: Sequence[str], needs: frozenset[str] = frozenset()) -> str:
    """Why this job may not run there; empty when it may."""
    for need in sorted(needs - node.features):
        return LACKS.get(need, f"feature {need} is missing")
    for label, value in sorted(selector.items()):
        if node.labels.get(label) != value:
            return f"label {label}={value} is missing"
    if "*" not in tolerations:
        for taint in node.taints:
            if taint not in tolerations:
                return f"taint {taint} is not tolerated"
    return ""
