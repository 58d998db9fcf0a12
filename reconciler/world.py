"""What the reconciler knows: everything below /mx/ (events apart) as it stood at one revision, read-only and typed.

One informer feeds it; each value is parsed once, when it comes. Controllers ask here and never etcd, so that all they see belongs
together. It may be late, which does no harm: every write compares the revisions of what it relied on (``expect``), so a decision
about a past world is refused.

Values that cannot be read are kept apart (``broken``) and never raise. Objects are shared: copy one before changing it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from crds import keys
from crds.cluster import Cluster, ClusterSpec
from crds.event import Event
from crds.job import Job, JobPhase
from crds.load import Alive, LoadVector
from crds.machine import Machine
from crds.manifest import Manifest
from crds.meta import CLUSTER_SCOPE, Model, Resource
from crds.migration import Migration
from crds.network import HostEntry, Reservation
from crds.placement import Placement
from crds.power import PowerOutcome, PowerRequest
from crds.programs import NodeFiles, WantedFiles
from crds.registry import KINDS
from crds.report import Claim, JobReport
from reconciler.grid import Grid, Seen
from store.errors import Invalid
from store.kv import Compare, KeyValue, unchanged
from store.objects import Broken, broken, decode_or_broken, parse_or_broken

R = TypeVar("R", bound=Resource)
M = TypeVar("M", bound=Model)

_KIND_OF = {kind.PLURAL: kind for kind in KINDS if kind is not Event}


@dataclass(frozen=True, slots=True)
class Delta:
    """One change. ``parts`` are the words of the key after /mx/; ``old`` and ``new`` are None where the key is absent."""

    key: str
    parts: list[str]
    old: Model | Broken | None
    new: Model | Broken | None


Listener = Callable[[Delta], None]


def job_key(namespace: str, name: str) -> str:
    """How a job (or a migration) is named in work keys, plans and load vectors."""
    return f"{namespace}/{name}"


def split_key(key: str) -> tuple[str, str]:
    """Namespace and name of a work key."""
    namespace, _, name = key.partition("/")
    return namespace, name


class World:
    """Fed by ``apply``, the callback of an informer."""

    def __init__(self) -> None:
        self.broken: dict[str, Broken] = {}
        """By key in etcd."""
        self.placements: Grid[Placement] = Grid()
        self.reports: Grid[JobReport] = Grid()
        self.claims: Grid[Claim] = Grid()
        self.alive: dict[str, Seen[Alive]] = {}
        """By node; the node's heartbeat is there."""
        self.sessions: dict[str, int] = {}
        """By node: how often its heartbeat was seen to begin. Two looks with the same number saw the same presence or absence."""
        self.load: dict[str, Seen[LoadVector]] = {}
        """By node."""
        self.machines: dict[str, Seen[Machine]] = {}
        """By MAC: what CLiP saw."""
        self.manifests: dict[tuple[str, str], Manifest] = {}
        """By image and digest: what is in its revisions."""
        self.addresses: dict[str, Seen[Reservation]] = {}
        """By address or MAC."""
        self.hosts: dict[str, Seen[HostEntry]] = {}
        """By job."""
        self.files: dict[str, Seen[NodeFiles]] = {}
        """By node."""
        self.power_requests: dict[str, Seen[PowerRequest]] = {}
        """By node."""
        self.power_outcomes: dict[str, Seen[PowerOutcome]] = {}
        """By node; of a request that may be another by now."""
        self.pending: set[str] = set()
        """Keys of jobs that wait for a node."""
        self._wanted: dict[str, Seen[WantedFiles]] = {}
        self._objects: dict[type[Resource], dict[str, Resource]] = {kind: {} for kind in _KIND_OF.values()}
        self._migrations: dict[str, dict[str, Migration]] = {}
        self._values: dict[str, tuple[int, Model | Broken]] = {}
        self._listeners: list[Listener] = []

    # --- reading ---

    def all(self, kind: type[R]) -> list[R]:
        """All readable objects of a kind, sorted by namespace and name."""
        found = self._objects[kind]
        return [cast(R, found[key]) for key in sorted(found)]

    def find(self, kind: type[R], key: str) -> R | None:
        """The object of that work key: "<namespace>/<name>", or the bare name for kinds without namespace."""
        return cast(R | None, self._objects[kind].get(key))

    def is_there(self, kind: type[Resource], key: str) -> bool:
        """Whether the object exists, readable or not."""
        return key in self._objects[kind] or self.object_key(kind, key) in self.broken

    def migrations_of(self, job: str) -> list[Migration]:
        """All Migrations of a job, sorted by name."""
        found = self._migrations.get(job, {})
        return [found[name] for name in sorted(found)]

    def broken_about(self, job: str) -> list[Broken]:
        """Placements, reports and claims of the job that cannot be read."""
        namespace, name = split_key(job)
        about = (keys.PLACEMENTS, keys.NODES)
        return [b for key, b in self.broken.items() if keys.parts(key)[-2:] == [namespace, name] and key.startswith(about)]

    @property
    def wanted_files(self) -> Seen[WantedFiles] | None:
        """None: no files are to be compared."""
        return next(iter(self._wanted.values()), None)

    @property
    def cluster(self) -> ClusterSpec:
        """The first Cluster's spec; defaults when there is none."""
        clusters = self.all(Cluster)
        return clusters[0].spec if clusters else ClusterSpec()

    def expect(self, *keys_relied_on: str) -> list[Compare]:
        """Compares that hold as long as these keys are (or are absent) as they are seen here."""
        return [unchanged(key, self.mod_revision(key)) for key in keys_relied_on]

    def mod_revision(self, key: str) -> int:
        """0 when the key is absent."""
        return self._values[key][0] if key in self._values else 0

    @staticmethod
    def object_key(kind: type[Resource], key: str) -> str:
        """The key in etcd of a work key."""
        namespace, _, name = key.rpartition("/")
        return keys.object_key(kind, name, namespace or CLUSTER_SCOPE)

    # --- being fed ---

    def subscribe(self, listener: Listener) -> None:
        """``listener`` is called after each change, when the world shows it already."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """No error when it was not subscribed."""
        self._listeners = [other for other in self._listeners if other != listener]

    def apply(self, key: str, old: KeyValue | None, new: KeyValue | None) -> None:
        """One change of one key, from the informer. ``old`` is not looked at: the world remembers by itself."""
        parts = keys.parts(key)
        value = _read(parts, new) if new else None
        before = self._values.pop(key, None)
        self._forget(key, parts, before[1] if before else None)
        if new is not None and parts[0] == "nodes" and parts[2] == "alive":
            self.sessions[parts[1]] = self.sessions.get(parts[1], 0) + 1
        if new is not None and value is not None:
            self._values[key] = (new.mod_revision, value)
            self._keep(key, parts, value, new.mod_revision)
        delta = Delta(key, parts, before[1] if before else None, value)
        if delta.old is not None or delta.new is not None:
            for listener in self._listeners:
                listener(delta)

    def _keep(self, key: str, parts: list[str], value: Model | Broken, revision: int) -> None:
        if isinstance(value, Broken):
            self.broken[key] = value
        elif isinstance(value, Resource):
            self._keep_object(value)
        elif isinstance(value, Manifest):
            self.manifests[parts[1], parts[2]] = value
        elif isinstance(value, HostEntry):
            self.hosts[job_key(*parts[-2:])] = Seen(key, revision, value)
        elif (table := self._table(value)) is not None:
            table[parts[1]] = Seen(key, revision, value)
        else:
            self._grid(value).put(parts[1], job_key(*parts[-2:]), Seen(key, revision, value))

    def _forget(self, key: str, parts: list[str], value: Model | Broken | None) -> None:
        if value is None:
            return
        if isinstance(value, Broken):
            self.broken.pop(key, None)
        elif isinstance(value, Resource):
            self._forget_object(value)
        elif isinstance(value, Manifest):
            self.manifests.pop((parts[1], parts[2]), None)
        elif isinstance(value, HostEntry):
            self.hosts.pop(job_key(*parts[-2:]), None)
        elif (table := self._table(value)) is not None:
            table.pop(parts[1], None)
        else:
            self._grid(value).drop(parts[1], job_key(*parts[-2:]))

    def _keep_object(self, obj: Resource) -> None:
        key = work_key(obj)
        self._objects[type(obj)][key] = obj
        if isinstance(obj, Job) and obj.status.phase == JobPhase.PENDING:
            self.pending.add(key)
        if isinstance(obj, Migration):
            self._migrations.setdefault(job_key(obj.namespace, obj.spec.job), {})[obj.name] = obj

    def _forget_object(self, obj: Resource) -> None:
        key = work_key(obj)
        self._objects[type(obj)].pop(key, None)
        if isinstance(obj, Job):
            self.pending.discard(key)
        if isinstance(obj, Migration):
            job = job_key(obj.namespace, obj.spec.job)
            self._migrations[job].pop(obj.name, None)
            if not self._migrations[job]:
                del self._migrations[job]

    def _table(self, value: Model) -> dict[str, Seen[Any]] | None:
        """Where values of this type stand by the second word of their keys."""
        tables: dict[type[Model], dict[str, Any]] = {
            Alive: self.alive,
            LoadVector: self.load,
            Machine: self.machines,
            Reservation: self.addresses,
            NodeFiles: self.files,
            WantedFiles: self._wanted,
            PowerRequest: self.power_requests,
            PowerOutcome: self.power_outcomes,
        }
        return tables.get(type(value))

    def _grid(self, value: Model) -> Grid[Any]:
        grids: dict[type[Model], Grid[Any]] = {Placement: self.placements, JobReport: self.reports, Claim: self.claims}
        return grids[type(value)]


def work_key(obj: Resource) -> str:
    """The key by which controllers name an object."""
    return job_key(obj.namespace, obj.name) if obj.NAMESPACED else obj.name


def _read(parts: list[str], kv: KeyValue) -> Model | Broken | None:
    """What lies under the key; None for keys that are none of our business (join requests, the election)."""
    match parts:
        case ["kinds", plural, _, _] if plural in _KIND_OF:
            return decode_or_broken(_KIND_OF[plural], kv)
        case ["kinds", *_]:
            return broken(kv, Invalid(f"{kv.key}: there is no such kind of object: delete the key"))
        case ["addresses", _]:
            return Reservation(owner=kv.value.decode(errors="replace"))
        case [first, _, *rest]:
            model = _MODELS.get((first, len(parts), rest[0] if rest and first in ("nodes", "machine-power") else ""))
            return parse_or_broken(model, kv) if model else None
    return None


_MODELS: dict[tuple[str, int, str], type[Model]] = {
    ("nodes", 3, "alive"): Alive,
    ("nodes", 3, "load"): LoadVector,
    ("nodes", 3, "files"): NodeFiles,
    ("nodes", 5, "jobs"): JobReport,
    ("nodes", 5, "claims"): Claim,
    ("machines", 2, ""): Machine,
    ("manifests", 3, ""): Manifest,
    ("placements", 4, ""): Placement,
    ("machine-power", 3, "request"): PowerRequest,
    ("machine-power", 3, "outcome"): PowerOutcome,
    ("public", 4, ""): HostEntry,
    ("public", 2, ""): WantedFiles,
}
"""By first word, number of words, and third word where that tells."""
