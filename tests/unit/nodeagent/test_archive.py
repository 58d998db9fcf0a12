"""Checkpoints on disk: whole or not there, and never anything else than what was taken."""

import os
from pathlib import Path

import pytest

from crds.job import RunAs
from nodeagent import archive
from nodeagent.errors import CheckpointDamaged, CheckpointFailed

ME = RunAs(uid=os.geteuid(), gid=os.getegid())
EMPTY = archive.Manifest(job_uid="u", name="c", last_pid=7, cpu_seconds=1.5, files=[])


def goes_on() -> bool:
    return False


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    directory.mkdir()
    (directory / "pages-1.img").write_bytes(os.urandom(3 * archive.CHUNK + 17))
    (directory / "core-1.img").write_bytes(b"core")
    (directory / "dump.log").write_text("not needed")
    return directory


@pytest.fixture
def taken(tmp_path: Path, images: Path) -> tuple[Path, str]:
    target = tmp_path / "job/checkpoints/c-1"
    digest, size = archive.store(images, target, EMPTY, ME, goes_on)
    assert size > 3 * archive.CHUNK
    return target, digest


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    (tmp_path / "fresh").mkdir()
    return tmp_path / "fresh"


def test_there_and_back(taken: tuple[Path, str], images: Path, fresh: Path) -> None:
    manifest = archive.fetch(taken[0], fresh, taken[1], goes_on)
    assert (manifest.last_pid, manifest.cpu_seconds, manifest.job_uid) == (7, 1.5, "u")
    assert {path.name for path in fresh.iterdir()} == {"pages-1.img", "core-1.img"}
    assert (fresh / "pages-1.img").read_bytes() == (images / "pages-1.img").read_bytes()


def test_only_its_owner_reads_it(taken: tuple[Path, str]) -> None:
    assert taken[0].stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in taken[0].iterdir()} == {0o600}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["pages-1.img", "core-1.img", archive.MANIFEST])
@pytest.mark.parametrize("damage", [_flip, _truncate, _grow, Path.unlink, _link, _pipe])
def test_damage_is_found(taken: tuple[Path, str], fresh: Path, name: str, damage: object) -> None:
    assert callable(damage)
    damage(taken[0] / name)
    with pytest.raises(CheckpointDamaged):
        archive.fetch(taken[0], fresh, taken[1], goes_on)


def test_another_checkpoint_in_its_place_is_not_taken_for_it(
    tmp_path: Path, images: Path, taken: tuple[Path, str], fresh: Path
) -> None:
    other = EMPTY.model_copy(update={"job_uid": "another"})
    archive.store(images, tmp_path / "other", other, ME, goes_on)
    (tmp_path / "other" / archive.MANIFEST).replace(taken[0] / archive.MANIFEST)
    with pytest.raises(CheckpointDamaged, match=r"manifest.json is not what was written"):
        archive.fetch(taken[0], fresh, taken[1], goes_on)


def test_nothing_stays_of_one_that_was_called_off(tmp_path: Path, images: Path) -> None:
    target = tmp_path / "job/checkpoints/c-1"
    with pytest.raises(CheckpointFailed, match="called off"):
        archive.store(images, target, EMPTY, ME, lambda: True)
    assert list(target.parent.iterdir()) == []


def test_half_written_ones_are_removed(tmp_path: Path, taken: tuple[Path, str]) -> None:
    (taken[0].parent / f"c-2{archive.PARTIAL}").mkdir()
    archive.remove_partial(taken[0].parent)
    assert list(taken[0].parent.iterdir()) == [taken[0]]


def test_scratch_is_as_it_was(tmp_path: Path, images: Path) -> None:
    job = tmp_path / "job"
    for name in ("tmp/sub", "shm"):
        (job / name).mkdir(parents=True)
    (job / "tmp/sub/file").write_text("then")
    (job / "tmp/link").symlink_to("sub/file")
    os.mkfifo(job / "tmp/pipe")
    (job / "tmp").chmod(0o1777)
    archive.pack_scratch(job, images)
    (job / "tmp/sub/file").write_text("now")
    (job / "tmp/later").touch()
    archive.unpack_scratch(images, job)
    assert (job / "tmp/link").read_text() == "then"
    assert (job / "tmp/pipe").is_fifo()
    assert not (job / "tmp/later").exists()
    assert (job / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_room_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointFailed, match="no room for a checkpoint"):
        archive.check_space(tmp_path, 1 << 60)
