"""The reconciler as a process: connects, waits for its turn, leads, and starts over whenever it has to.

Any number of reconcilers may run. One leads; the others wait. A leader that is deposed stops everything it does at once, but what
keeps it from doing harm is not that: every write carries the leadership's token, and etcd refuses the writes of a former leader.
Nothing survives a leadership: the next one, here or elsewhere, reads everything anew.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

from crds import keys
from reconciler.context import Context, Stopwatch
from reconciler.controllers import ALL
from reconciler.runtime.clock import Clock, SystemClock
from reconciler.runtime.runner import Runner
from reconciler.world import World
from store.election import Election
from store.errors import Fenced, StoreError
from store.etcd import EtcdKV
from store.etcd_channel import Tls
from store.events import EventRecorder
from store.informer import Informer
from store.kv import KV, Compare
from store.lease import Session
from store.store import Store

log = logging.getLogger(__name__)

LEASE_TTL = 5.0
"""Seconds after which another reconciler takes over from one that was killed."""
PAUSE = 1.0
"""Seconds before starting over."""


async def serve(endpoints: Sequence[str], tls: Tls | None = None) -> None:
    """Runs until cancelled; then resigns, so that another takes over at once."""
    kv = EtcdKV.connect(endpoints, tls=tls)
    identity = f"{socket.gethostname()}/{os.getpid()}"
    try:
        await campaign(kv, identity, SystemClock())
    finally:
        await kv.close()


async def campaign(kv: KV, identity: str, clock: Clock) -> None:
    """Stands for election again and again, and leads when elected, until cancelled."""
    while True:
        await _once(kv, identity, clock)
        await asyncio.sleep(PAUSE)


async def _once(kv: KV, identity: str, clock: Clock) -> None:
    """One candidacy and, if elected, one leadership. Whatever ends it but cancellation is logged: there is always another try."""
    try:
        session = Session(kv, ttl=LEASE_TTL, clock=clock.boottime)
        async with session, Election(session, identity, key=keys.LEADER) as election:
            await lead(kv, election.token, election.lost.wait, clock)
    except* Fenced as group:
        log.warning("leadership is over, will campaign again: %s", _causes(group))
    except* StoreError as group:
        log.warning("will start over in %.0f s: %s", PAUSE, _causes(group))
    except* Exception:
        log.exception("unexpected failure, will start over in %.0f s", PAUSE)


async def lead(kv: KV, token: Compare, lost: Callable[[], Awaitable[object]], clock: Clock | None = None) -> None:
    """Reconciles until ``lost`` returns. Raises Fenced in an ExceptionGroup then, or when etcd refuses the token."""
    clock = clock or SystemClock()
    informer, world = Informer(kv, keys.ROOT, ignore=(keys.EVENTS,), clock=clock.monotonic), World()
    informer.subscribe(world.apply)
    runner = Runner(ALL, make_context(kv, token, world, informer, clock))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(informer.run(), name="informer")
        tasks.create_task(_until_lost(lost), name="leadership")
        await informer.synced.wait()
        log.info("reconciling from revision %d on", informer.revision)
        await runner.run()


def make_context(kv: KV, token: Compare, world: World, informer: Informer, clock: Clock) -> Context:
    """What the controllers of one leadership share."""
    store = Store(kv, clock=clock.now).guarded(token)
    return Context(
        world=world,
        store=store,
        recorder=EventRecorder(store, "reconciler", clock=clock.monotonic),
        clock=clock,
        stopwatch=Stopwatch(clock),
        reached=informer.reached,
    )


async def _until_lost(lost: Callable[[], Awaitable[object]]) -> None:
    await lost()
    raise Fenced("the election key is not ours any more")


def _causes(group: BaseExceptionGroup[BaseException]) -> str:
    """The messages of all causes, in one line."""
    texts = [_causes(e) if isinstance(e, BaseExceptionGroup) else str(e) for e in group.exceptions]
    return "; ".join(dict.fromkeys(texts))
