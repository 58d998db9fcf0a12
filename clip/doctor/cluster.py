"""Collects what etcd and the agents say. What cannot be read is left out; an etcd that does not answer is a fact, too."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from pydantic import ValidationError

from clip.doctor.model import EtcdFacts, Facts, NodeFacts
from crds import keys
from crds.cluster import Cluster, NetworkSpec
from crds.image import Image
from crds.join import JoinRecord
from crds.load import Alive, LoadVector
from crds.machine import Machine
from crds.meta import Model
from crds.node import Node
from store.errors import StoreError
from store.etcd import EtcdKV
from store.kv import KV
from store.rights import EtcdRights
from store.store import Store

log = logging.getLogger(__name__)

CLOCK_SECONDS = 4.5
"""Agents write their load every three seconds at least, with the time of the sample."""
Read = TypeVar("Read", bound=Model)


async def collect(kv: KV, now: Callable[[], datetime], *, clocks: float = CLOCK_SECONDS) -> Facts:
    """Takes ``clocks`` seconds when there are nodes; each call has the time-out of the connection."""
    try:
        return await _collect(kv, now, clocks)
    except StoreError as error:
        return Facts(now=now(), etcd=EtcdFacts(error=str(error)))


async def _collect(kv: KV, now: Callable[[], datetime], clocks: float) -> Facts:
    store = Store(kv)
    etcd, leader = await _etcd(kv), await kv.get(keys.LEADER)
    nodes = (await store.list(Node)).items
    clusters = (await store.list(Cluster)).items
    alive, loads = await _reports(kv)
    ahead = await _clocks(kv, now, set(alive) & {node.name for node in nodes}, clocks)
    return Facts(
        now=now(),
        etcd=etcd,
        leader=leader.value.decode(errors="replace") if leader else None,
        network=clusters[0].spec.network if clusters else NetworkSpec(),
        nodes=tuple(NodeFacts(node, alive.get(node.name), loads.get(node.name), ahead.get(node.name)) for node in nodes),
        images=tuple((await store.list(Image)).items),
        machines=tuple(_read(Machine, [item.value for item in (await kv.list(keys.MACHINES)).items])),
        joins=tuple(_read(JoinRecord, [item.value for item in (await kv.list(keys.JOINS)).items])),
    )


async def _etcd(kv: KV) -> EtcdFacts:
    if not isinstance(kv, EtcdKV):
        return EtcdFacts(version="none: a store in memory")
    status = await kv.status()
    secured = None
    with contextlib.suppress(StoreError):  # before 3.5 it cannot be asked
        secured = await EtcdRights(kv.channel).enabled()
    return EtcdFacts(version=status.version, size=status.size, errors=status.errors, secured=secured)


async def _reports(kv: KV) -> tuple[dict[str, Alive], dict[str, LoadVector]]:
    alive: dict[str, Alive] = {}
    loads: dict[str, LoadVector] = {}
    for item in (await kv.list(keys.NODES)).items:
        _, node, *what = keys.parts(item.key)
        if what == ["alive"]:
            alive.update((node, one) for one in _read(Alive, [item.value]))
        elif what == ["load"]:
            loads.update((node, one) for one in _read(LoadVector, [item.value]))
    return alive, loads


async def _clocks(kv: KV, now: Callable[[], datetime], nodes: set[str], seconds: float) -> dict[str, float]:
    """Of every node that tells its load meanwhile: the time it says, less ours when we hear it. A late message makes it look
    behind, so of several the one that looks least behind counts."""
    ahead: dict[str, float] = {}
    if not nodes:
        return ahead
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), contextlib.aclosing(kv.watch(keys.NODES, revision=0)) as batches:
            async for batch in batches:
                for change in batch.changes:
                    node = _speaker(change.kv.key)
                    if node not in nodes or change.deleted:
                        continue
                    for vector in _read(LoadVector, [change.kv.value]):
                        told = (vector.time - now()).total_seconds()
                        ahead[node] = max(told, ahead.get(node, told))
                if set(ahead) == nodes:
                    break
    return ahead


def _speaker(key: str) -> str:
    """The node whose load this is; "" when it is something else."""
    words = keys.parts(key)
    return words[1] if len(words) == 3 and words[2] == "load" else ""


def _read(kind: type[Read], values: Sequence[bytes]) -> list[Read]:
    found = []
    for value in values:
        try:
            found.append(kind.model_validate_json(value))
        except ValidationError as error:
            log.debug("left out: %s", error)
    return found
