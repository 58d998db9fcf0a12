"""A session: a lease that is kept alive, and an honest answer to "is it still ours?".

The answer comes from our own clock, never from etcd's silence: a lease counts as alive until (moment the last successful renewal
was *sent*) + TTL. etcd started counting later than that, so we always stop before it lets anyone else begin. The clock goes on
while the machine is suspended.

Whoever needs more than the lease (that a key under it still stands) says so by ``verify``: a renewal then counts only when that
was true after it was sent.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType

from store.errors import StoreError, Unavailable
from store.kv import KV

log = logging.getLogger(__name__)

DEFAULT_TTL = 15.0  # seconds
RENEWALS = 6  # a TTL: four may fail, and who stands still for two thirds of it has lost nothing
RETRIES = 15  # a TTL, after a renewal failed


def boot_clock() -> float:
    """Seconds since boot, suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Session:
    """Keeps one lease alive from ``async with`` to its end, which revokes it.

    ``ttl`` is in seconds. Entering raises Unavailable. When the lease is lost ``lost`` is set, for good: make a new session.
    """

    def __init__(self, kv: KV, *, ttl: float = DEFAULT_TTL, clock: Callable[[], float] = boot_clock) -> None:
        self.kv = kv
        self.ttl = ttl
        self.lost = asyncio.Event()
        self.verify: Callable[[], Awaitable[None]] | None = None
        """Part of each renewal from when it is set; raises StoreError when it fails."""
        self.renewed: Callable[[float], None] = lambda deadline: None
        """Called with the new deadline after each renewal."""
        self._clock = clock
        self._lease = 0
        self._deadline = 0.0
        self._keeping: asyncio.Task[None] | None = None

    @property
    def lease(self) -> int:
        """For ``Put.lease``. Raises Unavailable once the lease is not ours any more."""
        if not self.alive:
            raise Unavailable(f"lease {self._lease:x} is not held any more: begin a new session")
        return self._lease

    @property
    def deadline(self) -> float:
        """When the lease ends unless it is renewed, in seconds of the session's clock."""
        return self._deadline

    @property
    def alive(self) -> bool:
        """By our own clock, right now."""
        return self._lease != 0 and not self.lost.is_set() and self._remaining() > 0

    async def __aenter__(self) -> "Session":
        sent = self._clock()
        self._lease = await self.kv.grant(self.ttl)
        self._deadline = sent + self.ttl
        self._keeping = asyncio.create_task(self._keep(), name=f"lease {self._lease:x}")
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.lost.set()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        try:
            await self.kv.revoke(self._lease)
        except StoreError as error:
            log.warning("lease %x was not revoked and runs out by itself within %.0f s: %s", self._lease, self.ttl, error)

    async def _keep(self) -> None:
        """Renews until the lease is lost. ``lost`` is set however this ends."""
        pause = self.ttl / RENEWALS
        try:
            while self.alive:
                await asyncio.sleep(min(pause, self._remaining()))
                pause = self.ttl / (RENEWALS if await self._renew() else RETRIES)
        finally:
            self.lost.set()

    async def _renew(self) -> bool:
        """False when it may be tried again; sets ``lost`` when etcd says that the lease has ended."""
        if not self.alive:
            log.error("lease %x was not renewed in time: counting it as lost", self._lease)
            return False
        sent = self._clock()
        try:
            async with asyncio.timeout(self._remaining()):
                left = await self.kv.keep_alive(self._lease)
                if left > 0 and self.verify is not None:
                    await self.verify()
        except (StoreError, TimeoutError) as error:
            log.warning("lease %x was not renewed, %.1f s left: %s", self._lease, self._remaining(), error or "no answer")
            return False
        if left <= 0:
            log.error("lease %x has ended in etcd: counting it as lost", self._lease)
            self.lost.set()
        else:
            self._deadline = sent + min(left, self.ttl)
            self.renewed(self._deadline)
        return True

    def _remaining(self) -> float:
        return self._deadline - self._clock()
