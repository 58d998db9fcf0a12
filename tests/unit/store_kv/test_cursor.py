"""Where a watch resumes, told by messages alone."""

import pytest

from store.errors import Gone, Invalid, Unavailable
from store.etcd_watch import Cursor, prefix_end
from store.kv import Batch
from store.rpc import etcd_pb2 as pb


def response(header: int, *revisions: int, **fields: object) -> pb.WatchResponse:
    """A response whose events put one key each, at the given revisions."""
    events = [pb.Event(kv=pb.KeyValue(key=f"/{r}".encode(), mod_revision=r, create_revision=r, version=1)) for r in revisions]
    return pb.WatchResponse(header=pb.ResponseHeader(revision=header), events=events, **fields)  # type: ignore[arg-type]


def revisions(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [change.kv.mod_revision for change in batch.changes]


def test_a_header_ahead_of_its_changes_does_not_move_the_resume_point() -> None:
    cursor = Cursor("/", 5)
    batch = cursor.take(response(900, 5, 6))
    assert revisions(batch) == [5, 6]
    assert batch is not None
    assert (batch.revision, cursor.resume) == (6, 7)


def test_created_counts_only_for_a_watch_from_now() -> None:
    asked, now = Cursor("/", 5), Cursor("/", 0)
    assert asked.take(response(900, created=True)) is None
    assert asked.resume == 5
    assert now.take(response(900, created=True)) == Batch(900)
    assert now.resume == 901


def test_created_again_after_a_reconnect_of_a_watch_from_now_counts_not() -> None:
    cursor = Cursor("/", 0)
    cursor.take(response(900, created=True))
    cursor.reconnected()
    assert cursor.take(response(950, created=True)) is None
    assert cursor.resume == 901


def test_progress_moves_the_resume_point_forward_only() -> None:
    cursor = Cursor("/", 5)
    assert cursor.take(response(7)) == Batch(7)
    assert cursor.resume == 8
    assert cursor.take(response(7)) is None
    assert cursor.take(response(3)) is None
    assert cursor.resume == 8


def test_fragments_are_one_batch() -> None:
    cursor = Cursor("/", 5)
    assert cursor.take(response(9, 5, 6, fragment=True)) is None
    assert cursor.resume == 5
    assert revisions(cursor.take(response(9, 7))) == [5, 6, 7]
    assert cursor.resume == 8


def test_a_last_fragment_without_changes_ends_the_batch() -> None:
    cursor = Cursor("/", 5)
    assert cursor.take(response(9, 5, fragment=True)) is None
    assert revisions(cursor.take(response(9))) == [5]
    assert cursor.resume == 6


def test_half_a_response_is_forgotten_on_reconnect() -> None:
    cursor = Cursor("/", 5)
    cursor.take(response(9, 5, 6, fragment=True))
    cursor.reconnected()
    assert revisions(cursor.take(response(9, 5, 6, 7))) == [5, 6, 7]


def test_what_was_seen_is_not_told_again() -> None:
    cursor = Cursor("/", 5)
    cursor.take(response(9, 5, 6))
    assert revisions(cursor.take(response(9, 6, 7))) == [7]
    assert cursor.take(response(9, 7)) is None


@pytest.mark.parametrize("created", [False, True])
@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"compact_revision": 8}, Gone),
        ({"cancel_reason": "etcdserver: permission denied"}, Invalid),
        ({"cancel_reason": "etcdserver: user name is empty"}, Invalid),
        ({"cancel_reason": "etcdserver: no leader"}, Unavailable),
        ({}, Unavailable),
    ],
)
def test_a_cancellation_is_never_overlooked(created: bool, fields: dict[str, object], error: type[Exception]) -> None:
    cursor = Cursor("/", 5)
    with pytest.raises(error, match="watch of /") as raised:
        cursor.take(response(9, canceled=True, created=created, **fields))
    if isinstance(raised.value, Gone):
        assert raised.value.compact_revision == 8
    assert not cursor.heard


def test_the_end_of_a_prefix() -> None:
    assert prefix_end("/mx/") == (b"/mx/", b"/mx0")
    assert prefix_end("") == (b"\0", b"\0")
    assert prefix_end("a\U0010ffff") == (b"a\xf4\x8f\xbf\xbf", b"a\xf4\x8f\xbf\xc0")
