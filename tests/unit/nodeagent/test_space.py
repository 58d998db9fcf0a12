"""Room for moves: asked for before the freeze, promised once only, given back whatever happens."""

import asyncio
import contextlib
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.engine import Copy
from nodeagent.errors import MoveFailed
from nodeagent.space import LEFT, Promise, Room, image_name, images_need, release, remove_strays, reserve

PLENTY = 1 << 50
MIB = 1 << 20


def room(directory: Path, free: int) -> Room:
    return Room(directory / "images", lambda: free)


def test_there_has_to_be_room_for_images_and_job(tmp_path: Path) -> None:
    with pytest.raises(MoveFailed, match="no room for images"), room(tmp_path, PLENTY).promise(PLENTY, restored=False):
        pass
    small = room(tmp_path, images_need(1000))
    with small.promise(1000, restored=False):
        pass
    with pytest.raises(MoveFailed, match=r"no memory: .* for images and job"), small.promise(1000, restored=True):
        pass


def test_two_arrivals_are_not_promised_the_same_memory(tmp_path: Path) -> None:
    node = room(tmp_path, 2 * (images_need(MIB) + MIB))
    with contextlib.ExitStack() as held:
        held.enter_context(node.promise(MIB, restored=True))
        held.enter_context(node.promise(MIB, restored=True))
        with pytest.raises(MoveFailed, match=r"no memory: .* 0 are free, 2 other moves counted"):
            held.enter_context(node.promise(MIB, restored=True))
    with node.promise(MIB, restored=True), node.promise(MIB, restored=True):
        pass  # what was promised came back


def test_what_has_come_does_not_count_twice(tmp_path: Path) -> None:
    """Images that lie here are missing from what is free already."""
    free = 2 * (images_need(MIB) + MIB)
    node = Room(tmp_path / "images", lambda: free - arrived)
    arrived = 0
    with node.promise(MIB, restored=True) as first:
        first.came = lambda: arrived
        arrived = images_need(MIB)
        with node.promise(MIB, restored=True):
            pass


def test_a_broken_move_gives_its_room_back(tmp_path: Path) -> None:
    node = room(tmp_path, images_need(MIB) + MIB)
    with pytest.raises(MoveFailed, match="broken"), node.promise(MIB, restored=True):
        raise MoveFailed("broken")
    with node.promise(MIB, restored=True):
        pass


def test_an_arrival_may_grow_but_not_into_what_others_were_promised(tmp_path: Path) -> None:
    node = room(tmp_path, PLENTY)
    with node.promise(MIB, restored=True) as one:
        alone = node.most(one)
        assert alone > one.images
        with node.promise(100 * MIB, restored=True) as other:
            assert abs(alone - node.most(one) - other.images) < 50 * MIB  # others use this file system, too


@given(st.lists(st.integers(0, 64), min_size=1, max_size=8), st.integers(0, 512))
def test_never_is_more_promised_than_there_is(tmp_path_factory: pytest.TempPathFactory, jobs: list[int], free: int) -> None:
    node = Room(tmp_path_factory.getbasetemp() / "images", lambda: free * MIB)
    with contextlib.ExitStack() as held:
        promised = 0
        for memory in jobs:
            with contextlib.suppress(MoveFailed):
                promised += held.enter_context(node.promise(memory * MIB, restored=True)).to_come
        assert promised <= free * MIB


def test_images_of_nobody_are_removed(tmp_path: Path) -> None:
    copy = Copy("default", "w", "uid", 2)
    for name in (image_name(copy), image_name(copy) + "_pages", "default_w_1", "other_x_1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pages-1.img").write_bytes(b"x")
    assert remove_strays(tmp_path, [copy]) == ["default_w_1", "other_x_1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [image_name(copy), image_name(copy) + "_pages"]
    assert remove_strays(tmp_path / "not there", []) == []


def test_memory_that_would_go_ahead_needs_room_twice(tmp_path: Path) -> None:
    with ExitStack() as held:
        promise, ahead = room(tmp_path, PLENTY).promise_most(MIB, restored=True, follows=False, ahead=True, held=held)
        assert ahead
        assert promise.images == images_need(MIB) + MIB
    with ExitStack() as held:
        small = room(tmp_path, images_need(MIB) + MIB + MIB // 2)  # for images and job, not for memory ahead as well
        promise, ahead = small.promise_most(MIB, restored=True, follows=False, ahead=True, held=held)
        assert not ahead
        assert promise.images == images_need(MIB)


def test_what_is_reserved_is_there_until_it_is_released(tmp_path: Path) -> None:
    asyncio.run(reserve(tmp_path, MIB))
    assert sum(file.stat().st_blocks * 512 for file in tmp_path.iterdir()) >= MIB
    release(tmp_path)
    release(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("total, asked", [(30 * MIB, [15 * MIB, 15 * MIB]), (12 * MIB, [15 * MIB])])
def test_images_may_take_what_memory_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, asked: list[int]) -> None:
    """Unless somebody wants them to take less still."""
    sizes: list[int] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=total, used=5 * MIB, free=total - 5 * MIB))
    node = Room(tmp_path, lambda: LEFT + 10 * MIB, lambda images, size: sizes.append(size))
    node.fit()
    node.fit()
    assert sizes == asked


def test_a_job_that_grew_is_not_restored_without_memory(tmp_path: Path) -> None:
    promise = Promise(images=images_need(MIB), job=MIB)
    node = room(tmp_path, MIB)
    node.check_restore(promise, promise.images)
    with pytest.raises(MoveFailed, match="has grown"):
        node.check_restore(promise, promise.images + 1)
