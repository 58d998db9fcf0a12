"""Whom certificates name. The organisation says what somebody is, the common name who; etcd goes by the common name alone.

So nobody but a node has a name that a node could have: people and the head's own services have an underscore before theirs, which
no name of an object begins with. ``root`` is etcd's own superuser, and nobody is ever given a certificate of that name.
"""

NODES = "mx:nodes"
"""Agents; the common name is the node's."""
ADMINS = "mx:admins"
"""People who may do everything."""
HEADS = "mx:head"
"""The head's own services: etcd, the reconciler, clip."""
SUPERUSER = "root"
"""Of etcd: it must be there, and it has no password and no certificate."""
RECONCILER = "_reconciler"
CLIP = "_clip"
ETCD = "_etcd"
"""Common names of the head's services."""


def person(name: str) -> str:
    """The common name of a person called so."""
    return f"_{name.removeprefix('_')}"
