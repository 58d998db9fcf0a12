"""What this agent has written to etcd about its jobs: reports and claims, below /mx/nodes/<node>/ and nowhere else.

It keeps what it knows to stand there with its revision, so that only differences are written, each by compare-and-set: a write that
timed out and comes through late then finds a newer revision and does nothing. Every txn carries the guard of the session. Errors:
Unavailable (nobody knows whether it was done; doing it again is always right), Conflict (what stood there was not what we knew; it
is known now, decide again).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from crds import keys
from crds.report import Claim, JobReport, Verdict
from nodeagent.heartbeat import Heartbeat
from store.errors import Conflict, Unavailable
from store.kv import KV, Compare, Delete, Get, KeyValue, Op, Put, TxnResult, absent, unchanged

log = logging.getLogger(__name__)

ATTEMPTS = 5  # to delete what changes meanwhile


@dataclass(frozen=True, slots=True)
class Stored:
    """A report as it stands in etcd; ``report`` is None when it cannot be read (written by another version)."""

    revision: int
    report: JobReport | None


class Ledger:
    """Reports and claims by "<namespace>/<job>"."""

    def __init__(self, kv: KV, node: str, heartbeat: Heartbeat) -> None:
        self._kv = kv
        self._node = node
        self._heartbeat = heartbeat
        self._stored: dict[str, Stored] = {}
        self._claims: dict[str, int] = {}
        self._doubtful: set[str] = set()
        """Keys that may stand though we do not know of them: the answer to a write was lost."""
        self.loaded = False

    async def load(self) -> None:
        """Reads all that stands there. Raises Unavailable."""
        prefix = keys.node_prefix(self._node)
        reports = await self._kv.list(f"{prefix}jobs/")
        claims = await self._kv.list(f"{prefix}claims/")
        written = {job: stored for job, stored in self._stored.items() if stored.revision > reports.revision}
        claimed = {job: revision for job, revision in self._claims.items() if revision > claims.revision}
        self._stored = {_job(kv.key): _stored(kv) for kv in reports.items} | written
        self._claims = {_job(kv.key): kv.mod_revision for kv in claims.items} | claimed
        self.loaded = True

    def saw(self, job: str, kv: KeyValue | None) -> bool:
        """What a watch saw under the report's key. True when it is not what we put there: somebody else wrote or deleted it.

        What comes late of our own writes does no harm: each write compares, and learns what stands when it was wrong."""
        old = self._stored.get(job)
        if kv is None or not self.loaded or (old is not None and old.revision >= kv.mod_revision):
            return False
        self._stored[job] = _stored(kv)
        return self._stored[job].report is None

    def known(self) -> set[str]:
        """All jobs of which a report or a claim stands."""
        return self._stored.keys() | self._claims.keys()

    def stored(self, job: str) -> Stored | None:
        """The report that stands, as far as we know; None when there is none."""
        return self._stored.get(job)

    async def create(self, job: str, report: JobReport, placement: int) -> bool:
        """The intent to start: only if no report stands and the placement is as it was. False when a report stands.

        Raises Conflict when the placement changed."""
        place = keys.placement(self._node, *job.split("/"))
        result, found = await self._write(
            self._report(job),
            [absent(self._report(job)), unchanged(place, placement)],
            [Put(self._report(job), report.to_json())],
            [self._report(job), place],
        )
        if result.succeeded:
            self._stored[job] = Stored(result.revision, report)
            return True
        if found[0] is None:
            raise Conflict(f"job {job}: its placement changed before it was started")
        self._stored[job] = _stored(found[0])
        return False

    async def confirm(self, job: str, placement: int) -> None:
        """That our session stands, and that the placement still has that mod_revision (0: there is none), both at one moment.

        Raises Unavailable, Conflict."""
        place = keys.placement(self._node, *job.split("/"))
        result, _ = await self._txn([unchanged(place, placement)], [], [])
        if not result.succeeded:
            raise Conflict(f"job {job}: its placement changed meanwhile")

    async def put(self, job: str, report: JobReport, *, placement: int | None = None) -> None:
        """Writes the report unless it stands already; with ``placement`` only if the placement has that mod_revision still.

        Raises Unavailable, Conflict."""
        old = self._stored.get(job)
        if old is not None and old.report is not None and old.report.to_json() == report.to_json():
            return  # compared as written: times lose their microseconds there
        key = self._report(job)
        place = keys.placement(self._node, *job.split("/"))
        when = [unchanged(key, old.revision if old else 0), *([] if placement is None else [unchanged(place, placement)])]
        result, found = await self._write(key, when, [Put(key, report.to_json())], [key])
        if result.succeeded:
            self._stored[job] = Stored(result.revision, report)
            return
        self._learn(job, found[0])
        if placement is not None:
            raise Conflict(f"job {job}: its placement changed meanwhile, or another report stood there than was known")
        raise Conflict(f"{key}: another report stood there than was known, writing again")

    async def remove(self, job: str) -> None:
        """Report and claim, as far as they (may) stand. Raises Unavailable, Conflict."""
        stored = self._stored.get(job)
        known = {self._report(job): stored.revision if stored else 0, self._claim(job): self._claims.get(job, 0)}
        await self._delete({key: revision for key, revision in known.items() if revision or key in self._doubtful})
        self._stored.pop(job, None)
        self._claims.pop(job, None)

    async def remove_claim(self, job: str) -> None:
        """The claim only, if one (may) stand. Raises Unavailable, Conflict."""
        key, revision = self._claim(job), self._claims.get(job, 0)
        if revision or key in self._doubtful:
            await self._delete({key: revision})
            self._claims.pop(job, None)

    async def _delete(self, known: dict[str, int]) -> None:
        """Keys of ours with the mod_revisions they have as far as we know.

        Compared like any write, for one that comes through late must not take away what was written since."""
        for _ in range(ATTEMPTS):
            if not any(key in self._doubtful or revision for key, revision in known.items()):
                return
            when = [unchanged(key, revision) for key, revision in known.items()]
            result, found = await self._txn(when, [Delete(key) for key, revision in known.items() if revision], list(known))
            if result.succeeded:
                self._doubtful -= known.keys()
                return
            known = {key: kv.mod_revision if kv else 0 for key, kv in zip(known, found, strict=True)}
        raise Conflict(f"{', '.join(known)}: written again and again while they were to be removed")

    async def claim(self, job: str, claim: Claim, placement: int) -> Claim | None:
        """Puts the claim if none stands and the placement has mod_revision ``placement``; returns the claim that stands then.

        None: the placement changed, so none stands and none can. Repeating it after Unavailable tells what became of the first try.
        """
        place = keys.placement(self._node, *job.split("/"))
        key = self._claim(job)
        result, found = await self._write(key, [absent(key), unchanged(place, placement)], [Put(key, claim.to_json())], [key])
        if result.succeeded:
            self._claims[job] = result.revision
            return claim
        return self._standing(job, claim, found[0])

    async def standing_claim(self, job: str) -> Claim | None:
        """What stands in etcd now. Raises Unavailable."""
        kv = await self._kv.get(self._claim(job))
        if kv is None:
            self._claims.pop(job, None)
            return None
        self._claims[job] = kv.mod_revision
        return Claim.model_validate_json(kv.value)

    def _standing(self, job: str, ours: Claim, found: KeyValue | None) -> Claim | None:
        if found is None:
            self._claims.pop(job, None)
            return None
        self._claims[job] = found.mod_revision
        claim = Claim.model_validate_json(found.value)
        if (claim.uid, claim.epoch) == (ours.uid, ours.epoch):
            return claim
        raise Conflict(f"{found.key}: a claim of epoch {claim.epoch} stands in the way of epoch {ours.epoch}")

    async def _write(
        self, key: str, when: Sequence[Compare], then: Sequence[Op], read: Sequence[str]
    ) -> tuple[TxnResult, tuple[KeyValue | None, ...]]:
        """Puts that key. Who does not learn what became of it still has to remove what may stand."""
        self._doubtful.add(key)
        answer = await self._txn(when, then, read)
        self._doubtful.discard(key)
        return answer

    async def _txn(
        self, when: Sequence[Compare], then: Sequence[Op], read: Sequence[str]
    ) -> tuple[TxnResult, tuple[KeyValue | None, ...]]:
        """Carries the guard. When something did not hold, reads alive and ``read``; a guard that fell raises Unavailable."""
        guard = self._heartbeat.guard()
        result = await self._kv.txn([guard, *when], then, [Get(guard.key), *(Get(key) for key in read)])
        if result.succeeded:
            return result, ()
        alive, *found = result.gets
        if alive is None or alive.mod_revision != guard.number:
            self._heartbeat.fenced()
            raise Unavailable(f"{guard.key}: this session is over, a new one begins")
        return result, tuple(found)

    def _learn(self, job: str, found: KeyValue | None) -> None:
        if found is None:
            self._stored.pop(job, None)
        else:
            self._stored[job] = _stored(found)

    def _report(self, job: str) -> str:
        return keys.report(self._node, *job.split("/"))

    def _claim(self, job: str) -> str:
        return keys.claim(self._node, *job.split("/"))


def refusal(uid: str, epoch: int, reason: str) -> Claim:
    """The claim that says never."""
    return Claim(uid=uid, epoch=epoch, verdict=Verdict.REFUSED, reason=reason)


def _job(key: str) -> str:
    return "/".join(keys.parts(key)[3:5])


def _stored(kv: KeyValue) -> Stored:
    try:
        return Stored(kv.mod_revision, JobReport.model_validate_json(kv.value))
    except ValidationError as error:
        log.error("%s cannot be read, counted as a report of this job: %s", kv.key, str(error).splitlines()[0])
        return Stored(kv.mod_revision, None)
