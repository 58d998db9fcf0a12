"""What only a real server and a real network can do to us."""

import asyncio
import logging
import time
from contextlib import aclosing
from pathlib import Path

import pytest

from store.errors import Invalid, Unavailable
from store.etcd import EtcdKV
from store.etcd_channel import Method
from store.kv import Change, Put, absent
from store.rpc import etcd_pb2 as pb
from tests.contract.conftest import PATIENCE, TIMEOUT, Etcd, Reader, connect
from tests.contract.test_watching import names, until_reachable, write, write_numbers
from tests.etcd_server import EtcdServer, check_version, find_etcd, free_port

BIG = 1 << 19  # bytes; three of them make etcd break a response into fragments


async def test_the_member_tells_its_version(etcd: Etcd) -> None:
    status = await etcd.kv.status()
    assert tuple(int(part) for part in status.version.split(".")[:2]) >= (3, 5)
    assert status.has_leader
    assert status.size > 0


async def test_a_connection_cut_while_catching_up_loses_nothing(etcd: Etcd, prefix: str) -> None:
    start = (await etcd.other.list(prefix)).revision + 1
    for first in range(0, 2500, 100):  # etcd answers with 1000 revisions at once, so that the second cut is in a later answer
        await asyncio.gather(*(etcd.other.txn([], [Put(f"{prefix}{n:04d}", bytes(200))]) for n in range(first, first + 100)))
    etcd.proxy.cut_after(400_000, 300_000)
    reader = Reader(etcd.kv, prefix, start)
    seen = await reader.until(2500)
    assert sorted(seen) == [(f"{n:04d}", bytes(200)) for n in range(2500)]
    revisions = [change.kv.mod_revision for batch in reader.batches for change in batch.changes]
    assert revisions == sorted(set(revisions))
    assert etcd.proxy.accepted == 3
    await reader.stop()


async def test_a_silently_dropped_connection_is_noticed_and_nothing_is_lost(etcd: Etcd, prefix: str) -> None:
    start = (await etcd.other.list(prefix)).revision + 1
    reader = Reader(etcd.kv, prefix, start)
    await write_numbers(etcd.other, prefix, range(3))
    await reader.until(3)
    etcd.proxy.drop_silently()
    await write_numbers(etcd.other, prefix, range(3, 6))
    assert await reader.until(6) == names(range(6))
    await reader.stop()


@pytest.mark.soak
async def test_a_silently_dropped_connection_is_noticed_with_the_everyday_settings(etcd: Etcd, prefix: str) -> None:
    kv = EtcdKV.connect([etcd.proxy.endpoint])
    reader = Reader(kv, prefix, 0)
    await reader.until_revision(1)
    etcd.proxy.drop_silently()
    began = time.monotonic()
    await write_numbers(etcd.other, prefix, range(3))
    assert await reader.until(3) == names(range(3))
    assert time.monotonic() - began < 18
    await reader.stop()
    await kv.close()


async def test_a_server_that_hangs_is_noticed_and_nothing_is_lost(etcd: Etcd, prefix: str) -> None:
    start = (await etcd.other.list(prefix)).revision + 1
    reader = Reader(etcd.kv, prefix, start)
    await write_numbers(etcd.other, prefix, range(3))
    await reader.until(3)
    etcd.server.pause()
    try:
        with pytest.raises(Unavailable):
            await etcd.kv.get(prefix)
    finally:
        etcd.server.resume()
    await until_reachable(etcd.other)
    await write_numbers(etcd.other, prefix, range(3, 6))
    assert await reader.until(6) == names(range(6))
    await reader.stop()


async def test_a_client_may_be_made_before_its_server(prefix: str) -> None:
    server = EtcdServer()
    kv = connect(server.endpoint)
    with pytest.raises(Unavailable):
        await kv.get(prefix)
    reader = Reader(kv, prefix, 1)
    with server:
        await until_reachable(kv)
        await write_numbers(kv, prefix, range(3))
        assert await reader.until(3) == names(range(3))
        await reader.stop()
        await kv.close()


async def test_one_dead_endpoint_of_two_does_no_harm(etcd: Etcd, prefix: str) -> None:
    kv = EtcdKV.connect([f"127.0.0.1:{free_port()}", etcd.server.endpoint], timeout=TIMEOUT)
    for number in range(20):
        assert (await kv.txn([absent(f"{prefix}{number}")], [Put(f"{prefix}{number}", b"")])).succeeded
    await kv.close()


async def test_a_transaction_larger_than_a_message_is_one_batch(etcd: Etcd, prefix: str) -> None:
    start = (await etcd.kv.list(prefix)).revision + 1
    value = bytes(BIG)
    last = 0
    for name in "abcdefgh":
        last = await write(etcd.kv, *(Put(f"{prefix}{name}{number}", value[:-100]) for number in range(3)))
    async with aclosing(etcd.kv.watch(prefix, revision=start)) as batches:
        changes: list[Change] = []
        async for batch in batches:
            if not batch.changes:
                continue
            revisions = [change.kv.mod_revision for change in batch.changes]
            assert all(revisions.count(revision) == 3 for revision in revisions)
            changes += batch.changes
            if batch.revision == last:
                break
    assert [change.kv.key.removeprefix(prefix) for change in changes] == [f"{n}{i}" for n in "abcdefgh" for i in range(3)]


async def test_a_watch_that_nobody_reads_does_not_hold_up_the_others(etcd: Etcd, prefix: str) -> None:
    start = (await etcd.kv.list(prefix)).revision + 1
    async with aclosing(etcd.kv.watch(prefix, revision=start)) as unread:
        await write(etcd.kv, Put(prefix + "first", b""))
        await anext(unread)
        for number in range(60):
            await write(etcd.other, Put(f"{prefix}{number}", bytes(BIG)))
            await etcd.kv.get(prefix + "first")
        reader = Reader(etcd.kv, prefix + "small/", start)
        await write(etcd.other, Put(prefix + "small/a", b"1"))
        assert await reader.until(1) == [("a", b"1")]
        await reader.stop()
        seen = 0
        while seen < 60:
            seen += len((await asyncio.wait_for(anext(unread), PATIENCE)).changes)


async def test_a_response_refused_by_etcd_itself_says_why(etcd: Etcd, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.etcd.check_txn", lambda *_: None)
    for size in (1_600_000, 4_000_000):
        with pytest.raises(Invalid, match="make the value smaller") as error:
            await etcd.kv.txn([], [Put(prefix + "a", bytes(size))])
        assert "\n" not in str(error.value)


async def test_who_has_no_right_is_told_so(prefix: str) -> None:
    with EtcdServer() as server:
        kv = connect(server.endpoint)
        for path, request in (
            ("UserAdd", pb.AuthUserAddRequest(name="root", password="root")),
            ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
            ("AuthEnable", pb.AuthEnableRequest()),
        ):
            await kv.channel.call(Method(f"/etcdserverpb.Auth/{path}", type(request), pb.AuthResponse), request, "root")
        with pytest.raises(Invalid):
            await kv.get(prefix)
        for revision in (0, 1):
            with pytest.raises(Invalid, match=f"watch of {prefix}"):
                await asyncio.wait_for(anext(kv.watch(prefix, revision=revision)), PATIENCE)
        await kv.close()


async def test_breaking_connections_leave_no_complaints_of_the_event_loop(
    etcd: Etcd, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        reader = Reader(etcd.kv, prefix, 0)
        await reader.until_revision(1)
        lease = await etcd.kv.grant(30)
        await etcd.cut()
        await until_reachable(etcd.kv)
        assert await etcd.kv.keep_alive(lease) == 30
        await etcd.stall()
        with pytest.raises(Unavailable):
            await etcd.kv.keep_alive(lease)
        await etcd.resume()
        await reader.stop()
    assert [record.getMessage() for record in caplog.records] == []


async def test_a_renewal_after_a_lost_connection_asks_on_a_new_stream(etcd: Etcd) -> None:
    lease = await etcd.kv.grant(30)
    assert await etcd.kv.keep_alive(lease) == 30
    await etcd.cut()
    await until_reachable(etcd.kv)
    assert await etcd.kv.keep_alive(lease) == 30


async def test_nobody_gets_the_answer_to_a_renewal_that_was_given_up(etcd: Etcd) -> None:
    short, long = await etcd.kv.grant(30), await etcd.kv.grant(60)
    assert await etcd.kv.keep_alive(short) == 30
    await etcd.stall()
    given_up = asyncio.create_task(etcd.kv.keep_alive(short))
    await asyncio.sleep(TIMEOUT / 10)
    given_up.cancel()
    await asyncio.wait([given_up])
    await etcd.resume()
    assert await etcd.kv.keep_alive(long) == 60


async def test_closing_ends_calls_under_way_as_unavailable(etcd: Etcd, prefix: str) -> None:
    await etcd.kv.get(prefix)
    await etcd.stall()
    calls = [asyncio.create_task(etcd.kv.get(prefix)), asyncio.create_task(etcd.kv.keep_alive(1))]
    await asyncio.sleep(TIMEOUT / 10)
    await etcd.kv.close()
    for end in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(end, Unavailable)
    await etcd.resume()


async def test_who_is_cancelled_while_the_connection_is_closed_ends(etcd: Etcd, prefix: str) -> None:
    await etcd.kv.get(prefix)
    await etcd.stall()
    calls = [asyncio.create_task(etcd.kv.get(prefix)), asyncio.create_task(etcd.kv.keep_alive(1))]
    await asyncio.sleep(TIMEOUT / 10)
    closing = asyncio.create_task(etcd.kv.close())
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.wait({*calls, closing})
    assert all(call.cancelled() for call in calls)
    await etcd.resume()


async def test_an_old_etcd_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_version(find_etcd())
    old = tmp_path / "etcd"
    old.write_text("#!/bin/sh\necho etcd Version: 3.4.23\n")
    old.chmod(0o755)
    with pytest.raises(RuntimeError, match="scripts/setup"):
        check_version(old)
    monkeypatch.setenv("MX_ETCD", "")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("tests.etcd_server.IMAGES", tmp_path)
    with pytest.raises(FileNotFoundError, match="scripts/setup"):
        find_etcd()
