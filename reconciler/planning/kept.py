"""The candidates that stay, each with its reason, which is worked out only when somebody reads it.

A decision on fifty thousand jobs has some ten thousand of them, and people look at twenty, or at one.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

from reconciler.planning.draft import Draft
from reconciler.planning.types import KeptJob


class Kept(Sequence[KeptJob]):
    """In the order of ``Draft.candidates``. Equal to any sequence of the same."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    @cached_property
    def _rows(self) -> list[int]:
        return self._draft.candidates()

    def _one(self, row: int) -> KeptJob:
        return KeptJob(self._draft.picture.jobs.views[row].key, self._draft.why(row))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> KeptJob: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[KeptJob, ...]: ...

    def __getitem__(self, index: int | slice) -> KeptJob | tuple[KeptJob, ...]:
        if isinstance(index, slice):
            return tuple(self._one(row) for row in self._rows[index])
        return self._one(self._rows[index])

    def __iter__(self) -> Iterator[KeptJob]:
        return (self._one(row) for row in self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return repr(tuple(self))

    __hash__ = None  # type: ignore[assignment]

    def of(self, job: str) -> str:
        """Why this job (its key) stays; empty when it is no candidate or moves."""
        row = self._draft.picture.jobs.find(job)
        return self._draft.why(row) if row >= 0 and self._draft.picture.staying[row] else ""
