"""``EtcdKV``: the seam on real etcd, over gRPC, with no client package in between.

The packaged clients lose changes or hang when a connection breaks; docs/design tells what was measured. This layer is thin: the
messages are generated from our own small .proto, the failures are handled in etcd_channel.py and etcd_watch.py.
"""

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from store.errors import Gone, NotFound
from store.etcd_channel import DEFAULT_KEEP_ALIVE, Channel, KeepAlive, Method, Tls
from store.etcd_lease import Renewals
from store.etcd_watch import key_value, prefix_end, watch
from store.kv import Batch, Compare, Delete, Get, KeyValue, Op, Page, Put, Target, TxnResult
from store.limits import check_lease, check_txn
from store.rpc import etcd_pb2 as pb

RANGE = Method("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", pb.CompactionRequest, pb.CompactionResponse)
GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse)
REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", pb.StatusRequest, pb.StatusResponse)

LIST_ATTEMPTS = 3  # a list of "now" starts over when its revision is compacted between two pages


@dataclass(frozen=True, slots=True)
class Status:
    """The answering member: ``version`` such as 3.5.33, database size in bytes, alarms and other errors."""

    version: str
    size: int
    has_leader: bool
    errors: tuple[str, ...]


class EtcdKV:
    """One process's connection to etcd; share it. Nothing connects before the first call, and no call blocks for ever."""

    def __init__(self, channel: Channel, *, page: int = 500, progress: float = 60.0) -> None:
        self.channel = channel
        self._renewals = Renewals(channel)
        self._page = page
        self._progress = progress

    @classmethod
    def connect(
        cls,
        endpoints: Sequence[str],
        *,
        timeout: float = 5.0,
        tls: Tls | None = None,
        page: int = 500,
        progress: float = 60.0,
        keep_alive: KeepAlive = DEFAULT_KEEP_ALIVE,
    ) -> "EtcdKV":
        """Endpoints are ``address:port``. Times in seconds: ``timeout`` ends each call but a watch, and a watch that hears
        nothing for ``progress`` asks how far it is. ``page`` is the number of keys fetched at once. Raises Invalid."""
        return cls(Channel(endpoints, timeout=timeout, tls=tls, keep_alive=keep_alive), page=page, progress=progress)

    async def get(self, key: str) -> KeyValue | None:
        check_txn((), (Get(key),), ())
        answer = await self.channel.call(RANGE, pb.RangeRequest(key=key.encode()), key)
        return key_value(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str, *, revision: int = 0) -> Page:
        for _ in range(LIST_ATTEMPTS - 1):
            try:
                return await self._list(prefix, revision)
            except Gone:
                if revision:
                    raise
        return await self._list(prefix, revision)

    async def txn(self, when: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        check_txn(when, then, otherwise)
        request = pb.TxnRequest(
            compare=[_compare(part) for part in when],
            success=[_operation(part) for part in then],
            failure=[_operation(part) for part in otherwise],
        )
        answer = await self.channel.call(TXN, request, _subject(when, then, otherwise))
        ranges = [part.response_range for part in answer.responses if part.WhichOneof("response") == "response_range"]
        gets = tuple(key_value(found.kvs[0]) if found.kvs else None for found in ranges)
        return TxnResult(answer.succeeded, answer.header.revision, gets)

    def watch(self, prefix: str, *, revision: int) -> AsyncGenerator[Batch, None]:
        return watch(self.channel, prefix, revision, progress=self._progress)

    async def grant(self, ttl: float) -> int:
        check_lease(ttl)
        return (await self.channel.call(GRANT, pb.LeaseGrantRequest(TTL=math.ceil(ttl)), f"of {ttl} s")).ID

    async def keep_alive(self, lease: int) -> float:
        return await self._renewals.renew(lease)

    async def revoke(self, lease: int) -> None:
        try:
            await self.channel.call(REVOKE, pb.LeaseRevokeRequest(ID=lease), f"of lease {lease:x}")
        except NotFound:
            return  # it has ended already, which is what was asked for

    async def compact(self, revision: int) -> None:
        """Forgets all history before ``revision``. Raises Gone when that is done already."""
        await self.channel.call(COMPACT, pb.CompactionRequest(revision=revision), f"up to revision {revision}")

    async def status(self) -> Status:
        """Of the member that answers. Raises Unavailable."""
        answer = await self.channel.call(STATUS, pb.StatusRequest(), "of the member")
        return Status(answer.version, answer.db_size, answer.leader != 0, tuple(answer.errors))

    async def close(self) -> None:
        await self.channel.close()

    async def _list(self, prefix: str, revision: int) -> Page:
        """All pages at the revision of the first."""
        start, end = prefix_end(prefix)
        items: list[KeyValue] = []
        while True:
            request = pb.RangeRequest(key=start, range_end=end, limit=self._page, revision=revision)
            answer = await self.channel.call(RANGE, request, f"below {prefix}")
            revision = revision or answer.header.revision
            items.extend(map(key_value, answer.kvs))
            if not answer.more:
                return Page(tuple(items), revision)
            start = answer.kvs[-1].key + b"\0"


def _compare(compare: Compare) -> pb.Compare:
    result = pb.Compare.EQUAL if compare.op == "==" else pb.Compare.NOT_EQUAL
    key, number = compare.key.encode(), compare.number
    match compare.target:
        case Target.MOD:
            return pb.Compare(result=result, target=pb.Compare.MOD, key=key, mod_revision=number)
        case Target.CREATE:
            return pb.Compare(result=result, target=pb.Compare.CREATE, key=key, create_revision=number)
        case Target.VERSION:
            return pb.Compare(result=result, target=pb.Compare.VERSION, key=key, version=number)


def _operation(operation: Op) -> pb.RequestOp:
    key = operation.key.encode()
    match operation:
        case Put():
            return pb.RequestOp(request_put=pb.PutRequest(key=key, value=operation.value, lease=operation.lease))
        case Delete():
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
        case Get():
            return pb.RequestOp(request_range=pb.RangeRequest(key=key))


def _subject(when: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]) -> str:
    """The first key stands for the transaction in messages."""
    return next((part.key for part in (*then, *otherwise, *when)), "of nothing")
