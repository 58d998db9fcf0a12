"""``MemoryKV``: the seam kept in memory, for tests and for simulation. It passes the contract tests of real etcd.

It fails on demand, because what stands above must survive that:
    kv.delay = 0.2                       every call takes that long; longer than ``timeout`` ends Unavailable, nothing applied
    kv.fail_next("txn")                  the next txn ends Unavailable, nothing applied
    kv.fail_next("txn", applied=True)    ... but it *was* applied: the unknown outcome
    kv.fail_next("txn", late=2.0)        ... but it comes through that many seconds after it was given up
    kv.answer = 0.1                      what a call did is known that much later; cancelled meanwhile, it was done all the same
    kv.down = True                       no connection, until set to False; leases run on meanwhile
    kv.drop_watches()                    all watches of this client break and resume
    kv.lag = 2.0                         each batch of its watches is handed over that much later
    kv.hook = f                          f(call, "before" | "after") runs around each call and may raise anything (a crash)
Time stands still unless ``advance`` is called or the server was made with a clock.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from store.errors import Gone, StoreError, Unavailable
from store.kv import Batch, Compare, Get, KeyValue, Op, Page, TxnResult
from store.limits import check_lease, check_txn
from store.memory_server import MemoryServer, Watcher

T = TypeVar("T")
Moment = Literal["before", "after"]
Hook = Callable[[str, Moment], None]


@dataclass(frozen=True, slots=True)
class _Fault:
    call: str
    error: StoreError
    applied: bool
    late: float | None


class _Time:
    """The leases' clock: what ``advance`` added, plus a running clock if there is one."""

    def __init__(self, clock: Callable[[], float] | None) -> None:
        self.clock = clock
        self.offset = 0.0

    def now(self) -> float:
        return self.offset + (self.clock() if self.clock else 0.0)

    def wake_after(self, seconds: float, wake: Callable[[], None]) -> None:
        """With a running clock leases must run out also when nobody calls."""
        if self.clock:
            asyncio.get_running_loop().call_later(seconds + 0.01, wake)


class MemoryKV:
    """One client of a fake etcd; ``client()`` gives another client of the same. ``timeout`` is in seconds.

    Give ``clock`` (seconds, e.g. ``time.monotonic``) to let leases run out by themselves.
    """

    def __init__(self, *, clock: Callable[[], float] | None = None, timeout: float = 5.0) -> None:
        self.server = MemoryServer()
        self.delay = 0.0
        self.answer = 0.0
        self.lag = 0.0
        self.timeout = timeout
        self.hook: Hook | None = None
        self._time = _Time(clock)
        self._faults: list[_Fault] = []
        self._watchers: set[Watcher] = set()
        self._up = asyncio.Event()
        self._up.set()
        self._closed = False

    def client(self) -> "MemoryKV":
        """Another client of the same server, with knobs of its own."""
        other = MemoryKV(timeout=self.timeout)
        other.server = self.server
        other._time = self._time
        return other

    # --- knobs ---

    @property
    def down(self) -> bool:
        """No connection to the server."""
        return not self._up.is_set()

    @down.setter
    def down(self, down: bool) -> None:
        if down:
            self._up.clear()
            self.drop_watches()
        else:
            self._up.set()

    def fail_next(self, call: str, error: StoreError | None = None, *, applied: bool = False, late: float | None = None) -> None:
        """The next ``call`` ("get", "list", "txn", ...) raises ``error`` (Unavailable), with or without its effect, or has it
        ``late`` seconds after that."""
        self._faults.append(_Fault(call, error or Unavailable(f"{call}: failed on demand"), applied, late))

    def drop_watches(self) -> None:
        """Breaks the stream of every watch, with what it had not read; each resumes by itself."""
        for watcher in self._watchers:
            watcher.break_off()

    def advance(self, seconds: float) -> None:
        """Lets ``seconds`` pass for the leases."""
        self._time.offset += seconds
        self._expire()

    async def compact(self, revision: int) -> None:
        """Forgets all history before ``revision``. Raises Gone when that is done already."""
        await self._call("compact", lambda: self.server.compact(revision))

    # --- the seam ---

    async def get(self, key: str) -> KeyValue | None:
        check_txn((), (Get(key),), ())
        return await self._call("get", lambda: self.server.get(key))

    async def list(self, prefix: str, *, revision: int = 0) -> Page:
        return await self._call("list", lambda: self.server.list(prefix, revision))

    async def txn(self, when: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        check_txn(when, then, otherwise)
        return await self._call("txn", lambda: self.server.txn(when, then, otherwise))

    async def watch(self, prefix: str, *, revision: int) -> AsyncGenerator[Batch, None]:
        resume = revision
        while True:
            await self._connection("watch")
            if not resume:
                resume = self.server.revision + 1
                yield Batch(resume - 1)
            async with aclosing(self._stream(prefix, resume)) as stream:
                async for batch in stream:
                    resume = batch.revision + 1
                    yield batch

    async def grant(self, ttl: float) -> int:
        check_lease(ttl)
        lease = await self._call("grant", lambda: self.server.grant(ttl, self._time.now()))
        self._time.wake_after(math.ceil(ttl), self._expire)
        return lease

    async def keep_alive(self, lease: int) -> float:
        left = await self._call("keep_alive", lambda: self.server.keep_alive(lease, self._time.now()))
        self._time.wake_after(left, self._expire)
        return left

    async def revoke(self, lease: int) -> None:
        await self._call("revoke", lambda: self.server.revoke(lease))

    async def close(self) -> None:
        self._closed = True
        self._up.set()
        self.drop_watches()

    # --- inside ---

    async def _call(self, call: str, action: Callable[[], T]) -> T:
        """Every call passes here, so that all knobs work on all of them."""
        await asyncio.sleep(min(self.delay, self.timeout))
        if self._closed:
            raise Unavailable(f"{call}: the connection was closed")
        if self.down or self.delay > self.timeout:
            raise Unavailable(f"{call}: no answer within {self.timeout} s")
        fault = self._next_fault(call)
        self._at(call, "before")
        if fault and fault.late is not None:
            asyncio.get_running_loop().call_later(fault.late, self._come_through, action)
        if fault and not fault.applied:
            raise fault.error
        self._expire()
        result = action()
        if self.answer:
            await asyncio.sleep(self.answer)
        self._at(call, "after")
        if fault:
            raise fault.error
        return result

    def _come_through(self, action: Callable[[], object]) -> None:
        self._expire()
        with suppress(StoreError):  # nobody waits for its answer any more
            action()

    async def _connection(self, call: str) -> None:
        await self._up.wait()
        if self._closed:
            raise Unavailable(f"{call}: the connection was closed")
        self._at(call, "before")

    async def _stream(self, prefix: str, start: int) -> AsyncGenerator[Batch, None]:
        """One unbroken stretch of a watch. Ends when it is broken off."""
        news = asyncio.Event()
        watcher = Watcher(prefix, start, news.set)
        self.server.subscribe(watcher)
        self._watchers.add(watcher)
        waited = 0
        try:
            while not watcher.broken:
                if watcher.overrun:
                    raise Gone(f"watch of {prefix}: too many changes were left unread, list again", self.server.compacted)
                if watcher.pending and waited != watcher.pending[0].revision and self.lag:
                    waited = watcher.pending[0].revision
                    await asyncio.sleep(self.lag)
                elif watcher.pending:
                    yield watcher.pending.popleft()
                else:
                    news.clear()
                    await news.wait()
        finally:
            self._watchers.discard(watcher)
            self.server.unsubscribe(watcher)

    def _next_fault(self, call: str) -> _Fault | None:
        for fault in self._faults:
            if fault.call == call:
                self._faults.remove(fault)
                return fault
        return None

    def _at(self, call: str, moment: Moment) -> None:
        if self.hook:
            self.hook(call, moment)

    def _expire(self) -> None:
        self.server.expire(self._time.now())
