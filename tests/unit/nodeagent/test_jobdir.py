"""Directories are removed also when somebody else is at it."""

import shutil
from pathlib import Path

import pytest

from nodeagent.jobdir import remove_tree


def test_removing_what_another_thread_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    whole = shutil.rmtree

    def overtaken(path: Path) -> None:
        whole(path)
        whole(path)  # as one finds it that another thread was faster

    monkeypatch.setattr(shutil, "rmtree", overtaken)
    remove_tree(tree)
    assert not tree.exists()
    remove_tree(tree)
