"""The hosts file: our block and nobody else's lines."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from crds import keys
from crds.network import HostEntry
from nodeagent.hosts import BEGIN, END, HostsBroken, keep_hosts, read, update, with_jobs
from store.kv import Delete, KeyValue, Put
from store.memory import MemoryKV

NODES = "127.0.0.1 localhost\n10.77.0.11 n1 # the first\n"
W = HostEntry(address="10.77.0.128", names=["w.default.mx.local", "w.default", "w"])
V = HostEntry(address="10.77.0.129", names=["v.alice.mx.local", "v.alice"])


async def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.005)


def test_jobs_stand_in_a_block_at_the_end() -> None:
    text = with_jobs(NODES, [W, V])
    assert text == f"{NODES}{BEGIN}\n10.77.0.128 w.default.mx.local w.default w\n10.77.0.129 v.alice.mx.local v.alice\n{END}\n"
    assert with_jobs(text, [W, V]) == text
    assert with_jobs(text, []) == NODES


def test_names_of_others_stay_theirs() -> None:
    text = with_jobs(
        NODES, [HostEntry(address="10.77.0.128", names=["n1.default", "n1"]), HostEntry(address="1.2.3.4", names=["n1"])]
    )
    assert "10.77.0.128 n1.default\n" in text and "1.2.3.4" not in text


def test_a_comment_takes_no_name() -> None:
    assert " w\n" in with_jobs("10.0.0.1 x # w\n# 10.0.0.1 w\n", [W])


@given(some.text(some.characters(blacklist_categories=["Cs"]), max_size=60), some.text("ab\n #1.", max_size=40))
def test_what_stands_around_is_never_touched(before: str, after: str) -> None:
    gap = "" if not before or before.endswith("\n") else "\n"
    text = f"{before}{gap}{BEGIN}\n10.0.0.1 old\n{END}\n{after}"
    assert with_jobs(text, []) == f"{before}{gap}{after}"
    changed = with_jobs(text, [HostEntry(address="10.9.9.9", names=["zzz"])])
    assert changed == f"{before}{gap}{BEGIN}\n10.9.9.9 zzz\n{END}\n{after}"


@pytest.mark.parametrize("text", [f"{BEGIN}\n", f"{END}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
def test_with_a_broken_block_nothing_is_written(tmp_path: Path, text: str) -> None:
    file = tmp_path / "hosts"
    file.write_text(text)
    with pytest.raises(HostsBroken, match="must stand there once each"):
        update(file, [W])
    assert file.read_text() == text and list(tmp_path.iterdir()) == [file]


def test_the_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_bytes(NODES.encode() + b"10.0.0.1 caf\xe9\r\n")
    file.chmod(0o640)
    before = file.stat()
    update(file, [W])
    assert file.read_bytes().startswith(NODES.encode() + b"10.0.0.1 caf\xe9\r\n")
    assert file.stat().st_mode == before.st_mode and file.stat().st_ino != before.st_ino
    written = file.stat()
    update(file, [W])
    assert file.stat().st_ino == written.st_ino, "nothing differs, nothing is written"
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    update(tmp_path / "hosts", [W])
    assert (tmp_path / "hosts").stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_read_is_left_out() -> None:
    entries = [KeyValue("/b", W.to_json(), 1, 1, 1), KeyValue("/a", b"?", 1, 1, 1), KeyValue("/c", V.to_json(), 1, 1, 1)]
    assert list(read(entries)) == [W, V]


async def test_the_file_follows_etcd(tmp_path: Path) -> None:
    kv, file = MemoryKV(), tmp_path / "hosts"
    file.write_text(f"{NODES}{BEGIN}\n10.0.0.9 gone\n{END}\n")
    key = keys.host("default", "w")

    task = asyncio.create_task(keep_hosts(kv, file))
    try:
        await eventually(lambda: file.read_text() == NODES)
        await kv.txn([], [Put(key, W.to_json())])
        await eventually(lambda: "10.77.0.128 w.default.mx.local w.default w\n" in file.read_text())
        await kv.txn([], [Delete(key)])
        await eventually(lambda: file.read_text() == NODES)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_it_is_tried_again_when_it_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nodeagent.hosts.RETRY", 0.01)
    kv, file = MemoryKV(), tmp_path / "etc/hosts"
    await kv.txn([], [Put(keys.host("default", "w"), W.to_json())])
    task = asyncio.create_task(keep_hosts(kv, file))
    try:
        await eventually(lambda: "names of jobs are not up to date" in caplog.text)
        file.parent.mkdir()
        await eventually(file.exists)
    finally:
        task.cancel()
        await asyncio.wait([task])
