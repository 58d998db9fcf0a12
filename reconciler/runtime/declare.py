"""How a controller says what it is about:

    @controller("job", kind=Job, watches=[Watch("kinds/jobs/", own_key), Watch("nodes/", reports)])
    async def reconcile_job(context: Context, key: str) -> Again: ...

A watch names a part of the key space below /mx/ and a function from one change to the work keys that may be touched by it. Naming
too many keys costs a glance each; naming too few costs correctness. ``start`` names the keys to look at when a leader begins,
because what changed before it looked is told by no watch.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from crds.meta import Resource
from reconciler.context import Context
from reconciler.runtime.outcome import Again
from reconciler.world import Delta, World

Reconcile = Callable[[Context, str], Awaitable[Again]]
Touched = Callable[[Delta, World], Iterable[str]]
Start = Callable[[World], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Watch:
    """Changes of keys below ``/mx/`` + ``prefix`` touch the work keys that ``touched`` names."""

    prefix: str
    touched: Touched


@dataclass(frozen=True, slots=True)
class Controller:
    """One declared controller. ``kind`` is what its keys name: events and conditions about failures go to that object."""

    name: str
    reconcile: Reconcile
    watches: tuple[Watch, ...]
    start: Start
    kind: type[Resource] | None = None


def controller(
    name: str, *, watches: Sequence[Watch], start: Start, kind: type[Resource] | None = None
) -> Callable[[Reconcile], Controller]:
    """Declares the function below to be the controller ``name``."""

    def declare(reconcile: Reconcile) -> Controller:
        return Controller(name, reconcile, tuple(watches), start, kind)

    return declare
