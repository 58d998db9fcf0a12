"""Renewals of leases over one stream that stays open: to open one costs an agent at rest more than the renewal itself.

Answers come in the order of the questions. So a stream on which anything went wrong, or somebody stopped waiting, is never used
again: its next answer might be that to an older question.
"""

import asyncio
import logging

import grpc.aio

from store.errors import Unavailable
from store.etcd_channel import Channel, Method, Stream, translate
from store.rpc import etcd_pb2 as pb

log = logging.getLogger(__name__)

KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse)
Renewing = Stream[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]


class Renewals:
    """Of one connection to etcd."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._open: Renewing | None = None
        self._turn = asyncio.Lock()

    async def renew(self, lease: int) -> float:
        """Seconds that it has left; 0: there is none. Raises StoreError."""
        subject = f"keep-alive of lease {lease:x}"
        try:
            async with asyncio.timeout(self._channel.timeout), self._turn:
                return await self._renew(lease, subject)
        except TimeoutError as error:
            raise Unavailable(f"{subject}: no answer within {self._channel.timeout:g} s") from error

    async def _renew(self, lease: int, subject: str) -> float:
        stream, self._open = self._open, None
        if stream is not None and not stream.done():
            try:
                return await self._ask(stream, lease, subject)
            except Unavailable as error:
                log.debug("asking on a new stream: %s", error)
        return await self._ask(self._channel.stream(KEEP_ALIVE), lease, subject)

    async def _ask(self, stream: Renewing, lease: int, subject: str) -> float:
        answered = False
        try:
            await stream.write(pb.LeaseKeepAliveRequest(ID=lease))
            answer = await stream.read()
            answered = isinstance(answer, pb.LeaseKeepAliveResponse)
        except grpc.aio.AioRpcError as error:
            raise translate(error, subject) from error
        except asyncio.InvalidStateError as error:
            raise Unavailable(f"{subject}: the stream ended before the question was sent") from error
        except asyncio.CancelledError:
            self._channel.explain_cancellation()
            raise
        finally:
            if answered:
                self._open = stream
            else:
                stream.cancel()
        if not isinstance(answer, pb.LeaseKeepAliveResponse):  # grpc.aio.EOF
            raise Unavailable(f"{subject}: etcd ended the stream without an answer")
        return max(answer.TTL, 0)
