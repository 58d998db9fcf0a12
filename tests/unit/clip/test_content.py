"""The digest of a tree: of what is in it, not of when it was made."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clip import content

STATUS = """\
Package: a
Status: install ok installed
Version: 1:2.0-1
Description: x
 Version: not this

Package: gone
Status: deinstall ok config-files
Version: 3
"""


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    root = tmp_path / "layer/root"
    (root / "etc/b").mkdir(parents=True)
    (root / "etc/a").write_text("A")
    (root / "link").symlink_to("etc/a")
    os.link(root / "etc/a", root / "etc/same")
    return root.parent


def test_dates_do_not_count(layer: Path) -> None:
    before = content.measure(layer / "root")
    os.utime(layer / "root/etc/a", (1, 1))
    assert content.measure(layer / "root") == before
    assert before.size == 1, "a hard link's bytes are there once"


def empty(root: Path) -> None:
    (root / "etc/b").rmdir()


def other_link(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("etc/b")


def moved(root: Path) -> None:
    (root / "etc/same").rename(root / "etc/same2")


@pytest.mark.parametrize(
    "change",
    [empty, other_link, moved, lambda root: (root / "etc/a").chmod(0o600), lambda root: (root / "etc/a").write_text("B")],
    ids=["directory", "link", "name", "mode", "content"],
)
def test_everything_else_does(layer: Path, change: Callable[[Path], object]) -> None:
    before = content.measure(layer / "root")
    change(layer / "root")
    assert content.measure(layer / "root").digest != before.digest


def test_it_is_measured_once(layer: Path) -> None:
    first = content.measured(layer)
    (layer / "root/etc/a").write_text("changed behind our back")
    assert content.measured(layer) == first


def test_packages_are_those_that_are_installed() -> None:
    assert content.packages(STATUS) == {"a": "1:2.0-1"}
