"""Who has which certificate: issues them, and takes them back when their node goes.

What is handed out stands in /mx/join/<mac> first, with its number, so that it can be taken back whatever happens next. Taken back
means: etcd knows its holder no more, and its number stands below /mx/public/revoked/ until it would have ended by itself, where
every agent reads it, and in a file in which etcd looks whenever somebody connects: the name may be given to another machine later.
A node has one key: who gets a certificate for another one, by a new token, makes its predecessor's worthless.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from clip.authority import NODE_DAYS, Authority, read_request, serial_of
from clip.errors import ClipError
from crds import keys
from crds.join import Issued, JoinFacts, JoinRecord, JoinState, Proof, Revocation
from store.kv import KV, Compare, Delete, KeyValue, Op, Put, absent, unchanged
from store.rights import Rights

log = logging.getLogger(__name__)

ATTEMPTS = 5


class Contested(ClipError):  # noqa: N818 - reads as what it says
    """Somebody else changed the record again and again while we did."""


class Registry:
    """All certificates of nodes. Errors: StoreError, AuthorityError, Contested."""

    def __init__(
        self,
        kv: KV,
        rights: Rights,
        authority: Authority,
        *,
        days: float = NODE_DAYS,
        revoked: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``revoked``: the file in which etcd finds what was taken back."""
        self._kv = kv
        self._rights = rights
        self.authority = authority
        self._days = days
        self._revoked = revoked
        self._listed: frozenset[str] | None = None
        self._clock = clock

    async def record(self, mac: str) -> tuple[JoinRecord | None, int]:
        """What is known of a machine, and at which revision; one that cannot be read counts as none, and is written anew."""
        return _read(await self._kv.get(keys.join(mac)))

    async def records(self) -> list[JoinRecord]:
        """Of all machines; those that cannot be read are left out."""
        found = [_read(kv)[0] for kv in (await self._kv.list(keys.JOINS)).items]
        return [record for record in found if record is not None]

    async def issue(self, request: bytes, node: str, mac: str, proof: Proof, facts: JoinFacts | None = None) -> bytes:
        """A certificate for the request, PEM. Whether the machine may have one the caller has found out."""
        key = read_request(request, node).digest
        certificate = self.authority.sign(request, node, days=self._days)
        await self._rights.admit(node)  # before it has the certificate, so that it is good from the first moment on
        serial, until = serial_of(certificate)
        for _ in range(ATTEMPTS):
            old, revision = await self.record(mac)
            kept, worthless = self._of_key(old, key)
            fresh = JoinRecord(
                state=JoinState.ISSUED,
                proof=proof,
                key=key,
                node=node,
                approved=old.approved if old and old.key == key else None,
                asked=old.asked if old and old.key == key else self._clock(),
                facts=facts or (old.facts if old else JoinFacts()),
                certificates=[*kept, Issued(serial=serial, until=until)],
            )
            revoked = self._revocations(old.node or node if old else node, worthless, "its node has a new key")
            if await self._put(mac, fresh, revision, revoked):
                if revoked:
                    await self.publish()
                log.info("node %s (%s) has a certificate until %s", node, mac, until)
                return certificate
        raise Contested(f"machine {mac}: its record changes again and again: try again")

    async def note(self, mac: str, record: JoinRecord, revision: int) -> bool:
        """Writes what a machine waits for; False when somebody else was faster."""
        return await self._put(mac, record, revision, [])

    async def dismiss(self, node: str) -> list[str]:
        """Takes back all that this node has; returns the numbers. May be repeated, and goes on where it was cut short."""
        taken = []
        await self._rights.expel(node)
        for kv in (await self._kv.list(keys.JOINS)).items:
            record, revision = _read(kv)
            if record is None or record.node != node:
                continue
            revoked = self._revocations(node, record.certificates, "its node was removed")
            if not (await self._kv.txn([unchanged(kv.key, revision)], [*revoked, Delete(kv.key)])).succeeded:
                raise Contested(f"node {node}: its record changed meanwhile: try again")
            taken += [each.serial for each in record.certificates]
        await self.publish()
        return taken

    async def publish(self) -> None:
        """Brings etcd's list in line with the keys. Whoever was cut short between the two does it at the next start. OSError."""
        if self._revoked is None:
            return
        listed = frozenset(kv.key.removeprefix(keys.REVOKED) for kv in (await self._kv.list(keys.REVOKED)).items)
        if listed != self._listed:
            await asyncio.to_thread(self.authority.publish, self._revoked, filter(_is_number, listed))
            self._listed = listed

    async def is_revoked(self, serial: str) -> bool:
        """Whether somebody who shows this certificate is to be believed no more."""
        return await self._kv.get(keys.revoked(serial)) is not None

    async def prune(self) -> int:
        """Forgets revocations of certificates that have ended by themselves; returns how many."""
        ended = 0
        for kv in (await self._kv.list(keys.REVOKED)).items:
            try:
                over = Revocation.model_validate_json(kv.value).until < self._clock()
            except ValidationError:
                continue  # it still revokes: agents go by the key
            if over:
                ended += (await self._kv.txn([unchanged(kv.key, kv.mod_revision)], [Delete(kv.key)])).succeeded
        await self.publish()
        return ended

    def _of_key(self, old: JoinRecord | None, key: str) -> tuple[list[Issued], list[Issued]]:
        """Certificates that have not ended: those of this key, those of another."""
        living = [each for each in old.certificates if each.until > self._clock()] if old else []
        return (living, []) if old and old.key == key else ([], living)

    def _revocations(self, node: str, certificates: list[Issued], reason: str) -> list[Op]:
        living = [each for each in certificates if each.until > self._clock()]
        return [Put(keys.revoked(each.serial), Revocation(node=node, until=each.until, reason=reason).to_json()) for each in living]

    async def _put(self, mac: str, record: JoinRecord, revision: int, also: list[Op]) -> bool:
        key = keys.join(mac)
        guard: Compare = unchanged(key, revision) if revision else absent(key)
        return (await self._kv.txn([guard], [Put(key, record.to_json()), *also])).succeeded


def _is_number(serial: str) -> bool:
    """Somebody may have written another key there."""
    return serial != "" and set(serial) <= set("0123456789ABCDEF")


def _read(kv: KeyValue | None) -> tuple[JoinRecord | None, int]:
    if kv is None:
        return None, 0
    try:
        return JoinRecord.model_validate_json(kv.value), kv.mod_revision
    except ValidationError as error:
        log.error("%s: cannot be read: %s", kv.key, str(error).splitlines()[0])
        return None, kv.mod_revision
