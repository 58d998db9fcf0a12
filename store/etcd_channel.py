"""One gRPC channel to etcd: its options, its calls with their time-outs, and what its errors mean to us.

Only this file and etcd_watch.py know gRPC. The channel is made on first use, so that a process can start while etcd is down, and
is made anew when the certificate files have changed, because gRPC reads them only once.
"""

import asyncio
import ipaddress
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import grpc
import grpc.aio

from store.errors import Gone, Invalid, NotFound, StoreError, Unavailable

log = logging.getLogger(__name__)


class Message(Protocol):
    """What we need of a protobuf message."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)
Stream = grpc.aio.StreamStreamCall[Request, Answer]


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Answer]):
    """A method of etcd, by its path on the wire, and the messages it takes and gives."""

    path: str
    request: type[Request]
    answer: type[Answer]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. ``server_name`` is the name in etcd's certificate, when it is not the address we connect to."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    @classmethod
    def of(cls, directory: Path, holder: str) -> "Tls":
        """DIRECTORY/ca.crt, DIRECTORY/<holder>.crt and DIRECTORY/<holder>.key: as agents and the head's services have them."""
        return cls(directory / "ca.crt", directory / f"{holder}.crt", directory / f"{holder}.key")

    def stamp(self) -> tuple[int, ...]:
        """Changes when a file was written anew. A missing one counts as 0: it may be about to be replaced."""
        files = [path for path in (self.ca, self.certificate, self.key) if path]
        return tuple(_changed(path) for path in files)

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises Invalid."""
        try:
            parts = [path.read_bytes() if path else None for path in (self.ca, self.key, self.certificate)]
        except OSError as error:
            raise Invalid(f"cannot read the certificate file {error.filename}: {error.strerror}") from error
        return grpc.ssl_channel_credentials(*parts)


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """After ``idle`` s of silence the peer is asked for a sign of life, and is given up ``patience`` s later."""

    idle: float = 10.0
    patience: float = 5.0


DEFAULT_KEEP_ALIVE = KeepAlive()


def _changed(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - before each call
    except FileNotFoundError:
        return 0


class Channel:
    """Calls etcd. Every call ends within ``timeout`` seconds."""

    def __init__(self, endpoints: Sequence[str], *, timeout: float, tls: Tls | None, keep_alive: KeepAlive) -> None:
        self.timeout = timeout
        self.closed = False
        self._target = target(endpoints)
        self._tls = tls
        self._keep_alive = keep_alive
        self._stamp: tuple[int, ...] = ()
        self._channel: grpc.aio.Channel | None = None
        self._retired: set[asyncio.Task[None]] = set()

    async def call(self, method: Method[Request, Answer], request: Request, subject: str) -> Answer:
        """One question, one answer. ``subject`` says in error messages what the call was about. Raises StoreError."""
        for _ in range(AUTH_ATTEMPTS - 1):
            try:
                return await self._call(method, request, subject)
            except RightsChanged as error:
                log.debug("asking again: %s", error)
        return await self._call(method, request, subject)

    async def _call(self, method: Method[Request, Answer], request: Request, subject: str) -> Answer:
        unary = self._open().unary_unary(
            method.path, request_serializer=method.request.SerializeToString, response_deserializer=_reader(method)
        )
        try:
            return await unary(request, timeout=self.timeout)
        except grpc.aio.AioRpcError as error:
            raise translate(error, f"{_name(method)} {subject}") from error
        except asyncio.CancelledError:
            self.explain_cancellation()
            raise

    def stream(
        self, method: Method[Request, Answer], *, timeout: float | None = None, metadata: Sequence[tuple[str, str]] = ()
    ) -> Stream[Request, Answer]:
        """Opens a stream. The caller reads, translates the errors and cancels it. Raises Unavailable when closed."""
        stream: grpc.aio.StreamStreamMultiCallable[Request, Answer] = self._open().stream_stream(
            method.path, request_serializer=method.request.SerializeToString, response_deserializer=_reader(method)
        )
        return stream(timeout=timeout, metadata=tuple(metadata))

    async def close(self) -> None:
        """Ends all calls and streams."""
        self.closed = True
        for retired in self._retired:
            retired.cancel()
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> grpc.aio.Channel:
        self._raise_if_closed()
        stamp = self._tls.stamp() if self._tls else ()
        if self._channel is not None and stamp == self._stamp:
            return self._channel
        try:
            channel = self._make()
        except Invalid as error:
            if self._channel is None:
                raise
            log.warning("keeping the connection with the old certificate: %s", error)
            return self._channel
        if self._channel is not None:
            self._retire(self._channel)
        self._channel, self._stamp = channel, stamp
        return channel

    def _retire(self, channel: grpc.aio.Channel) -> None:
        """Calls under way end on it; watches are cut then, and resume on the one that we have by now."""
        closing = asyncio.create_task(channel.close(grace=self.timeout + 1))
        self._retired.add(closing)
        closing.add_done_callback(self._retired.discard)

    def _make(self) -> grpc.aio.Channel:
        options = channel_options(self._keep_alive)
        if self._tls is None:
            return grpc.aio.insecure_channel(self._target, options=options)
        if self._tls.server_name:
            options.append(("grpc.ssl_target_name_override", self._tls.server_name))
        return grpc.aio.secure_channel(self._target, self._tls.credentials(), options=options)

    def explain_cancellation(self) -> None:
        """Closing cancels calls, and so does who cancels our task, perhaps both: only the first is an error of the connection.

        Raises Unavailable for that; who was cancelled must end."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self.closed:
            raise Unavailable("etcd: the connection was closed by this process")


def channel_options(keep_alive: KeepAlive) -> list[tuple[str, int | str]]:
    """Each was paid for; see docs/design on the store."""
    idle, patience = int(keep_alive.idle * 1000), int(keep_alive.patience * 1000)
    return [
        ("grpc.keepalive_time_ms", idle),
        ("grpc.keepalive_timeout_ms", patience),
        ("grpc.http2.ping_timeout_ms", patience),  # without it a dead peer is noticed after 69 s
        ("grpc.http2.max_pings_without_data", 0),  # a quiet watch must keep asking
        ("grpc.keepalive_permit_without_calls", 0),  # else etcd hangs up: too_many_pings
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 5000),  # is the time-out of connecting, too
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.http2.bdp_probe", 0),  # else every answer is followed by a ping: half of what a quiet agent sends
        ("grpc.http2.lookahead_bytes", 4 << 20),  # what those pings would find out
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.use_local_subchannel_pool", 1),  # a channel's failures are its own
        ("grpc.enable_http_proxy", 0),  # the cluster is never behind a proxy meant for the web
    ]


def target(endpoints: Sequence[str]) -> str:
    """gRPC's name for "any of these". Each is ``address:port``; a single one may be a host name. Raises Invalid."""
    kinds = {_kind(endpoint) for endpoint in endpoints}
    if len(kinds) != 1 or (kinds == {"dns"} and len(endpoints) > 1):
        raise Invalid(f"etcd endpoints {', '.join(endpoints) or '(none)'}: give one name or several addresses of one family")
    kind = kinds.pop()
    return f"dns:///{endpoints[0]}" if kind == "dns" else f"{kind}:{','.join(endpoints)}"


def _kind(endpoint: str) -> str:
    host, colon, port = endpoint.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise Invalid(f"etcd endpoint {endpoint!r}: write it as address:port")
    try:
        return f"ipv{ipaddress.ip_address(host.strip('[]')).version}"
    except ValueError:
        return "dns"


AUTH_ATTEMPTS = 20


class RightsChanged(Unavailable):
    """Somebody's rights were changed between the question and its turn; etcd has done nothing then, so it may be asked again."""


_DENIED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
_WRONG = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
)


def translate(error: grpc.aio.AioRpcError, subject: str) -> StoreError:
    """The error of our own that says the same. Whatever is not known to be final counts as Unavailable."""
    code, details = error.code(), (error.details() or "").replace("\n", " ")
    text = f"{subject}: {details or code.name}"
    if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in details:
        return Gone(f"{text}: list again")
    if "revision of auth store is old" in details:
        return RightsChanged(f"{text}: try again")
    if "too large" in details or "larger than max" in details:
        return Invalid(f"{text}: make the value smaller or split the transaction")
    if "space exceeded" in details:
        return Unavailable(f"{text}: etcd's database is full; compact and defragment it, then disarm the alarm")
    if code in _DENIED:
        return Invalid(f"{text}: this certificate's user has no right to do that")
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFound(text)
    if code in _WRONG:
        return Invalid(text)
    return Unavailable(f"{text} ({code.name})")


def _name(method: Method[Request, Answer]) -> str:
    return "etcd " + method.path.rpartition("/")[2]


def _reader(method: Method[Request, Answer]) -> "type[Answer]":
    return method.answer.FromString  # type: ignore[attr-defined,no-any-return]
