"""Owner references: who belongs to whom, and whose owner has gone. Pure.

Owners are known by uid, which never comes back: a child whose owner is gone stays an orphan, whatever happens meanwhile, so it may
be deleted (by its own uid) without looking again. List the children first and the owners after them, or both from one informer:
then no owner is missed that was made in between.
"""

from collections.abc import Iterable

from crds.meta import CLUSTER_SCOPE, OwnerReference, Resource
from store.objects import Broken


def owner_reference(owner: Resource) -> OwnerReference:
    """For the child's metadata. Raises ValueError for an owner that was never stored."""
    if owner.metadata.uid is None:
        raise ValueError(f"{owner.label} has no uid yet: create it before what belongs to it")
    return OwnerReference(kind=owner.KIND, name=owner.name, uid=owner.metadata.uid)


def find_orphans(objects: Iterable[Resource], broken: Iterable[Broken] = ()) -> list[Resource]:
    """Those of ``objects``, which are all there are, that have owners none of which is left.

    Owners are looked for in the child's namespace and among the objects of the whole cluster. A broken owner is still an owner:
    nothing is lost because somebody damaged a text.
    """
    known = list(objects)
    uids = {obj.metadata.uid for obj in known}
    unreadable = {(b.kind, b.namespace, b.name) for b in broken}

    def is_left(child: Resource, owner: OwnerReference) -> bool:
        places = (child.namespace, CLUSTER_SCOPE)
        return owner.uid in uids or any((owner.kind, place, owner.name) in unreadable for place in places)

    return [
        child
        for child in known
        if child.metadata.owner_references and not any(is_left(child, owner) for owner in child.metadata.owner_references)
    ]
