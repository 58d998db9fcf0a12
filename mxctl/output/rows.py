"""Rows of ``mxctl get``: NAME first, the kind's own columns, AGE last."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from crds.event import Event
from crds.meta import Column, Resource
from crds.quantity import parse_duration, parse_memory
from mxctl.output.age import age
from mxctl.output.expression import Expression


class Rows:
    """How objects of one kind become rows. ``everywhere`` adds the namespace, ``prefixed`` makes names ``kind/name``."""

    def __init__(self, kind: type[Resource], *, wide: bool, everywhere: bool = False, prefixed: bool = False) -> None:
        self._columns: Sequence[Column] = [column for column in kind.COLUMNS if wide or not column.wide]
        self._namespace = everywhere and kind.NAMESPACED
        self._prefix = f"{kind.KIND.lower()}/" if prefixed else ""

    @property
    def titles(self) -> list[str]:
        return [*(["NAMESPACE"] if self._namespace else []), "NAME", *(column.title for column in self._columns), "AGE"]

    def row(self, obj: Resource, now: datetime | None = None) -> list[str]:
        """``now`` is for tests."""
        namespace = [obj.namespace] if self._namespace else []
        born = obj.last_seen if isinstance(obj, Event) else obj.metadata.creation_timestamp
        return [*namespace, self._prefix + obj.name, *(column.text(obj) for column in self._columns), age(born, now)]


def sort_key(expression: Expression, data: Any) -> tuple[int, float, str]:
    """Absent first, then numbers and quantities by their amount, then text."""
    found = expression.find(data)
    if not found:
        return 0, 0.0, ""
    value = found[0]
    for parse in (float, parse_memory, parse_duration):
        try:
            return 1, float(parse(value)), ""
        except (TypeError, ValueError):
            continue
    return 2, 0.0, str(value)
