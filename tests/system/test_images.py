"""Images with the real mmdebstrap: one build in a lab, its layers as a root, and what is left when a build goes wrong.

Most of what is built here is kept on the shelf, so only the first run takes a minute.
"""

import contextlib
import json
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
from clip.workshop import HostWorkshop
from crds.image import ImageSpec
from tests.etcd_server import EtcdServer
from tests.system.commands import PROJECT, Terminal

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


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Path]:
    """On a disk of its own."""
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(state)], check=True, timeout=10)
    try:
        yield state / "images"
    finally:
        subprocess.run(["umount", str(state)], check=True, timeout=10)


NO_MIRROR = 'Dir::Etc::Parts "/nowhere"; Dir::Etc::Main "/dev/null"; Acquire::http::Proxy "http://127.0.0.1:9"; '


@pytest.mark.parametrize(
    ("spec", "apt", "reason", "words"),
    [
        (
            {"kernel": "hostname"},
            "",
            "NoKernel",
            "the package hostname brings no kernel; name one linux-image package in spec.kernel",
        ),
        ({"kernel": "linux-image-of-nobody"}, "", "UnknownPackage", "there is no package linux-image-of-nobody; correct"),
        ({"kernel": CLOUD}, "", "DiskFull", "no space is left for it on the head; make room"),
        ({"kernel": CLOUD}, NO_MIRROR, "MirrorAway", "the mirror does not answer"),
    ],
    ids=["no kernel", "unknown package", "disk full", "mirror away"],
)
def test_a_build_that_fails_says_why_in_one_line_and_leaves_nothing(
    etcd: EtcdServer, shelf: Path, tmp_path: Path, spec: dict[str, str], apt: str, reason: str, words: str
) -> None:
    config, file, apt_config = (tmp_path / name for name in ("config", "image.yaml", "apt.conf"))
    config.write_text(json.dumps({"contexts": [{"name": "test", "endpoints": [etcd.endpoint]}], "currentContext": "test"}))
    file.write_text(json.dumps({"apiVersion": "mx/v1", "kind": "Image", "metadata": {"name": "bad"}, "spec": spec}))
    apt_config.write_text(apt)
    terminal = Terminal(config)
    terminal.mxctl("apply", "-f", str(file))
    if reason == "DiskFull":
        subprocess.run(["mount", "-o", "remount,size=40m", str(shelf.parent)], check=True, timeout=10)
    before = mounts(tmp_path)
    try:
        settings = f"MX_STATE={shelf.parent} APT_CONFIG={apt_config}" if apt else f"MX_STATE={shelf.parent}"
        said = terminal.run(f"{settings} {PROJECT}/.venv/bin/mxctl image build bad", seconds=300)
        errors = [line for line in said.err.splitlines() if "rror" in line]
        assert said.code == 1 and said.out == "", said
        assert len(errors) == 1 and errors[0].startswith("Error: image/bad: node image: ") and words in errors[0]
        status = json.loads(terminal.mxctl("get", "image", "bad", "-o", "json"))["status"]
        [condition] = status["conditions"]
        assert (condition["type"], condition["status"], condition["reason"]) == ("Built", "False", reason)
        assert errors[0] == f"Error: image/bad: {condition['message']}"
        assert not status.get("revisions") and not status.get("building")
    finally:
        terminal.mxctl("delete", "image", "bad", "--wait=false")
    assert [path.name for path in shelf.iterdir()] == [".lock"]
    assert mounts(tmp_path) == before
    assert not [line for line in processes() if str(shelf) in line]


BUILD = """
import sys
from pathlib import Path
from clip.builder import Builder
from crds.image import ImageSpec
Builder(state=Path(sys.argv[1])).build(ImageSpec())
"""


def test_a_killed_builder_leaves_no_process_mount_or_directory(tmp_path: Path) -> None:
    builder = subprocess.Popen([sys.executable, "-c", BUILD, str(tmp_path)], stdout=subprocess.DEVNULL)
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
