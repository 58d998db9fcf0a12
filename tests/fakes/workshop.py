"""A workshop without Debian: its mmdebstrap makes a small tree in a moment, and fails on demand.

workshop.packages["curl"] = "8.2"      what the mirror has by now; a build takes what it finds
workshop.say = [...]; workshop.code = 100   the next mmdebstrap says that and ends so
workshop.full = True                   the disk is full in the middle of unpacking
workshop.crash_at = "unpacking"        the builder dies (Crash) at that phase
workshop.pause = event                 mmdebstrap waits for it while it unpacks, or for ``stop``
"""

import threading
from collections.abc import Sequence
from pathlib import Path

from clip.errors import NO_BUILDER, ImageError
from clip.failures import explain
from clip.progress import Report

RELEASE = "6.12.1+deb13-cloud-amd64"
KERNELS = {"linux-image-amd64": "6.12.1+deb13-amd64", "linux-image-cloud-amd64": RELEASE}
PASSWD = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
GROUP = "root:x:0:\ndaemon:x:1:\nshadow:x:42:\nusers:x:100:\n"
SHADOW = "root:*:19700:0:99999:7:::\ndaemon:*:19700:0:99999:7:::\n"
GSHADOW = "root:*::\ndaemon:*::\nshadow:*::\nusers:*::\n"
PHASES = ("running apt-get update", "downloading packages with apt", "unpacking")


class Crash(BaseException):
    """The builder is gone: nothing catches it."""


class FakeWorkshop:
    """``built`` lists the targets of all mmdebstraps, ``ran`` the other commands."""

    def __init__(self) -> None:
        self.packages = {"python3": "3.13.5", "curl": "8.1", "bash": "5.2"}
        self.say: list[str] = []
        self.code = 0
        self.full = False
        self.absent = False
        self.crash_at = ""
        self.pause: threading.Event | None = None
        self.built: list[str] = []
        self.ran: list[Sequence[str]] = []
        self._stopped = threading.Event()

    def check(self) -> None:
        if self.absent:
            raise ImageError("node image: mmdebstrap is missing here", NO_BUILDER)

    def debian(self, command: Sequence[str], report: Report, lock: int) -> None:
        root = Path(next(word for word in command[1:] if word.startswith("/")))
        included = next(word for word in command if word.startswith("--include=")).removeprefix("--include=").split(",")
        self.built.append(root.parent.name)
        self._stopped.clear()
        root.mkdir()
        for phase in PHASES:
            report(phase)
            (root / "half-built").write_text(phase)
            if phase == self.crash_at:
                raise Crash(phase)
        if self.pause is not None:
            while not self.pause.wait(0.01):
                if self._stopped.is_set():
                    raise explain(command[0], 143, ["terminated"])
        if self.full:
            raise explain(command[0], 1, ["dpkg: error processing archive: No space left on device"])
        if self.code:
            raise explain(command[0], self.code, self.say)
        for name in included:
            if name not in self.packages and "." not in name and name.startswith("no-"):
                raise explain(command[0], 100, [f"E: Unable to locate package {name}"])
        (root / "half-built").unlink()
        if "--variant=extract" in command:
            self._kernel(root, included[0])
        else:
            self._debian(root, included)

    def run(self, command: Sequence[str], seconds: float) -> str:
        self.ran.append(tuple(command))
        target = next((word.removeprefix("--target=") for word in command if word.startswith("--target=")), None)
        if target is not None:
            (Path(target) / "pydantic").mkdir(parents=True)
        if "depmod" in command[2]:
            for name in ("modules.dep", "modules.alias", "modules.builtin"):
                file = Path(command[1]) / "usr/lib/modules" / command[-1] / name
                file.write_text("\n".join(f"{module}.ko:" for module in MODULES) + "\n" if name == "modules.dep" else "")
        return "4.2.1 3.5.30"

    def stop(self) -> None:
        self._stopped.set()

    def _debian(self, root: Path, included: Sequence[str]) -> None:
        texts = {"passwd": PASSWD, "group": GROUP, "shadow": SHADOW, "gshadow": GSHADOW}
        for name, text in texts.items():
            _write(root / "etc" / name, text)
        for name in ("root", "tmp", "usr/bin", "usr/lib", "mnt", "usr/lib/mx"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "root").chmod(0o700)
        (root / "lib").symlink_to("usr/lib")
        entries = [
            f"Package: {name}\nStatus: install ok installed\nVersion: {self.packages.get(name, '1')}\n" for name in sorted(included)
        ]
        _write(root / "var/lib/dpkg/status", "\n".join(entries))
        _write(root / "etc/apt/sources.list", f"deb http://127.0.0.1/{len(self.built)} trixie main\n")

    def _kernel(self, root: Path, package: str) -> None:
        _write(root / "usr/bin/busybox", "busybox")
        _write(root / "usr/bin/kmod", "kmod")
        (root / "usr/sbin").mkdir()
        (root / "usr/sbin/modprobe").symlink_to("../bin/kmod")  # as in Debian
        _write(root / "usr/bin/ls", "not wanted")
        if package in KERNELS:
            release = KERNELS[package]
            _write(root / f"boot/vmlinuz-{release}", "kernel")
            for module in MODULES:
                _write(root / f"usr/lib/modules/{release}/{module}.ko", module)


MODULES = ("virtio_pci", "virtio_net", "nfsv4", "overlay", "bridge")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
