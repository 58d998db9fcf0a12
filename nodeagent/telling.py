"""The node's load, told to etcd: at most once a second, and only when it changed enough to matter."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from crds import keys
from crds.load import LoadVector
from nodeagent.fence import Fence
from nodeagent.heartbeat import Heartbeat
from nodeagent.load import Watched, changed_enough
from store.errors import StoreError
from store.kv import KV, Put

log = logging.getLogger(__name__)

Watching = Callable[[], Iterable[Watched]]


class LoadSource(Protocol):
    """What samples the load (load.LoadSampler; in tests something simpler)."""

    async def run(self, watched: Watching) -> None: ...

    def vector(self, watched: Iterable[Watched]) -> LoadVector: ...


async def tell_load(
    kv: KV, node: str, heartbeat: Heartbeat, source: LoadSource, watched: Watching, fence: Fence, pause: float
) -> None:
    """Until cancelled. A vector that could not be written is not written later: by then there is a newer one."""
    told: LoadVector | None = None
    while True:
        await asyncio.sleep(pause)
        if not heartbeat.standing.is_set():
            told = None
            continue
        vector = source.vector(watched()).model_copy(update={"unguarded": fence.unguarded})
        if not changed_enough(told, vector):
            continue
        try:
            result = await kv.txn([heartbeat.guard()], [Put(keys.load(node), vector.to_json())])
        except StoreError as error:
            log.info("load not told: %s", error)
            continue
        if result.succeeded:
            told = vector
        else:
            heartbeat.fenced()
