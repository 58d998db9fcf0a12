"""What this node has where jobs have programs: read once, looked at again cheaply, told as long as somebody wants to know."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from crds import keys
from crds.programs import NodeFiles, WantedFiles
from nodeagent import programs
from nodeagent.preflight.mapped import of_node
from nodeagent.programs import Digests, Programs
from store.kv import Compare, Delete, Put, absent
from store.memory import MemoryKV


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = tmp_path / "program", tmp_path / "other"
    file.write_bytes(b"one")
    other.write_bytes(b"one")
    digests = Digests()
    first = digests.of([str(file), str(other)])
    assert len(set(first.values())) == 1 and len(first[str(file)]) == 16
    with monkeypatch.context() as patch:
        patch.setattr(programs.hashlib, "file_digest", None)
        assert digests.of([str(file), str(other)]) == first
    file.write_bytes(b"two")
    assert digests.of([str(file)])[str(file)] != first[str(file)]


def test_what_is_no_file_of_ours_is_told_as_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    paths = [str(tmp_path), str(tmp_path / "pipe"), str(tmp_path / "none"), "/dev/zero"]
    assert Digests().of(paths) == dict.fromkeys(paths, "")


def test_a_large_file_is_told_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "LARGEST", 2)
    (tmp_path / "large").write_bytes(b"123")
    assert Digests().of([str(tmp_path / "large")]) == {str(tmp_path / "large"): "3 bytes"}


def test_what_is_mapped_of_the_node() -> None:
    mine = of_node([os.getpid()], ("/shared",))
    assert any("python" in path or "libc" in path for path in mine)
    assert not any(path.startswith(("[", "/memfd:", "/dev/")) for path in mine) and mine == sorted(mine)
    assert of_node([os.getpid()], tuple(f"/{path.split('/')[1]}" for path in mine)) == []
    assert of_node([2**22 + 1], ()) == []


class Standing:
    """A heartbeat that stands."""

    def __init__(self) -> None:
        self.standing = asyncio.Event()
        self.standing.set()

    def guard(self) -> Compare:
        return absent("/nothing")


async def test_it_is_told_as_long_as_it_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"one")
    kv: MemoryKV = MemoryKV()
    heartbeat: Any = Standing()
    mine = Programs(kv, "n1", heartbeat)
    running = asyncio.create_task(mine.run("boot-1"))
    seen: list[NodeFiles | None] = []
    try:
        async with asyncio.timeout(30):
            wish = WantedFiles(paths=[str(tmp_path / "program")])
            await kv.txn([], [Put(keys.FILES, wish.to_json())])
            async for batch in kv.watch(keys.files("n1"), revision=1):
                seen += [None if each.deleted else NodeFiles.model_validate_json(each.kv.value) for each in batch.changes]
                if seen[-1:] == [None]:
                    break
                if seen:
                    assert mine.wanted()
                    await kv.txn([], [Delete(keys.FILES)])
    finally:
        running.cancel()
        await asyncio.wait({running})
    told, gone = seen
    assert told is not None and told.boot_id == "boot-1" and set(told.digests) == {str(tmp_path / "program")} and gone is None
