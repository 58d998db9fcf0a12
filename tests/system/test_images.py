"""Images with the real mmdebstrap: one build in a lab, its layers as a root, and what is left when a build goes wrong.

Most of what is built here is kept on the shelf, so only the first run takes a minute.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip.builder import Builder
from clip.cache import Shelf
from clip.errors import ImageError
from clip.workshop import HostWorkshop
from crds.image import ImageSpec

CLOUD = "linux-image-cloud-amd64"
SPEC = {
    "kernel": CLOUD,
    "files": [
        {"path": "/etc/motd", "content": "hello\n"},
        {"path": "/lib/mxtest/tool", "content": "#!/bin/sh\nid -un\n", "mode": "0755"},
    ],
    "users": [{"name": "ann", "uid": 2000, "groups": ["users"], "sshKeys": ["ssh-ed25519 AAAA ann"]}],
}
LOOK = 'mount -t overlay overlay -o "lowerdir=$1" /mnt && exec chroot /mnt sh -ec "$2"'


def mounts(below: Path) -> list[str]:
    """Those of others come and go meanwhile."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(below) in line]


def unfinished(directory: Path) -> list[str]:
    return [path.name for path in directory.glob(".building*")]


def test_a_built_revision_is_a_root_with_its_files_users_and_modules() -> None:
    builder = Builder()
    built = builder.build(ImageSpec.model_validate(SPEC))
    assert [name.split("-")[0] for name in built.layers] == ["agent", "files", "kernel", "base"]
    assert builder.build(ImageSpec.model_validate(SPEC)) == built, "nothing changed: the same digest"
    lower = ":".join(str(builder.shelf.root(name)) for name in built.layers)
    script = f"""
        cat /etc/motd
        setpriv --reuid ann --regid ann --init-groups /usr/lib/mxtest/tool
        id -nG ann
        stat -c %a:%U /home/ann/.ssh /tmp /root
        modinfo -k {built.manifest.kernel} -n overlay
    """
    said = subprocess.run(
        ["unshare", "--mount", "sh", "-c", LOOK, "sh", lower, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[:3] == ["hello", "ann", "ann users"]
    assert lines[3:6] == ["700:ann", "1777:root", "700:root"]
    assert lines[6].startswith(f"/lib/modules/{built.manifest.kernel}/")
    boot = builder.shelf.root(built.boot)
    assert (boot / "vmlinuz").stat().st_size > 2**20 and (boot / "initrd.img").stat().st_size > 2**19


@contextlib.contextmanager
def small_shelf(directory: Path, size: str) -> Iterator[Builder]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True, timeout=10)
    try:
        yield Builder(state=directory)
    finally:
        subprocess.run(["umount", str(directory)], check=True, timeout=10)


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    with small_shelf(tmp_path / "small", "40m") as builder:
        before = mounts(tmp_path)
        with pytest.raises(ImageError, match="no space is left") as caught:
            builder.build(ImageSpec(kernel=CLOUD))
        assert caught.value.reason == "DiskFull"
        assert mounts(tmp_path) == before
        assert [path.name for path in builder.shelf.directory.iterdir()] == [".lock"]


NOWHERE = """
import sys
from pathlib import Path
from clip.builder import Builder
from clip.errors import ImageError
from crds.image import ImageSpec
try:
    Builder(state=Path(sys.argv[1])).build(ImageSpec())
except ImageError as error:
    print(error.reason)
"""


def test_a_mirror_that_is_away_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    said = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", NOWHERE, str(tmp_path)], capture_output=True, text=True, timeout=110, check=False
    )
    assert said.stdout == "MirrorAway\n", said.stderr
    assert [path.name for path in (tmp_path / "images").iterdir()] == [".lock"]


def test_a_killed_builder_leaves_no_process_mount_or_directory(tmp_path: Path) -> None:
    builder = subprocess.Popen([sys.executable, "-c", NOWHERE, str(tmp_path)], stdout=subprocess.DEVNULL)
    shelf = tmp_path / "images"
    try:
        wait(lambda: any(shelf.glob(".building-*/whole/*")))
        os.kill(builder.pid, signal.SIGKILL)
    finally:
        builder.kill()
        builder.wait(10)
    wait(lambda: not unfinished(shelf))
    wait(lambda: not Shelf.of(tmp_path).is_busy())
    assert mounts(tmp_path) == []
    assert [path.name for path in shelf.iterdir()] == [".lock"]
    assert not [line for line in processes() if str(tmp_path) in line]


def wait(holds: object, seconds: float = 60) -> None:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_text(errors="replace").replace("\0", " "))
    return found


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_built_twice_from_one_mirror_it_has_the_same_digest(tmp_path: Path) -> None:
    """On shelves of their own, so that neither can take anything from the other."""
    spec = ImageSpec.model_validate(SPEC | {"init": "systemd"})
    first, second = (Builder(state=tmp_path / name, workshop=HostWorkshop()).build(spec) for name in ("a", "b"))
    assert first == second
    assert first.manifest.packages["systemd-sysv"]
