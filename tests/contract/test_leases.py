"""Leases as the server sees them; sessions are in test_sessions.py."""

import pytest

from store.errors import Invalid, NotFound
from store.kv import Put
from tests.contract.conftest import Backend, Reader, eventually

TTL = 1.0


async def test_keys_vanish_with_their_lease(backend: Backend, prefix: str) -> None:
    lease = await backend.kv.grant(TTL)
    put = await backend.kv.txn([], [Put(prefix + "a", b"1", lease), Put(prefix + "b", b"1", lease), Put(prefix + "c", b"1")])
    reader = Reader(backend.kv, prefix, put.revision + 1)
    await backend.pass_time(2 * TTL)
    assert await reader.until(2) == [("a", None), ("b", None)]
    assert len({batch.revision for batch in reader.batches if batch.changes}) == 1
    assert [kv.key for kv in (await backend.kv.list(prefix)).items] == [prefix + "c"]
    await reader.stop()


async def test_a_renewed_lease_stays(backend: Backend, prefix: str) -> None:
    lease = await backend.kv.grant(2 * TTL)
    await backend.kv.txn([], [Put(prefix + "a", b"1", lease)])
    for _ in range(4):
        await backend.pass_time(0.7 * TTL)
        assert await backend.kv.keep_alive(lease) == 2 * TTL
    assert await backend.kv.get(prefix + "a") is not None


async def test_renewing_a_lost_lease_says_zero(backend: Backend) -> None:
    lease = await backend.kv.grant(TTL)
    await backend.kv.revoke(lease)
    assert await backend.kv.keep_alive(lease) == 0
    assert await backend.kv.keep_alive(4711) == 0


async def test_an_expired_lease_is_lost(backend: Backend, prefix: str) -> None:
    lease = await backend.kv.grant(TTL)
    await backend.kv.txn([], [Put(prefix + "a", b"1", lease)])
    await backend.pass_time(TTL)

    async def vanished() -> bool:
        return await backend.kv.get(prefix + "a") is None

    await eventually(vanished)
    assert await backend.kv.keep_alive(lease) == 0
    with pytest.raises(NotFound):
        await backend.kv.txn([], [Put(prefix + "a", b"1", lease)])


async def test_revoking_deletes_the_keys_and_may_be_repeated(backend: Backend, prefix: str) -> None:
    lease = await backend.kv.grant(60)
    await backend.kv.txn([], [Put(prefix + "a", b"1", lease)])
    await backend.kv.revoke(lease)
    await backend.kv.revoke(lease)
    assert await backend.kv.get(prefix + "a") is None


async def test_a_key_belongs_to_the_lease_of_its_last_write(backend: Backend, prefix: str) -> None:
    first, second = await backend.kv.grant(60), await backend.kv.grant(60)
    assert first != second
    await backend.kv.txn([], [Put(prefix + key, b"1", first) for key in "ab"])
    await backend.kv.txn([], [Put(prefix + "a", b"2"), Put(prefix + "b", b"2", second)])
    await backend.kv.revoke(first)
    items = (await backend.kv.list(prefix)).items
    assert [(kv.value, kv.lease) for kv in items] == [(b"2", 0), (b"2", second)]


async def test_a_lease_needs_a_time_to_live(backend: Backend) -> None:
    with pytest.raises(Invalid):
        await backend.kv.grant(0)
