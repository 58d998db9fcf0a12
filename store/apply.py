"""``apply``: make the stored object say what a file says, and leave alone what the file never said (desired.py, merge.py).

``validate_all`` looks at a whole set before its first write: it plans every document, and holds the set's names and addresses
against each other and against everything stored. What somebody else writes after that is caught by ``apply`` itself.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from crds.cluster import Cluster, address_problem
from crds.codec import Located
from crds.document import Document, Path, Problem
from crds.meta import Resource
from crds.node import Node
from store.admission import Refused, addresses, admit, reserve, taken
from store.desired import Desired, changed_object, new_object, read_wish
from store.errors import Conflict, Fenced, Invalid, NotFound
from store.objects import key_of
from store.store import Store

log = logging.getLogger(__name__)

ATTEMPTS = 10  # in each of which somebody else wrote in between

Verb = Literal["created", "configured", "unchanged"]


@dataclass(frozen=True, slots=True)
class Applied:
    """The object as it stands now (for a dry run: as it would stand), and what was done to it."""

    obj: Resource
    verb: Verb


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying would do: ``live`` is None when there is nothing yet, ``new`` what would be written."""

    verb: Verb
    new: Resource
    live: Resource | None


async def apply(store: Store, desired: Desired, *, dry_run: bool = False) -> Applied:
    """Creates the object, or changes what the wish says otherwise; writes nothing when that is nothing.

    A dry run checks all the same. Raises Refused (with the fields), Fenced, and Conflict when others never stop writing.
    """
    for attempt in range(ATTEMPTS):
        plan = await plan_apply(store, desired)
        try:
            return Applied(await _carry_out(store, plan, dry_run), plan.verb)
        except Fenced:
            raise
        except Conflict as error:
            if attempt + 1 == ATTEMPTS:
                raise
            log.info("applying %s again: %s", plan.new.label, error)
    raise AssertionError("unreachable: the last attempt returns or raises")


async def plan_apply(store: Store, desired: Desired) -> Plan:
    """Decides, writes nothing, and does not look at other objects. Raises Refused with the fields, Invalid."""
    wish = read_wish(desired)
    try:
        live = await store.get(type(wish), wish.name, wish.metadata.namespace)
    except NotFound:
        new = new_object(wish)
        return Plan("created", admit(new)[0], None)
    changed = changed_object(live, wish)
    if changed is None:
        return Plan("unchanged", live, live)
    admit(changed, live)
    return Plan("configured", changed, live)


async def _carry_out(store: Store, plan: Plan, dry_run: bool) -> Resource:
    if plan.verb == "unchanged":
        return plan.new
    if dry_run:
        await reserve(store.kv, plan.live, plan.new)
        return plan.new
    if plan.live is None:
        return await store.create(plan.new)
    return await store.update(plan.new)


async def validate_all(store: Store, documents: Sequence[Document]) -> list[Located]:
    """Everything that would keep a document from being applied, all of them one after another in this order.

    Empty when all is well. Writes nothing. Raises Unavailable.
    """
    neighbours = _Neighbours((await store.list(Node)).items)
    wrong: list[Located] = []
    for document in documents:
        problems = await _look_at(store, neighbours, document)
        wrong += [Located(document.source, document.line_of(p.path), p.path, p.message) for p in problems]
    return [*wrong, *_outside(neighbours, (await store.list(Cluster)).items)]


def _outside(neighbours: "_Neighbours", stored: Sequence[Cluster]) -> Iterator[Located]:
    """Nodes that no machine could be served as, by the network as the set leaves it. Nothing is known of that before there is a
    Cluster."""
    declared = neighbours.cluster
    clusters = [declared[0], *stored] if declared else stored
    if not clusters:
        return
    network = clusters[0].spec.network
    for label, (node, document) in neighbours.nodes.items():
        found = address_problem(network, node.spec.address) if node.spec.address else ""
        if found and document is not None:
            path: Path = ("spec", "address")
            yield Located(document.source, document.line_of(path), path, found)
        elif found and declared is not None:
            path = ("spec", "network")
            message = f"{label} would not fit: {found}; a set may change both"
            yield Located(declared[1].source, declared[1].line_of(path), path, message)


async def _look_at(store: Store, neighbours: "_Neighbours", document: Document) -> Sequence[Problem]:
    twice = neighbours.name(document)
    try:
        plan = await plan_apply(store, document)
    except Refused as error:
        return (*twice, *error.problems)
    except Invalid as error:
        return (*twice, Problem((), str(error)))
    return (*twice, *neighbours.settle(plan.new, document))


class _Neighbours:
    """Who has which name and which address, as the set goes on."""

    def __init__(self, stored: Sequence[Node]) -> None:
        self._names: dict[str, Document] = {}
        self._owners: dict[str, tuple[str, str]] = {}
        self._had: dict[str, list[str]] = {}
        self.nodes: dict[str, tuple[Node, Document | None]] = {node.label: (node, None) for node in stored}
        """Every node as the set leaves it, and where the set says it."""
        self.cluster: tuple[Cluster, Document] | None = None
        """The same for the Cluster, when the set has one."""
        for node in stored:
            self._had[node.label] = [value for _, value in addresses(node)]
            self._owners |= dict.fromkeys(self._had[node.label], (node.label, node.label))

    def name(self, document: Document) -> Sequence[Problem]:
        """Whether the set declares the object for the first time."""
        first = self._names.setdefault(key_of(document.obj), document)
        if first is document:
            return ()
        return (
            Problem(("metadata", "name"), f"{document.obj.label} is declared at {first.location} already: keep one of the two"),
        )

    def settle(self, new: Resource, document: Document) -> Iterator[Problem]:
        """Gives the object its addresses, and takes away those it had, as applying it would."""
        if isinstance(new, Node):
            self.nodes[new.label] = (new, document)
        elif isinstance(new, Cluster):
            self.cluster = (new, document)
        for value in self._had.pop(new.label, ()):
            if self._owners[value][0] == new.label:
                del self._owners[value]
        wanted = list(addresses(new))
        self._had[new.label] = [value for _, value in wanted]
        for path, value in wanted:
            where = f"{new.label} ({document.source}:{document.line_of(path)})"
            label, owner = self._owners.setdefault(value, (new.label, where))
            if label != new.label:
                yield taken(path, value, owner)
