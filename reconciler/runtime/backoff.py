"""How long to wait before the next attempt, by the kind of failure and the number of failures in a row."""

from collections.abc import Hashable, Mapping
from enum import Enum
from typing import Generic, TypeVar

from tenacity import RetryCallState, Retrying, wait_exponential
from tenacity.wait import wait_base

K = TypeVar("K", bound=Hashable)


class Pause(Enum):
    """Kinds of pauses."""

    CONFLICT = "conflict"
    """Somebody was faster: read again and decide again, at once or nearly so."""
    UNAVAILABLE = "unavailable"
    """The store does not answer: ask again at an even pace, it will be back."""
    FAILURE = "failure"
    """It failed and nobody knows how long it will: ever more slowly."""


WAITS: Mapping[Pause, wait_base] = {
    Pause.CONFLICT: wait_exponential(multiplier=0.02, max=1.0),
    Pause.UNAVAILABLE: wait_exponential(multiplier=0.25, max=4.0),
    Pause.FAILURE: wait_exponential(multiplier=0.5, max=60.0),
}


class Backoff(Generic[K]):
    """Counts the failures in a row of each key. One leader acts, so nothing is gained by making the pauses random."""

    def __init__(self, waits: Mapping[Pause, wait_base] = WAITS) -> None:
        self._waits = waits
        self._failures: dict[K, int] = {}

    def next(self, key: K, pause: Pause) -> float:
        """Seconds until the next attempt."""
        self._failures[key] = self._failures.get(key, 0) + 1
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = self._failures[key]
        return self._waits[pause](state)

    def reset(self, key: K) -> None:
        """``key`` succeeded, or its pause no longer means anything."""
        self._failures.pop(key, None)
