"""What a job wrote is on the server before it goes on elsewhere."""

from pathlib import Path

import pytest

from nodeagent import shared

LINE = "41 30 0:44 / {point} rw,relatime - {kind} source rw\n"


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    class Libc:
        def syncfs(self, descriptor: int) -> int:
            calls.append(descriptor)
            return -1 if len(calls) > 1 else 0

    monkeypatch.setattr(shared, "_libc", Libc())
    return calls


def table(directory: Path, kind: str) -> Path:
    file = directory / "mountinfo"
    file.write_text("30 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + LINE.format(point=directory, kind=kind), encoding="utf-8")
    return file


@pytest.mark.parametrize("kind", ["nfs4", "ceph", "fuse.glusterfs"])
def test_written_back_to_a_server(tmp_path: Path, syncs: list[int], kind: str) -> None:
    assert shared.write_back(tmp_path, table(tmp_path, kind))
    assert len(syncs) == 1


@pytest.mark.parametrize("kind", ["ext4", "overlay", "tmpfs"])
def test_nothing_to_do_on_a_file_system_of_this_machine(tmp_path: Path, syncs: list[int], kind: str) -> None:
    assert not shared.write_back(tmp_path, table(tmp_path, kind))
    assert syncs == []


def test_what_does_not_come_there_is_an_error(tmp_path: Path, syncs: list[int]) -> None:
    shared.write_back(tmp_path, table(tmp_path, "nfs4"))
    with pytest.raises(OSError, match="not all on its server"):
        shared.write_back(tmp_path, table(tmp_path, "nfs4"))
