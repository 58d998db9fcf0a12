"""Addresses, options and the meaning of gRPC's errors."""

import grpc
import grpc.aio
import pytest

from store.errors import Gone, Invalid, NotFound, StoreError, Unavailable
from store.etcd_channel import DEFAULT_KEEP_ALIVE, RightsChanged, channel_options, target, translate

CODE = grpc.StatusCode


@pytest.mark.parametrize(
    ("endpoints", "name"),
    [
        (["10.0.0.1:2379"], "ipv4:10.0.0.1:2379"),
        (["10.0.0.1:2379", "10.0.0.2:2379"], "ipv4:10.0.0.1:2379,10.0.0.2:2379"),
        (["[fd00::1]:2379"], "ipv6:[fd00::1]:2379"),
        (["head.cluster:2379"], "dns:///head.cluster:2379"),
    ],
)
def test_the_name_of_any_of_the_endpoints(endpoints: list[str], name: str) -> None:
    assert target(endpoints) == name


@pytest.mark.parametrize(
    "endpoints",
    [[], ["10.0.0.1"], [":2379"], ["10.0.0.1:http"], ["http://10.0.0.1:x"], ["a:1", "b:1"], ["10.0.0.1:1", "[::1]:1"]],
)
def test_endpoints_that_cannot_be(endpoints: list[str]) -> None:
    with pytest.raises(Invalid, match="etcd endpoint"):
        target(endpoints)


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (CODE.UNAVAILABLE, "connection refused", Unavailable),
        (CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", Unavailable),
        (CODE.CANCELLED, "", Unavailable),
        (CODE.UNKNOWN, "?", Unavailable),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Unavailable),
        (CODE.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", Unavailable),
        (CODE.RESOURCE_EXHAUSTED, "grpc: received message larger than max (4 vs. 2)", Invalid),
        (CODE.INVALID_ARGUMENT, "etcdserver: request is too large", Invalid),
        (CODE.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", Invalid),
        (CODE.PERMISSION_DENIED, "etcdserver: permission denied", Invalid),
        (CODE.UNAUTHENTICATED, "etcdserver: invalid auth token", Invalid),
        (CODE.UNIMPLEMENTED, "unknown service", Invalid),
        (CODE.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", Gone),
        (CODE.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision", Invalid),
        (CODE.NOT_FOUND, "etcdserver: requested lease not found", NotFound),
    ],
)
def test_what_an_error_means(code: grpc.StatusCode, details: str, error: type[StoreError]) -> None:
    failed = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details + "\nmore")
    meant = translate(failed, "etcd Txn /a")
    assert type(meant) is error
    assert str(meant).startswith("etcd Txn /a: ")
    assert "\n" not in str(meant)


def test_a_dead_peer_is_given_up_in_time() -> None:
    options = dict(channel_options(DEFAULT_KEEP_ALIVE))
    assert options["grpc.keepalive_time_ms"] == 10_000
    assert options["grpc.keepalive_timeout_ms"] == options["grpc.http2.ping_timeout_ms"] == 5_000
    assert options["grpc.http2.max_pings_without_data"] == options["grpc.keepalive_permit_without_calls"] == 0


def test_a_change_of_rights_is_told_from_a_lack_of_them() -> None:
    old = grpc.aio.AioRpcError(CODE.INVALID_ARGUMENT, grpc.aio.Metadata(), grpc.aio.Metadata(), details=_OLD)
    assert type(translate(old, "etcd Txn /a")) is RightsChanged


_OLD = "etcdserver: revision of auth store is old"
