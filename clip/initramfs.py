"""The boot layer: kernel and initramfs, made from a base layer that has a kernel.

Our own initramfs, because Debian's takes twice as long and knows neither our layers nor our words. It holds busybox, a handful of
modules and ``files/init.sh``. It is not compressed: the network brings it faster than the machine unpacks it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clip import cpio, modules
from clip.cache import Shelf
from clip.errors import ImageError

BOOT = "boot-"
KERNEL, INITRD = "vmlinuz", "initrd.img"
INIT = Path(__file__).with_name("files") / "init.sh"
LINKS = {"bin/sh": "busybox", "sbin/modprobe": "../bin/busybox"}
"""The shell runs busybox's other programs without links; the kernel calls modprobe by this path."""
DIRECTORIES = ("bin", "sbin", "dev", "proc", "sys", "run", "lib", "lib/modules", "layers", "writable", "root")
PACKAGES = ("busybox-static", "kmod")
"""What a base with a kernel needs beside it."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel in a base layer."""

    release: str
    image: Path
    modules: Path
    busybox: Path


def find_kernel(base_root: Path) -> Kernel:
    """The one kernel of a base layer. ImageError when there is none, or several, or a part of it is missing."""
    found = sorted((base_root / "boot").glob("vmlinuz-*"))
    if len(found) != 1:
        have = f"{len(found)} kernels" if found else "no kernel"
        raise ImageError(
            f"{base_root.parent.name}: it has {have}, and a machine boots exactly one; put one linux-image package into it"
        )
    release = found[0].name.removeprefix("vmlinuz-")
    kernel = Kernel(release, found[0], base_root / "usr/lib/modules" / release, base_root / "usr/bin/busybox")
    for path, package in ((kernel.modules / "modules.dep", "kmod"), (kernel.busybox, "busybox-static")):
        if not path.is_file():
            raise ImageError(
                f"{base_root.parent.name}: {path.relative_to(base_root)} is missing; put the package {package} into it"
            )
    return kernel


def layer_name(base: str) -> str:
    """The boot layer's name: over the base and over all that this module does with it."""
    total = hashlib.sha256(f"boot 1 {base} {LINKS} {DIRECTORIES} {modules.NEEDED} {modules.NETWORK_CARDS}\n".encode())
    total.update(INIT.read_bytes())
    return f"{BOOT}{total.hexdigest()[:12]}"


def ensure(shelf: Shelf, base: str) -> str:
    """The name of the base's boot layer, which is made when it is not there. ImageError."""
    name = layer_name(base)
    shelf.ensure(name, lambda layer, _lock: build(layer, shelf.root(base)))
    return name


def build(layer: Path, base_root: Path) -> None:
    """Makes ``layer/root`` with kernel and initramfs. ImageError."""
    kernel = find_kernel(base_root)
    root = layer / "root"
    root.mkdir()
    (root / KERNEL).write_bytes(kernel.image.read_bytes())
    (root / INITRD).write_bytes(cpio.archive(_entries(kernel)))


def _entries(kernel: Kernel) -> Iterator[cpio.Entry]:
    for name in DIRECTORIES:
        yield cpio.directory(name)
    yield cpio.terminal("dev/console", 5, 1)  # the first program's voice, before anything is mounted
    yield cpio.regular("init", INIT.read_bytes(), executable=True)
    yield cpio.regular("bin/busybox", kernel.busybox.read_bytes(), executable=True)
    for name, target in LINKS.items():
        yield cpio.link(name, target)
    yield from _modules(kernel)


def _modules(kernel: Kernel) -> Iterator[cpio.Entry]:
    dependencies = _text(kernel, "modules.dep")
    chosen = modules.choose(dependencies, _text(kernel, "modules.builtin"))
    base = f"lib/modules/{kernel.release}"
    files = {f"{base}/{name}": _stored(kernel.modules / file, name) for file, name in chosen.items()}
    files[f"{base}/modules.dep"] = modules.small_dependencies(dependencies, chosen).encode()
    files[f"{base}/modules.alias"] = modules.small_aliases(_text(kernel, "modules.alias"), chosen).encode()
    parents = {str(parent) for name in files for parent in Path(name).parents} - {".", *DIRECTORIES}
    yield from map(cpio.directory, sorted(parents))
    for name in sorted(files):
        yield cpio.regular(name, files[name])


def _text(kernel: Kernel, name: str) -> str:
    return (kernel.modules / name).read_text(encoding="utf-8")


def _stored(file: Path, name: str) -> bytes:
    return file.read_bytes() if name.endswith(file.suffix) else modules.unpacked(file)
