"""The agent's session with etcd: a lease, the alive key under it, and the guard that every write of the agent carries.

The guard compares the alive key's mod_revision with that of our own put. The key is put once a session, so the revision names the
session; a second agent of the same node, or we ourselves after a lost lease, put it anew and so fence the former.

A renewal counts only when the alive key was found in place after it was sent: a lease without the key is worth nothing, for others
go by the key.
"""

import asyncio
import logging
from collections.abc import Callable

from crds import keys
from crds.load import Alive
from store.errors import StoreError, Unavailable
from store.kv import KV, Compare, Put, unchanged
from store.lease import Session, boot_clock

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between two attempts to begin a session


class Heartbeat:
    """Runs until cancelled, one session after the other. ``begun`` is called whenever a new one stands.

    ``held`` is called, at the beginning of a session and with each renewal, with the time (of ``boot_clock``) to which it lasts.
    """

    def __init__(
        self, kv: KV, node: str, facts: Callable[[], Alive], *, ttl: float, clock: Callable[[], float] = boot_clock
    ) -> None:
        self._kv = kv
        self._key = keys.alive(node)
        self._facts = facts
        self._ttl = ttl
        self._clock = clock
        self._session: Session | None = None
        self._revision = 0
        self.begun: Callable[[], None] = lambda: None
        self.held: Callable[[float], None] = lambda until: None
        self.beside: Callable[[], list[Put]] = list
        """What is written along with the proof of each renewal: that costs no request of its own."""
        self.standing = asyncio.Event()

    def guard(self) -> Compare:
        """For each txn of this agent. Raises Unavailable while there is no session."""
        if self._session is None or not self._session.alive or not self._revision:
            raise Unavailable(f"{self._key}: no session with etcd stands at the moment")
        return unchanged(self._key, self._revision)

    def fenced(self) -> None:
        """A guard did not hold: the session is over even if its lease is not. A new one begins."""
        self._revision = 0
        if self._session is not None:
            self._session.lost.set()

    async def run(self) -> None:
        """Holds sessions for ever; outages of etcd only delay the next one."""
        while True:
            try:
                await self._hold()
            except StoreError as error:
                log.warning("no session with etcd, trying again: %s", error)
            await asyncio.sleep(PAUSE)

    async def _hold(self) -> None:
        """One session, from its lease to its loss."""
        async with Session(self._kv, ttl=self._ttl, clock=self._clock) as session:
            result = await self._kv.txn((), [Put(self._key, self._facts().to_json(), session.lease)])
            self._session, self._revision = session, result.revision
            session.verify, session.renewed = self._verify, self.held
            self.held(session.deadline)
            self.standing.set()
            log.info("session begun: %s at revision %d", self._key, result.revision)
            self.begun()
            try:
                await session.lost.wait()
            finally:
                self.standing.clear()
                self._session, self._revision = None, 0
        log.warning("session lost: %s, beginning a new one", self._key)

    async def _verify(self) -> None:
        """That the alive key is still ours. Raises StoreError."""
        guard = self.guard()
        if not (await self._kv.txn([guard], self.beside())).succeeded:
            self.fenced()
            raise Unavailable(f"{self._key}: is not as this session put it: beginning a new one")
