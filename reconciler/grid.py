"""A table of values by node and job, looked up from either side: who holds this job, what does this node hold."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """A value with the key it lies under and the revision at which it was written."""

    key: str
    revision: int
    value: T


class Grid(Generic[T]):
    """Jobs are named "<namespace>/<name>"."""

    def __init__(self) -> None:
        self._by_job: dict[str, dict[str, Seen[T]]] = {}
        self._by_node: dict[str, dict[str, Seen[T]]] = {}

    def put(self, node: str, job: str, seen: Seen[T]) -> None:
        self._by_job.setdefault(job, {})[node] = seen
        self._by_node.setdefault(node, {})[job] = seen

    def drop(self, node: str, job: str) -> None:
        """No error when it is not there."""
        for table, outer, inner in ((self._by_job, job, node), (self._by_node, node, job)):
            row = table.get(outer, {})
            row.pop(inner, None)
            if not row:
                table.pop(outer, None)

    def find(self, node: str, job: str) -> Seen[T] | None:
        return self._by_job.get(job, {}).get(node)

    def of_job(self, job: str) -> dict[str, Seen[T]]:
        """By node, sorted."""
        return dict(sorted(self._by_job.get(job, {}).items()))

    def on_node(self, node: str) -> dict[str, Seen[T]]:
        """By job, sorted."""
        return dict(sorted(self._by_node.get(node, {}).items()))

    def __iter__(self) -> Iterator[tuple[str, str, Seen[T]]]:
        """All (node, job, value); a copy, so that the grid may change meanwhile."""
        return iter([(node, job, seen) for node, row in self._by_node.items() for job, seen in row.items()])
