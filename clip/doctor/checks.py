"""All checks, in the order in which they are told."""

from clip.doctor import etcd, head, nodes
from clip.doctor.model import Check, Facts, Finding

CHECKS: tuple[Check, ...] = (*etcd.CHECKS, *head.CHECKS, *nodes.CHECKS)


def examine(facts: Facts) -> list[Finding]:
    """What they find."""
    return [finding for check in CHECKS for finding in check(facts)]
