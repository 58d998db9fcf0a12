"""Who leads: at most one candidate holds the election key, created under its session's lease.

An election alone is no mutual exclusion, since a leader may be paused at any moment and wake up deposed. So whoever leads puts
``token`` into *every* transaction: it compares the key's create_revision, which no later leader shares, and etcd itself refuses
what a deposed leader sends.
"""

import asyncio
import logging
from contextlib import aclosing
from types import TracebackType

from store.errors import Fenced, Gone, StoreError, Unavailable
from store.kv import KV, Compare, Delete, Get, KeyValue, Put, Target, absent
from store.lease import Session

log = logging.getLogger(__name__)

LEADER = "/mx/leader"
RETRY_SECONDS = 1.0


async def leader(kv: KV, key: str = LEADER) -> str | None:
    """Who leads now, None when nobody does. Raises Unavailable."""
    held = await kv.get(key)
    return held.value.decode() if held else None


class Election:
    """One candidacy under one session. ``async with`` campaigns, leads, and resigns at the end.

    ``identity`` is what others see. ``lost`` is set when leadership has ended, for whatever reason; make a new session and a new
    election then.
    """

    def __init__(self, session: Session, identity: str, *, key: str = LEADER, retry: float = RETRY_SECONDS) -> None:
        self.key = key
        self.identity = identity
        self.lost = asyncio.Event()
        self._session = session
        self._kv = session.kv
        self._retry = retry
        self._created = 0
        self._guarding: asyncio.Task[None] | None = None

    @property
    def leading(self) -> bool:
        """As far as we know, by our own clock. Not proof: that is the token's task."""
        return self._created != 0 and not self.lost.is_set() and self._session.alive

    @property
    def token(self) -> Compare:
        """The guard of every transaction of the leader. Raises Fenced when we do not lead (any more)."""
        if not self.leading:
            raise Fenced(f"{self.identity} does not hold {self.key}: stop acting and campaign again")
        return Compare(self.key, Target.CREATE, self._created)

    async def campaign(self) -> None:
        """Waits, for as long as it takes, until we lead. Raises Fenced when the session is lost meanwhile."""
        waiting = asyncio.create_task(self._campaign(), name=f"campaign for {self.key}")
        losing = asyncio.create_task(self._session.lost.wait())
        try:
            await asyncio.wait({waiting, losing}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Fenced(f"{self.identity} lost its session while campaigning for {self.key}: begin a new session")
            self._created = waiting.result()
        finally:
            waiting.cancel()
            losing.cancel()
        self._guarding = asyncio.create_task(self._guard(), name=f"guard of {self.key}")
        log.info("%s leads, token %d", self.identity, self._created)

    async def resign(self) -> None:
        """Gives the key up, if it is still ours. Raises Unavailable; the key then goes with the session's lease."""
        if self._guarding is not None:
            self._guarding.cancel()
            await asyncio.wait({self._guarding})
        self.lost.set()
        if self._created:
            await self._kv.txn([Compare(self.key, Target.CREATE, self._created)], [Delete(self.key)])

    async def __aenter__(self) -> "Election":
        await self.campaign()
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        try:
            await self.resign()
        except StoreError as error:
            log.warning("%s did not resign, %s goes when the lease runs out: %s", self.identity, self.key, error)

    async def _campaign(self) -> int:
        """The create_revision of our key, once it is there."""
        while True:
            try:
                holder, revision = await self._stand()
                if holder is None:
                    return revision
                log.info("%s waits: %s leads", self.identity, holder.value.decode())
                await self._until_gone(holder, revision)
            except Gone:
                continue  # the watch began too long ago; look anew
            except Unavailable as error:
                log.warning("%s campaigns for %s: %s", self.identity, self.key, error)
                await asyncio.sleep(self._retry)

    async def _stand(self) -> tuple[KeyValue | None, int]:
        """Creates the key. Gives the holder and the revision at which he held it, or None and the key's create_revision.

        An attempt whose outcome stayed unknown may have created it: a key under our own lease is ours.
        """
        lease = self._session.lease
        result = await self._kv.txn([absent(self.key)], [Put(self.key, self.identity.encode(), lease)], [Get(self.key)])
        if result.succeeded:
            return None, result.revision
        holder = result.gets[0]
        if holder is None:
            raise Unavailable(f"{self.key} is there and is not there: etcd contradicts itself")
        return (None, holder.create_revision) if holder.lease == lease else (holder, result.revision)

    async def _until_gone(self, holder: KeyValue, revision: int) -> None:
        """Returns once the holder's key, seen at ``revision``, was deleted."""
        async with aclosing(self._kv.watch(self.key, revision=revision + 1)) as batches:
            async for batch in batches:
                if any(change.kv.key == self.key and change.deleted for change in batch.changes):
                    return

    async def _guard(self) -> None:
        """Sets ``lost`` when the session is, or when somebody deletes our key."""
        tasks = {asyncio.create_task(self._session.lost.wait()), asyncio.create_task(self._until_deposed())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.lost.set()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        causes = [str(end) for end in ends if isinstance(end, StoreError)]
        log.error("%s does not lead any more %s", self.identity, "; ".join(causes))

    async def _until_deposed(self) -> None:
        """Returns when the key is not ours any more. Raises Invalid when we may not even look."""
        while True:
            try:
                page = await self._kv.list(self.key)
                mine = [kv for kv in page.items if kv.key == self.key and kv.create_revision == self._created]
                if not mine:
                    return
                await self._until_gone(mine[0], page.revision)
            except Unavailable:
                await asyncio.sleep(self._retry)
            except Gone:
                continue
