"""The node's load, told to etcd: with each renewal of the session, and at most once a second when it changed enough to matter."""

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from crds import keys
from crds.load import LoadVector
from nodeagent.beat import Beat
from nodeagent.fence import Fence
from nodeagent.heartbeat import Heartbeat
from nodeagent.load import Watched, changed_enough
from store.errors import StoreError
from store.kv import KV, Put

log = logging.getLogger(__name__)

Watching = Callable[[], Iterable[Watched]]


class LoadSource(Protocol):
    """What samples the load (load.LoadSampler; in tests something simpler)."""

    async def run(self, watched: Watching, beat: Beat) -> None: ...

    def vector(self, watched: Iterable[Watched]) -> LoadVector: ...

    def still_for(self) -> float:
        """Seconds in which no job has run at all."""
        ...


class Telling:
    """One node's. A vector that could not be written is not written later: by then there is a newer one."""

    def __init__(self, node: str, heartbeat: Heartbeat, source: LoadSource, watched: Watching, fence: Fence) -> None:
        self._key = keys.load(node)
        self._heartbeat = heartbeat
        self._source = source
        self._watched = watched
        self._fence = fence
        self._told: LoadVector | None = None

    async def run(self, kv: KV, beat: Beat, pause: float) -> None:
        """Until cancelled; ``pause`` in seconds."""
        self._heartbeat.beside = lambda: [self._put(self._vector())]
        while True:
            await beat.sleep(pause)
            if not self._heartbeat.standing.is_set():
                self._told = None
                continue
            if self._told is not None and self._source.still_for() > 2 * pause:
                continue  # nothing has changed; with the renewals it is told all the same
            vector = self._vector()
            if changed_enough(self._told, vector):
                await self._tell(kv, vector)

    async def _tell(self, kv: KV, vector: LoadVector) -> None:
        try:
            result = await kv.txn([self._heartbeat.guard()], [self._put(vector)])
        except StoreError as error:
            self._told = None
            log.info("load not told: %s", error)
            return
        if not result.succeeded:
            self._heartbeat.fenced()

    def _vector(self) -> LoadVector:
        return self._source.vector(self._watched()).model_copy(update={"unguarded": self._fence.unguarded})

    def _put(self, vector: LoadVector) -> Put:
        self._told = vector
        return Put(self._key, vector.to_json())
