"""Programs: sees to it that agents tell which files their jobs have mapped, where nodes may have different ones, and compares.

Nodes that run the same revision of an image have the same files, and are never asked. A table is believed only if it was made in
the node's present boot.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from crds import keys
from crds.load import Alive
from crds.programs import WantedFiles
from crds.report import JobReport
from reconciler.context import Context
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again
from reconciler.world import Delta, World

ALL = "all"
MOST_OLD = 2000
"""Paths up to which those stay that no job uses at the moment: others may soon."""


NOT_YET = "its files have not been compared with those of node/{node} yet"


@dataclass(frozen=True, slots=True)
class Comparison:
    """``unfit``: nodes that cannot take the job, and why; ``pending`` those of them of which that is not known yet."""

    unfit: dict[str, str] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()


ALIKE = Comparison()


def compare(world: World, job: str, source: str) -> Comparison:
    """The files that the job has mapped on the node it is on with those that other nodes have."""
    here = world.alive.get(source)
    others = {name: seen.value for name, seen in world.alive.items() if here and seen.value.root != here.value.root}
    if not others:
        return ALIKE
    report = world.reports.find(source, job)
    paths = report.value.files if report else None
    own = _table(world, source)
    by_root: dict[str, str | None] = {}
    for name, alive in others.items():
        if alive.root not in by_root or by_root[alive.root] is None:
            by_root[alive.root] = _first_difference(paths, own, _table(world, name))
    found = {name: by_root[alive.root] for name, alive in others.items()}
    pending = frozenset(name for name, why in found.items() if why is None)
    unfit = {name: f"{why} on {name}" for name, why in found.items() if why}
    return Comparison({**unfit, **{name: NOT_YET.format(node=name) for name in pending}}, pending)


def _first_difference(paths: list[str] | None, here: dict[str, str] | None, there: dict[str, str] | None) -> str | None:
    """In words; empty when there is none, None when that is not known yet."""
    if paths is None or here is None or there is None:
        return None
    for path in paths:
        if path not in here or path not in there:
            return None
        if not there[path]:
            return f"file {path} is missing"
        if here[path] != there[path]:
            return f"file {path} differs"
    return ""


def _table(world: World, node: str) -> dict[str, str] | None:
    seen, alive = world.files.get(node), world.alive.get(node)
    if seen is None or alive is None or seen.value.boot_id != alive.value.boot_id:
        return None
    return seen.value.digests


def wanted(world: World) -> WantedFiles | None:
    """What agents are to tell; None when all nodes have the same files."""
    if len({seen.value.root for seen in world.alive.values()}) < 2:
        return None
    used = {path for _, _, seen in world.reports for path in seen.value.files or ()}
    before = world.wanted_files
    kept = used | set(before.value.paths) if before else used
    return WantedFiles(paths=sorted(kept if len(kept) <= MOST_OLD else used))


def _start(_: World) -> Iterable[str]:
    return [ALL]


def _changed(delta: Delta, _: World) -> Iterable[str]:
    return [ALL] if _bearing(delta.old) != _bearing(delta.new) else []


def _bearing(value: object) -> object:
    """Reports come every few seconds; what is mapped changes rarely."""
    if isinstance(value, Alive):
        return value.root
    return value.files if isinstance(value, JobReport) else None


@controller("programs", start=_start, watches=[Watch("nodes/", _changed)])
async def ask_for_files(context: Context, _: str) -> Again:
    world = context.world
    wish, there = wanted(world), world.wanted_files
    if wish == (there.value if there else None):
        return DONE
    transaction = context.store.transaction().expect(*world.expect(keys.FILES))
    await (transaction.put(keys.FILES, wish) if wish else transaction.delete(keys.FILES)).commit()
    return DONE
