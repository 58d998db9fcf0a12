"""A watch of etcd that goes on for ever: no change lost, none seen twice, whatever happens to the connection.

Where to resume is the whole point. It is (revision of the last change of a *complete* response) + 1. A header's revision may be
ahead of changes that are still under way, so it counts only in progress responses and when the watch began at "now".
Nothing is queued here: a response is read when the consumer asks for it. A slow consumer thus slows the stream down to etcd,
which reads old changes from its disk again; one that is slower than etcd's compaction gets Gone and lists again.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import grpc
import grpc.aio

from store.errors import Gone, Invalid, StoreError, Unavailable
from store.etcd_channel import Channel, Method, Stream, translate
from store.kv import Batch, Change, KeyValue
from store.rpc import etcd_pb2 as pb

log = logging.getLogger(__name__)

WATCH = Method("/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse)
NEED_LEADER = (("hasleader", "true"),)  # a member without quorum then ends the stream instead of staying silent
PROGRESS = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts to resume


def prefix_end(prefix: str) -> tuple[bytes, bytes]:
    """etcd's way to say "all keys below": the first key and the end, which is not included."""
    start = prefix.encode()
    stem = start.rstrip(b"\xff")
    return (start, stem[:-1] + bytes([stem[-1] + 1])) if stem else (b"\0", b"\0")


def key_value(kv: pb.KeyValue) -> KeyValue:
    """From the wire."""
    return KeyValue(kv.key.decode(), kv.value, kv.mod_revision, kv.create_revision, kv.version, kv.lease)


@dataclass(slots=True)
class Cursor:
    """Turns responses into batches and knows where to resume. Pure: it sees messages only.

    ``resume`` is the first revision not yet handed over, 0 while that is not known (a watch from "now"). ``heard`` says whether
    the connection of now has carried a good response.
    """

    prefix: str
    resume: int
    heard: bool = False
    _parts: list[pb.Event] = field(default_factory=list)

    def reconnected(self) -> None:
        """The rest of a half-received response will come again as a whole."""
        self._parts.clear()
        self.heard = False

    def take(self, response: pb.WatchResponse) -> Batch | None:
        """None when the response completes nothing. Raises Gone, Invalid, or Unavailable for a cancellation that may pass."""
        if response.canceled:  # also together with "created"; the stream would stay open and silent
            raise self._cancelled(response)
        self.heard = True
        if response.created:
            return self._begin(response.header.revision)
        if not response.events and not response.fragment and not self._parts:
            return self._progress(response.header.revision)
        self._parts.extend(response.events)
        return None if response.fragment else self._complete()

    def _begin(self, revision: int) -> Batch | None:
        return self._progress(revision) if self.resume == 0 else None

    def _progress(self, revision: int) -> Batch | None:
        if revision < self.resume:
            return None
        self.resume = revision + 1
        return Batch(revision)

    def _complete(self) -> Batch | None:
        fresh = [event for event in self._parts if event.kv.mod_revision >= self.resume]
        self._parts.clear()
        if not fresh:
            return None
        revision = fresh[-1].kv.mod_revision
        self.resume = revision + 1
        return Batch(revision, tuple(Change(key_value(event.kv), event.type == pb.Event.DELETE) for event in fresh))

    def _cancelled(self, response: pb.WatchResponse) -> Gone | Invalid | Unavailable:
        reason = response.cancel_reason or "cancelled by etcd"
        if response.compact_revision:
            return Gone(
                f"watch of {self.prefix} from revision {self.resume}: compacted up to {response.compact_revision}, list again",
                response.compact_revision,
            )
        if any(word in reason for word in ("permission denied", "user name is empty", "auth")):
            return Invalid(f"watch of {self.prefix}: {reason}: this certificate's user has no right to do that")
        return Unavailable(f"watch of {self.prefix}: {reason}")


async def watch(channel: Channel, prefix: str, revision: int, *, progress: float) -> AsyncGenerator[Batch, None]:
    """Batches from ``revision`` on. Asks for progress after ``progress`` seconds of silence.

    Raises Gone, Invalid (denied), and Unavailable only when this process closed the channel.
    """
    cursor = Cursor(prefix, revision)
    pause = FIRST_PAUSE
    while True:
        try:
            async with aclosing(_stream(channel, cursor, progress)) as batches:
                async for batch in batches:
                    yield batch
        except Unavailable as error:
            if channel.closed:
                raise
            pause = FIRST_PAUSE if cursor.heard else pause
            level = logging.WARNING if cursor.heard or pause == FIRST_PAUSE else logging.DEBUG  # once an outage is enough
            log.log(level, "%s; resuming from revision %d", error, cursor.resume)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 2, LONGEST_PAUSE)


async def _stream(channel: Channel, cursor: Cursor, progress: float) -> AsyncGenerator[Batch, None]:
    """One connection's stretch of the watch. Raises Unavailable at its end."""
    cursor.reconnected()
    call = channel.stream(WATCH, metadata=NEED_LEADER)
    try:
        await _write(call, _create(cursor), cursor)
        while True:
            response = await _read(call, cursor, progress)
            batch = cursor.take(response)
            if batch is not None:
                yield batch
    finally:
        call.cancel()


def _create(cursor: Cursor) -> pb.WatchRequest:
    start, end = prefix_end(cursor.prefix)
    create = pb.WatchCreateRequest(key=start, range_end=end, start_revision=cursor.resume, progress_notify=True, fragment=True)
    return pb.WatchRequest(create_request=create)


async def _write(call: Stream[pb.WatchRequest, pb.WatchResponse], request: pb.WatchRequest, cursor: Cursor) -> None:
    try:
        await call.write(request)
    except grpc.aio.AioRpcError as error:
        raise translate(error, f"watch of {cursor.prefix}") from error
    except asyncio.InvalidStateError:
        return  # the stream has ended; reading it says why


async def _read(call: Stream[pb.WatchRequest, pb.WatchResponse], cursor: Cursor, progress: float) -> pb.WatchResponse:
    """The next response. Reading runs in a task of its own, because to time it out would be to cancel the stream."""
    reading: asyncio.Future[object] = asyncio.ensure_future(call.read())
    try:
        while not reading.done():
            done, _ = await asyncio.wait({reading}, timeout=progress)
            if not done:
                with suppress(StoreError):  # reading says it, too
                    await _write(call, PROGRESS, cursor)
        return _answer(reading, cursor)
    finally:
        reading.cancel()


def _answer(reading: "asyncio.Future[object]", cursor: Cursor) -> pb.WatchResponse:
    if reading.cancelled():
        raise Unavailable(f"watch of {cursor.prefix}: the connection was closed by this process")
    error = reading.exception()
    if isinstance(error, grpc.aio.AioRpcError):
        raise translate(error, f"watch of {cursor.prefix}") from error
    response = reading.result()
    if not isinstance(response, pb.WatchResponse):  # grpc.aio.EOF
        raise Unavailable(f"watch of {cursor.prefix}: etcd ended the stream")
    return response
