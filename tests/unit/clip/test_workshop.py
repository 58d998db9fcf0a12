"""The contract of a workshop: the fake one, and the real one with a small mmdebstrap of ours in the PATH."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip import workshop as workshops
from clip.errors import ImageError
from clip.progress import silent
from clip.workshop import HostWorkshop, Workshop
from tests.fakes.workshop import FakeWorkshop

SCRIPT = """#!/bin/sh
root=; include=
for word in "$@"; do
    case $word in
    --include=*) include=$word ;;
    /*) root=$word ;;
    esac
done
mkdir "$root"
echo "I: running apt-get update..." >&2
echo "I: an aside" >&2
echo "I: main() received signal PIPE: waiting for setup..." >&2
echo "I: unpacking..." >&2
case $include in
*no-such*) echo "E: Unable to locate package no-such" >&2; exit 100 ;;
*full*) echo "cannot write: No space left on device" >&2; exit 1 ;;
*slow*) trap 'exit 143' TERM; touch "$root/waiting"; while :; do sleep 0.05; done ;;
esac
touch "$root/etc"
"""


class Bench:
    """A workshop and how to make it fail."""

    def __init__(self, workshop: Workshop, root: Path) -> None:
        self.workshop, self.root = workshop, root

    def build(self, *packages: str, report: workshops.Report = silent) -> None:
        with open(os.devnull) as lock:  # noqa: PTH123 - any descriptor
            line = ["mmdebstrap", f"--include={','.join(packages)}", "trixie", str(self.root / "root")]
            self.workshop.debian(line, report, lock.fileno())


class FakeBench(Bench):
    def build(self, *packages: str, report: workshops.Report = silent) -> None:
        fake = self.workshop
        assert isinstance(fake, FakeWorkshop)
        fake.full = "full" in packages
        fake.pause = threading.Event() if "slow" in packages else None
        super().build(*packages, report=report)


@pytest.fixture(params=["fake", "real"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    if request.param == "fake":
        yield FakeBench(FakeWorkshop(), tmp_path)
        return
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "mmdebstrap").write_text(SCRIPT)
    (programs / "mmdebstrap").chmod(0o755)
    for wrapper in ("unshare",):  # only root may; the rest of the line is what matters here
        (programs / wrapper).write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
        (programs / wrapper).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    yield Bench(HostWorkshop(), tmp_path)


def test_it_makes_the_tree_and_tells_its_phases(bench: Bench) -> None:
    told: list[str] = []
    bench.build("curl", report=told.append)
    assert (bench.root / "root/etc").exists()
    assert told[0] == "running apt-get update" and told[-1] == "unpacking" and not any("main()" in phase for phase in told)


@pytest.mark.parametrize(("package", "reason"), [("no-such", "UnknownPackage"), ("full", "DiskFull")])
def test_a_failure_has_a_reason(bench: Bench, package: str, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        bench.build(package)
    assert caught.value.reason == reason


def test_it_can_be_stopped_from_another_thread(bench: Bench) -> None:
    errors: list[BaseException] = []

    def build() -> None:
        try:
            bench.build("slow")
        except ImageError as error:
            errors.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    while thread.is_alive():
        bench.workshop.stop()
        thread.join(0.05)
    assert len(errors) == 1


def test_another_program_answers_or_fails_with_its_words() -> None:
    real = HostWorkshop()
    assert real.run(["echo", "hello"], 5) == "hello\n"
    assert real.run(["sh", "-c", "echo $SOURCE_DATE_EPOCH $LC_ALL"], 5) == f"{workshops.EPOCH} C.UTF-8\n"
    with pytest.raises(ImageError, match="sh -c echo no >&2; exit 3 ended with 3: no"):
        real.run(["sh", "-c", "echo no >&2; exit 3"], 5)
    with pytest.raises(ImageError, match=r"did not end in 0 s"):
        real.run(["sleep", "5"], 0.01)
    with pytest.raises(ImageError, match="program no-such-program is missing"):
        real.run(["no-such-program"], 5)


KILLED = """
import sys, time
from pathlib import Path
from clip.cache import Shelf

def build(layer, lock):
    (layer / "root").mkdir()
    print("building", flush=True)
    time.sleep(60)

Shelf.of(Path(sys.argv[1])).ensure("base-1", build)
"""


def test_what_a_killed_builder_leaves_is_cleared_at_once(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"building\n"
        left = tmp_path / "images/.building-base-1"
        assert left.is_dir()
        builder.kill()
    deadline = time.monotonic() + 20
    while left.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [path.name for path in left.parent.iterdir()] == [".lock"]
