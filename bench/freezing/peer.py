"""podman beside us: the same job, checkpointed and restored by ``podman container checkpoint -e`` and ``restore -i``.

podman, runc and what they need are fetched once with the building machine's own apt, for the image's suite, and unpacked below the
state directory; they are copied onto a node of the bench's own lab. The node image stays as it is.
"""

import itertools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from clip import apt, image, recipe
from clip.errors import ClipError
from lab.model import Lab, Places

PACKAGES = ("podman", "runc", "conmon")
SECONDS = 600


class PodmanMissing(Exception):  # noqa: N818 - named after what it means
    """Why podman cannot be measured here."""


class Podman:
    """On node n1 of a lab. ``on`` runs a command there and returns its output."""

    def __init__(self, places: Places, on: Callable[..., str], version: str) -> None:
        self._places = places
        self._on = on
        self._numbers = itertools.count()
        self.version = version

    @classmethod
    def install(cls, places: Places, on: Callable[..., str]) -> "Podman":
        """Raises PodmanMissing."""
        try:
            lab = places.load()
            base = image.NodeImage(lab.base, lab.agent, places.state).base_root
            programs = _fetch(places.state / "bench" / f"podman-{lab.base}", base)
            shutil.copytree(programs, _root(lab), symlinks=True, dirs_exist_ok=True)
            shutil.copytree(base, places.shared / "bench/rootfs", symlinks=True)
            shutil.copyfile(Path(__file__).with_name("peer.sh"), places.shared / "bench/peer.sh")
            on("ldconfig")
            podman = cls(places, on, on("podman", "--version").strip())
            podman.once(1, "idle")
        except (ClipError, OSError, subprocess.SubprocessError, SystemExit) as error:
            raise PodmanMissing(" ".join(str(error).split())[-400:]) from error
        return podman

    def once(self, megabytes: int, how: str) -> float:
        """Milliseconds that the job saw."""
        name = f"peer{next(self._numbers)}.gaps"
        began = self._on(
            "unshare",
            "-m",
            "--propagation",
            "private",
            "bash",
            "/shared/bench/peer.sh",
            str(megabytes),
            how,
            f"/shared/bench/{name}",
        )
        rows = [line.split() for line in (self._places.shared / "bench" / name).read_text().splitlines()]
        return max((float(gap) for when, gap in rows if float(when) > float(began)), default=0.0)


def _root(lab: Lab) -> Path:
    init = lab.node("n1").init
    assert init is not None
    return Path(f"/proc/{init.pid}/root")


def _fetch(directory: Path, base: Path) -> Path:
    """The unpacked packages. apt resolves against the image's own list of what is installed, in directories of ours."""
    unpacked = directory / "root"
    if unpacked.exists():
        return unpacked
    for part in ("lists/partial", "cache/archives/partial", "fresh"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    # trusted: the machine's keyring may be of an older release than the image's suite; it is a bench that throws away what it gets
    (directory / "sources.list").write_text(f"deb [trusted=yes] {apt.mirror()} {recipe.SUITE} main\n", encoding="utf-8")
    settings = {
        "Dir::Etc::SourceList": directory / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State::Lists": directory / "lists",
        "Dir::State::Status": base / "var/lib/dpkg/status",
        "Dir::Cache": directory / "cache",
        "APT::Install-Recommends": "false",
        "Debug::NoLocking": "true",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    _run("apt-get", *options, "update")
    _run("apt-get", *options, "install", "--yes", "--download-only", *PACKAGES)
    for package in sorted((directory / "cache/archives").glob("*.deb")):
        _run("dpkg", "-x", str(package), str(directory / "fresh"))
    (directory / "fresh").rename(unpacked)
    return unpacked


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
