"""The head layer: the programs of other people that serve machines, and the emulator that lab machines run in.

A whole Debian tree of its own, because the building machine's release may have older ones (QEMU below 10 loses boots). Nothing
of it is installed on the building machine; the head of a lab has it below the image's own layers, which win where both have a file.
"""

import hashlib
from pathlib import Path

from clip import apt, base
from clip.cache import Shelf
from clip.progress import Report, silent
from clip.recipe import LEFT_OUT, SUITE
from clip.workshop import HOST, Workshop

HEAD = "head-"
PACKAGES = (
    "busybox-static",
    "dnsmasq-base",
    "iproute2",
    "ipxe",
    "nfs-ganesha",
    "nfs-ganesha-vfs",
    "ovmf",
    "python3-aiohttp",
    "python3-cryptography",
    "qemu-system-x86",
)
PHASES = base.PHASES


def layer_name(machine: str) -> str:
    """The layer's name, over all that it is made from; ``machine`` as uname says it."""
    facts = ("head 1", machine, SUITE, *PACKAGES, *LEFT_OUT)
    return f"{HEAD}{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:12]}"


def is_built(shelf: Shelf, machine: str) -> bool:
    """It is there."""
    return shelf.root(layer_name(machine)).is_dir()


def ensure(shelf: Shelf, machine: str, report: Report = silent, workshop: Workshop = HOST) -> str:
    """The layer's name; it is built (about a minute) when it is not there. Needs root then; ImageError."""
    name = layer_name(machine)
    shelf.ensure(name, lambda layer, lock: _build(layer, workshop, report, lock))
    return name


def _build(layer: Path, workshop: Workshop, report: Report, lock: int) -> None:
    report("asking apt for its mirror")
    command = mmdebstrap(str(layer / "root"), apt.mirror(), apt.proxy_options())
    workshop.debian(command, report, lock)


def mmdebstrap(root: str, mirror: str, apt_options: tuple[str, ...]) -> list[str]:
    """The command that makes the tree at ``root``."""
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=essential",
        "--format=directory",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--aptopt={option}" for option in apt_options),
        SUITE,
        root,
        f"deb {mirror} {SUITE} main",
    ]
