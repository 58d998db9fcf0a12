"""The kernel layer: a Debian kernel with its modules, and the two programs that a booting machine needs for them.

A layer of its own, taken out of the packages without installing them: a minute less than an installation, which would also make an
initramfs that nobody wants; it is shared by all images with this kernel, and namespace nodes, which have no use for it, go without.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

from clip import apt
from clip.errors import NO_KERNEL, ImageError
from clip.progress import Report
from clip.recipe import SUITE
from clip.workshop import Workshop

KERNEL = "kernel-"
BESIDE = ("busybox-static", "kmod", "liblzma5", "libzstd1")
"""busybox is for the initramfs; kmod loads modules, packed ones by the two libraries."""
KEPT = (
    "boot/vmlinuz-*",
    "boot/config-*",
    "usr/lib/modules",
    "usr/lib/modprobe.d",
    "usr/lib/depmod.d",
    "usr/bin/busybox",
    "usr/bin/kmod",
    "usr/bin/lsmod",
    "usr/sbin/depmod",
    "usr/sbin/insmod",
    "usr/sbin/lsmod",
    "usr/sbin/modinfo",
    "usr/sbin/modprobe",
    "usr/sbin/rmmod",
    "usr/lib/*/libkmod.so.*",
)
"""All else is in the base, or of no use."""
_MERGED = ("bin", "lib", "lib64", "sbin")
_DEPMOD_SECONDS = 120
PHASES = 7


def text(package: str, machine: str) -> str:
    """Everything the layer depends on."""
    return f"kernel: 2 {machine} {SUITE} {package} {' '.join(BESIDE)} {' '.join(KEPT)}\n"


def layer_name(package: str, machine: str) -> str:
    """The layer's name; ``machine`` as uname says it."""
    return f"{KERNEL}{hashlib.sha256(text(package, machine).encode()).hexdigest()[:12]}"


def mmdebstrap(root: str, package: str, mirror: str, apt_options: tuple[str, ...]) -> list[str]:
    """The command that takes the packages apart below ``root``."""
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=extract",
        "--format=directory",
        f"--include={','.join((package, *BESIDE))}",
        *(f"--aptopt={option}" for option in apt_options),
        SUITE,
        root,
        f"deb {mirror} {SUITE} main",
    ]


def build(layer: Path, package: str, workshop: Workshop, report: Report, lock: int) -> None:
    """Makes ``layer/root``. ImageError; NoKernel when the package brings none."""
    whole, root = layer / "whole", layer / "root"
    workshop.debian(mmdebstrap(str(whole), package, apt.mirror(), apt.proxy_options()), report, lock)
    release = release_of(whole, package)
    for name in _MERGED:  # without base-files nobody has made these, and programs do not start
        if not (whole / name).exists():
            (whole / name).symlink_to(f"usr/{name}")
    report("listing the kernel's modules")
    workshop.run(["chroot", str(whole), "/usr/sbin/depmod", "-a", release], _DEPMOD_SECONDS)
    root.mkdir()
    kept = [found for pattern in KEPT for found in sorted(whole.glob(pattern))]  # all first: without kmod, its links are none
    for found in kept:
        target = root / found.relative_to(whole)
        target.parent.mkdir(parents=True, exist_ok=True)
        found.rename(target)
    _remove(whole)


def release_of(root: Path, package: str = "") -> str:
    """Release of the one kernel in a tree. ImageError."""
    found = sorted(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    if len(found) == 1 and (root / "usr/lib/modules" / found[0]).is_dir():
        return found[0]
    have = f"{len(found)} kernels" if len(found) > 1 else "no kernel" if not found else "a kernel without modules"
    raise ImageError(
        f"node image: the package {package or 'of the kernel'} brings {have}; name one linux-image package in spec.kernel",
        NO_KERNEL,
    )


def _remove(tree: Path) -> None:
    """Takes longer in Python than all of the above."""
    if subprocess.run(["rm", "-rf", "--", str(tree)], check=False, timeout=_DEPMOD_SECONDS).returncode:
        shutil.rmtree(tree)
