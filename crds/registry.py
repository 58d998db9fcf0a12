"""All kinds, by every word a person may use for them: Job, job, jobs; BalancePolicy, bp, policy."""

from crds.balancepolicy import BalancePolicy
from crds.checkpoint import Checkpoint
from crds.cluster import Cluster
from crds.event import Event
from crds.image import Image
from crds.job import Job
from crds.meta import Resource
from crds.migration import Migration
from crds.node import Node
from crds.nodeset import NodeSet
from crds.rollout import Rollout

KINDS: tuple[type[Resource], ...] = (Cluster, Image, NodeSet, Node, Rollout, BalancePolicy, Job, Migration, Checkpoint, Event)
DECLARABLE: tuple[type[Resource], ...] = tuple(kind for kind in KINDS if kind is not Event)
"""Kinds that people write; events are only read."""

BY_KIND: dict[str, type[Resource]] = {kind.KIND: kind for kind in KINDS}

BY_WORD: dict[str, type[Resource]] = {word: kind for kind in KINDS for word in (kind.KIND.lower(), kind.PLURAL, *kind.SHORT)}


def find_kind(word: str) -> type[Resource]:
    """The kind a person means; KeyError with all the words there are."""
    found = BY_WORD.get(word.lower())
    if found is None:
        raise KeyError(f'there is no kind "{word}"; there are {", ".join(kind.PLURAL for kind in KINDS)}')
    return found
