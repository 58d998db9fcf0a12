"""Reading, writing, transactions, lists and limits."""

import pytest

from store.errors import Gone, Invalid, NotFound
from store.kv import MAX_OPERATIONS, MAX_VALUE, Compare, Delete, Get, Put, Target, absent, unchanged
from tests.contract.conftest import Backend


async def test_an_absent_key_is_none(backend: Backend, prefix: str) -> None:
    assert await backend.kv.get(prefix + "nothing") is None


async def test_a_key_carries_its_revisions(backend: Backend, prefix: str) -> None:
    first = await backend.kv.txn([], [Put(prefix + "a", b"1")])
    second = await backend.kv.txn([], [Put(prefix + "a", b"2")])
    kv = await backend.kv.get(prefix + "a")
    assert kv is not None
    assert (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) == (
        prefix + "a",
        b"2",
        first.revision,
        second.revision,
        2,
        0,
    )


async def test_a_key_made_anew_starts_over(backend: Backend, prefix: str) -> None:
    await backend.kv.txn([], [Put(prefix + "a", b"1")])
    await backend.kv.txn([], [Delete(prefix + "a")])
    again = await backend.kv.txn([absent(prefix + "a")], [Put(prefix + "a", b"2")])
    kv = await backend.kv.get(prefix + "a")
    assert again.succeeded
    assert kv is not None
    assert (kv.create_revision, kv.version) == (again.revision, 1)


async def test_compare_and_set_lets_one_writer_win(backend: Backend, prefix: str) -> None:
    made = await backend.kv.txn([absent(prefix + "a")], [Put(prefix + "a", b"1")])
    won = await backend.kv.txn([unchanged(prefix + "a", made.revision)], [Put(prefix + "a", b"2")])
    lost = await backend.other.txn(
        [unchanged(prefix + "a", made.revision)], [Put(prefix + "a", b"3")], [Get(prefix + "a"), Get(prefix + "b")]
    )
    assert (made.succeeded, won.succeeded, lost.succeeded) == (True, True, False)
    assert lost.gets[0] is not None
    assert (lost.gets[0].value, lost.gets[1]) == (b"2", None)
    assert lost.revision >= won.revision


@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("op", ["==", "!="])
async def test_compares_of_a_present_and_an_absent_key(backend: Backend, prefix: str, target: Target, op: "str") -> None:
    made = await backend.kv.txn([], [Put(prefix + "a", b"1")])
    number = 1 if target is Target.VERSION else made.revision
    equal = op == "=="

    async def holds(key: str, number: int) -> bool:
        return (await backend.kv.txn([Compare(prefix + key, target, number, "==" if equal else "!=")], [])).succeeded

    assert await holds("a", number) is equal
    assert await holds("a", number + 1) is not equal
    assert await holds("b", 0) is equal
    assert await holds("b", 1) is not equal


async def test_all_compares_must_hold(backend: Backend, prefix: str) -> None:
    await backend.kv.txn([], [Put(prefix + "a", b"1")])
    result = await backend.kv.txn([absent(prefix + "b"), absent(prefix + "a")], [Put(prefix + "b", b"1")])
    assert not result.succeeded
    assert await backend.kv.get(prefix + "b") is None


async def test_a_transaction_is_one_revision_and_sees_its_own_writes(backend: Backend, prefix: str) -> None:
    await backend.kv.txn([], [Put(prefix + "a", b"1"), Put(prefix + "c", b"1")])
    before = Get(prefix + "a")
    result = await backend.kv.txn(
        [], [before, Put(prefix + "a", b"2"), Put(prefix + "b", b"1"), Delete(prefix + "c"), before, Get(prefix + "c")]
    )
    old, new, gone = result.gets
    page = await backend.kv.list(prefix)
    assert old is not None
    assert new is not None
    assert (old.value, new.value, gone) == (b"1", b"2", None)
    assert {kv.mod_revision for kv in page.items} == {result.revision}


async def test_reading_and_deleting_nothing_make_no_revision(backend: Backend, prefix: str) -> None:
    made = await backend.kv.txn([], [Put(prefix + "a", b"1")])
    nothing = await backend.kv.txn([], [Delete(prefix + "b"), Delete(prefix + "b"), Get(prefix + "a")])
    assert nothing.succeeded
    assert nothing.revision == made.revision


async def test_a_list_is_sorted_whole_and_of_its_prefix_only(backend: Backend, prefix: str) -> None:
    names = ["a", "a/b", "aa", "b", "z", "é", "€", "😀"]
    for name in reversed(names):
        await backend.kv.txn([], [Put(prefix + name, name.encode())])
    await backend.kv.txn([], [Put(prefix[:-1] + "0", b"next door")])
    page = await backend.kv.list(prefix)
    assert [kv.key.removeprefix(prefix) for kv in page.items] == names
    assert [kv.value.decode() for kv in page.items] == names
    assert page.revision >= max(kv.mod_revision for kv in page.items)


async def test_an_empty_list_has_a_revision(backend: Backend, prefix: str) -> None:
    made = await backend.kv.txn([], [Put(prefix + "a", b"1")])
    page = await backend.kv.list(prefix + "b/")
    assert (page.items, page.revision) == ((), made.revision)


async def test_a_list_of_the_past(backend: Backend, prefix: str) -> None:
    for name in "abcde":
        await backend.kv.txn([], [Put(prefix + name, b"1")])
    past = await backend.kv.list(prefix)
    await backend.kv.txn([], [Put(prefix + "a", b"2"), Delete(prefix + "b"), Put(prefix + "f", b"2")])
    assert await backend.kv.list(prefix, revision=past.revision) == past
    assert [kv.value for kv in (await backend.kv.list(prefix)).items] == [b"2", b"1", b"1", b"1", b"2"]


async def test_a_list_of_the_compacted_past_is_gone(backend: Backend, prefix: str) -> None:
    first = await backend.kv.txn([], [Put(prefix + "a", b"1")])
    second = await backend.kv.txn([], [Put(prefix + "a", b"2"), Put(prefix + "b", b"2")])
    third = await backend.kv.txn([], [Delete(prefix + "b")])
    await backend.compact(second.revision)
    with pytest.raises(Gone):
        await backend.kv.list(prefix, revision=first.revision)
    assert len((await backend.kv.list(prefix, revision=second.revision)).items) == 2
    await backend.compact(third.revision)
    assert [kv.value for kv in (await backend.kv.list(prefix, revision=third.revision)).items] == [b"2"]
    with pytest.raises(Gone):
        await backend.compact(second.revision)


async def test_the_future_cannot_be_listed(backend: Backend, prefix: str) -> None:
    now = (await backend.kv.list(prefix)).revision
    with pytest.raises(Invalid):
        await backend.kv.list(prefix, revision=now + 1000)


async def test_the_largest_value_fits_and_one_more_byte_does_not(backend: Backend, prefix: str) -> None:
    await backend.kv.txn([], [Put(prefix + "a", bytes(MAX_VALUE))])
    with pytest.raises(Invalid, match=f"{prefix}b is too large"):
        await backend.kv.txn([], [Put(prefix + "b", bytes(MAX_VALUE + 1))])
    kv = await backend.kv.get(prefix + "a")
    assert kv is not None
    assert len(kv.value) == MAX_VALUE


async def test_a_transaction_too_large_as_a_whole_is_invalid(backend: Backend, prefix: str) -> None:
    with pytest.raises(Invalid, match="split"):
        await backend.kv.txn([], [Put(prefix + "a", bytes(MAX_VALUE)), Put(prefix + "b", bytes(MAX_VALUE))])


async def test_as_many_operations_as_allowed_and_one_more(backend: Backend, prefix: str) -> None:
    puts = [Put(f"{prefix}{number}", b"") for number in range(MAX_OPERATIONS + 1)]
    assert (await backend.kv.txn([absent(put.key) for put in puts[:-1]], puts[:-1])).succeeded
    with pytest.raises(Invalid, match="at most 128"):
        await backend.kv.txn([], puts)
    with pytest.raises(Invalid, match="at most 128"):
        await backend.kv.txn([absent(put.key) for put in puts], [])


async def test_a_key_cannot_be_written_twice_in_one_transaction(backend: Backend, prefix: str) -> None:
    for second in (Put(prefix + "a", b"2"), Delete(prefix + "a")):
        with pytest.raises(Invalid, match=prefix + "a"):
            await backend.kv.txn([], [Put(prefix + "a", b"1"), second])
    assert await backend.kv.get(prefix + "a") is None


async def test_the_two_branches_may_write_the_same_key(backend: Backend, prefix: str) -> None:
    result = await backend.kv.txn([absent(prefix + "a")], [Put(prefix + "a", b"1")], [Put(prefix + "a", b"2")])
    assert result.succeeded


async def test_an_empty_key_is_invalid(backend: Backend) -> None:
    with pytest.raises(Invalid):
        await backend.kv.get("")
    with pytest.raises(Invalid):
        await backend.kv.txn([], [Put("", b"1")])


async def test_a_put_under_an_unknown_lease_writes_nothing(backend: Backend, prefix: str) -> None:
    with pytest.raises(NotFound):
        await backend.kv.txn([], [Put(prefix + "a", b"1"), Put(prefix + "b", b"1", lease=12345)])
    assert (await backend.kv.list(prefix)).items == ()
