"""Keeps certificates in step with Nodes: who is a node keeps his, who is removed loses it, whatever died when.

A Node whose machine has a certificate is held by a finalizer, so that it goes only when that is worthless. A certificate whose
Node is gone all the same (somebody took the finalizer) is taken back when that is noticed.
"""

import asyncio
import logging

from pydantic import ValidationError

from clip.errors import ClipError
from clip.registry import Registry
from crds import keys
from crds.join import JoinRecord, JoinState
from crds.node import CERTIFICATE_FINALIZER, Node
from store.errors import NotFound, StoreError
from store.informer import Informer
from store.kv import KV
from store.store import Store

log = logging.getLogger(__name__)

GATHER = 0.05  # seconds in which changes are gathered
AGAIN = 600.0  # seconds after which everything is looked at without a change; tokens and revocations end by time
RETRY = 2.0


class Membership:
    """``run`` until cancelled. One per cluster suffices, two do no harm."""

    def __init__(self, kv: KV, registry: Registry) -> None:
        self._kv = kv
        self._store = Store(kv)
        self._registry = registry
        self._nodes = Informer(kv, keys.kind_prefix(Node))
        self._joins = Informer(kv, keys.JOINS)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in (self._nodes, self._joins):
                informer.subscribe(lambda *_: self._changed.set())
                group.create_task(informer.run())
            for informer in (self._nodes, self._joins):
                await informer.synced.wait()
            while True:
                self._changed.clear()
                try:
                    await self.look()
                except (StoreError, ClipError, OSError) as error:
                    log.warning("certificates of removed nodes: trying again: %s", error)
                    self._changed.set()
                    await asyncio.sleep(RETRY)
                await self._wait()

    async def look(self) -> None:
        """At every machine that has a certificate."""
        await self._registry.prune()
        for node in sorted({name for name in map(_holder, [kv.value for kv in self._joins.items.values()]) if name}):
            await self._look_at(node)

    async def _look_at(self, name: str) -> None:
        try:
            node = await self._store.get(Node, name)  # not from the informer: it may not have seen a Node that was just made
        except NotFound:
            taken = await self._registry.dismiss(name)
            log.warning("node %s is gone: its certificates %s are worthless now", name, ", ".join(taken) or "(none)")
            return
        finalizers = node.metadata.finalizers
        if node.metadata.deletion_timestamp is None:
            if CERTIFICATE_FINALIZER not in finalizers:
                await self._store.change(Node, name, None, lambda it: it.metadata.finalizers.append(CERTIFICATE_FINALIZER))
        elif finalizers == [CERTIFICATE_FINALIZER]:
            taken = await self._registry.dismiss(name)
            log.info("node %s is removed: its certificates %s are worthless now", name, ", ".join(taken) or "(none)")
            await self._store.remove_finalizer(node, CERTIFICATE_FINALIZER)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(AGAIN):
                await self._changed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GATHER)


def _holder(value: bytes) -> str | None:
    try:
        record = JoinRecord.model_validate_json(value)
    except ValidationError:
        return None
    return record.node if record.state is JoinState.ISSUED else None
