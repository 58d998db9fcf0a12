"""How the work on a key can end. What follows from each is decided in one place, ``dispatcher``.

    DONE                nothing to do until something changes
    Again(after)        nothing went wrong, but look again after so many seconds
    Retryable(after)    raised: something outside is not ready; repeat, after a pause of its own or with growing pauses
    Terminal            raised: repeating cannot help until the object itself changes
Everything else a controller raises (Conflict, Unavailable, a bug) is the dispatcher's business too.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Again:
    """Look again after ``after`` seconds, or earlier when something changes. None: only when something changes."""

    after: float | None


DONE = Again(None)


class Retryable(Exception):  # noqa: N818 - named after what follows from it, like the store's errors
    """Not now. ``after`` is in seconds; None lets the dispatcher choose growing pauses."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Terminal(Exception):  # noqa: N818
    """Not like this. ``reason`` is one CamelCase word for machines."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
