"""What can go wrong between us and the store.

    StoreError
    ├── Invalid         the object or the request is wrong; repeating it cannot help
    │   └── Refused     (admission.py) an object with its problems, each with the path of its field
    ├── NotFound        the object is not there
    ├── Conflict        somebody else wrote first, or the name is taken: read again, decide again
    │   ├── AlreadyExists
    │   └── Fenced      the leader's election key is not ours any more: stop acting
    ├── Gone            the revision asked for was compacted: list again
    └── Unavailable     no answer in time. A write that ends like this is *unknown*: repeat it only as compare-and-set

Messages name the object, the cause and the next step, in one line.
"""


class StoreError(Exception):
    """Root of all errors of this room."""


class Invalid(StoreError):  # noqa: N818 - the names are the field's, see the module docstring
    """The request is wrong in itself."""


class NotFound(StoreError):  # noqa: N818
    """The object is not there."""


class Conflict(StoreError):  # noqa: N818
    """Somebody else wrote first."""


class AlreadyExists(Conflict):
    """The name is taken."""


class Fenced(Conflict):
    """A guard of the transaction (leadership, usually) does not hold any more."""


class Gone(StoreError):  # noqa: N818
    """The revision was compacted; ``compact_revision`` is the oldest that is left (0 = not known)."""

    def __init__(self, message: str, compact_revision: int = 0) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision


class Unavailable(StoreError):  # noqa: N818
    """No answer in time, or no connection."""
