"""The shelf of layers: complete or not there, built once, kept while used."""

import os
from pathlib import Path

import pytest

from clip.cache import Shelf
from clip.errors import Busy
from clip.lock import locked


def build(layer: Path, _lock: int) -> None:
    (layer / "root").mkdir()
    (layer / "root/file").write_text("made")


def refuse(layer: Path, _lock: int) -> None:
    (layer / "root").mkdir()
    raise RuntimeError("half-built")


def names(shelf: Shelf) -> set[str]:
    return {path.name for path in shelf.directory.iterdir()} - {".lock"}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf.of(tmp_path)


def test_a_layer_is_built_once(shelf: Shelf) -> None:
    assert (shelf.ensure("base-1", build) / "file").read_text() == "made"
    assert shelf.ensure("base-1", refuse) == shelf.root("base-1")


def test_a_failed_build_leaves_nothing(shelf: Shelf) -> None:
    with pytest.raises(RuntimeError, match="half-built"):
        shelf.ensure("base-1", refuse)
    assert names(shelf) == set()


def test_what_a_killed_builder_left_is_removed_by_the_next(shelf: Shelf) -> None:
    (shelf.directory / ".building-base-0/root").mkdir(parents=True)
    shelf.ensure("base-1", build)
    assert names(shelf) == {"base-1"}


def test_prune_takes_old_layers_that_nobody_uses(shelf: Shelf) -> None:
    for name in ("agent-current", "agent-held", "agent-fresh", "agent-old"):
        shelf.ensure(name, build)
    shelf.hold("agent-held", "lab-t")
    later = shelf.directory.joinpath("agent-old").stat().st_mtime + 3601
    os.utime(shelf.directory / "agent-fresh", (later, later))
    assert shelf.prune(frozenset({"agent-current"}), now=later) == ["agent-old"]
    shelf.release("agent-held", "lab-t")
    shelf.release("agent-held", "lab-t")
    os.utime(shelf.directory / "agent-held", (0, 0))
    assert shelf.prune(frozenset({"agent-current"}), now=later) == ["agent-held"]
    assert names(shelf) == {"agent-current", "agent-fresh"}


def test_prune_keeps_base_layers_for_a_week(shelf: Shelf) -> None:
    shelf.ensure("base-rich", build)
    made = shelf.directory.joinpath("base-rich").stat().st_mtime
    assert shelf.prune(frozenset(), now=made + 6 * 86400) == []
    assert shelf.prune(frozenset(), now=made + 8 * 86400) == ["base-rich"]


def test_a_lock_that_is_held_says_so(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock", timeout=0, what="the thing"),
        pytest.raises(Busy, match="the thing is being changed by another process"),
        locked(tmp_path / "lock", timeout=0, what="the thing"),
    ):
        pass


def test_a_lock_can_leave_no_file(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "lock", timeout=0, what="the thing", remove=True):
            assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()
