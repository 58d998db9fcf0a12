"""When the images get a file system of their own, and when everything stays as it is."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from nodeagent import tmpfs


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command))
    return asked


@pytest.mark.parametrize(("gives", "options"), [(False, tmpfs.LARGE), (True, tmpfs.SMALL)])
def test_an_empty_node_gets_one(
    tmp_path: Path, mounts: list[list[str]], monkeypatch: pytest.MonkeyPatch, gives: bool, options: str
) -> None:
    monkeypatch.setattr(tmpfs, "gives_back", lambda: gives)
    assert tmpfs.mount_images(tmp_path / "images", tmp_path / "copies")
    assert mounts == [["mount", "-t", "tmpfs", "-o", options, "mx-images", str(tmp_path / "images")]]


@pytest.mark.parametrize(("features", "gives"), [("0110010" + "0" * 57, True), ("0110000" + "0" * 57, False), ("", False)])
def test_a_machine_whose_host_takes_free_memory(tmp_path: Path, features: str, gives: bool) -> None:
    (tmp_path / "virtio3").mkdir()
    (tmp_path / "virtio3" / "features").write_text(features + "\n")
    (tmp_path / "unbind").touch()
    assert tmpfs.gives_back(tmp_path) is gives
    assert not tmpfs.gives_back(tmp_path / "no balloon")


@pytest.mark.parametrize("occupied", ["copies", "images"])
def test_a_node_with_jobs_stays_as_it_is(tmp_path: Path, mounts: list[list[str]], occupied: str) -> None:
    """Their shims would not see the new mount."""
    (tmp_path / occupied / "default_w_1").mkdir(parents=True)
    assert not tmpfs.mount_images(tmp_path / "images", tmp_path / "copies")
    assert mounts == []


def test_what_is_mounted_is_not_mounted_again(tmp_path: Path, mounts: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    assert tmpfs.mount_images(tmp_path / "images", tmp_path / "copies")
    assert mounts == []


def test_a_kernel_that_refuses_is_no_disaster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(32, command, stderr="mount: bad option\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert not tmpfs.mount_images(tmp_path / "images", tmp_path / "copies")
    assert "moves take longer: mount: bad option" in caplog.text
