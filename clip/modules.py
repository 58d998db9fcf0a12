"""Which kernel modules a machine needs to come to its root, from the tables that lie beside them. Pure but for reading modules.

What every boot loads is stored unpacked, as unpacking costs the machine more than fetching.
"""

import lzma
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from clip.errors import ImageError

NEEDED = ("virtio_pci", "virtio_net", "nfsv4", "overlay", "bridge")
"""Loaded at every boot. All of them have to be there."""
NETWORK_CARDS = (
    "e1000", "e1000e", "igb", "igc", "ixgbe", "i40e", "ice", "r8169", "8139cp", "tg3", "bnx2", "bnx2x", "bnxt_en", "atlantic",
    "alx", "atl1c", "sky2", "forcedeth", "mlx4_en", "mlx5_core", "vmxnet3", "ena", "hv_netvsc", "gve", "realtek", "broadcom",
)  # fmt: skip
"""Of common machines; those the kernel has are taken along, and loaded where the hardware asks for them."""
_UNPACK_SECONDS = 30


def names_of(dependencies: str) -> dict[str, tuple[str, ...]]:
    """From the text of modules.dep: module -> its file and those of all it needs, itself first, relative to the tree."""
    table: dict[str, tuple[str, ...]] = {}
    for line in dependencies.splitlines():
        file, _, needs = line.partition(":")
        table[name_of(file)] = (file, *needs.split())
    return table


def name_of(file: str) -> str:
    """``kernel/net/802/stp.ko.xz`` -> ``stp``; the kernel does not tell "-" from "_"."""
    return file.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def choose(dependencies: str, builtin: str) -> dict[str, str]:
    """Files to take along -> their names in the initramfs. ImageError when the kernel lacks what is needed at every boot.

    What every machine loads is stored unpacked, drivers that one machine in many needs as they are.
    """
    table = names_of(dependencies)
    compiled_in = {name_of(line) for line in builtin.split()}
    for name in NEEDED:
        if name not in table and name not in compiled_in:
            raise ImageError(f"the kernel has no module {name}, without which no machine boots; take another linux-image package")
    always = {file for name in NEEDED for file in table.get(name, ())}
    sometimes = {file for name in NETWORK_CARDS for file in table.get(name, ())}
    return {file: _plain(file) if file in always else file for file in sorted(always | sometimes)}


def _plain(file: str) -> str:
    return file.removesuffix(".xz").removesuffix(".zst").removesuffix(".gz")


def small_dependencies(dependencies: str, chosen: Mapping[str, str]) -> str:
    """modules.dep for the chosen files, by their names in the initramfs."""
    lines = []
    for line in dependencies.splitlines():
        file, _, needs = line.partition(":")
        if file in chosen:
            lines.append(f"{chosen[file]}:" + "".join(f" {chosen[need]}" for need in needs.split()))
    return "\n".join(lines) + "\n"


def small_aliases(aliases: str, chosen: Iterable[str]) -> str:
    """modules.alias for the chosen files alone."""
    names = {name_of(file) for file in chosen}
    lines = [line for line in aliases.splitlines() if line.startswith("alias ") and line.split()[-1].replace("-", "_") in names]
    return "\n".join(lines) + "\n"


def unpacked(path: Path) -> bytes:
    """The module's own bytes. ImageError."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        done = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, timeout=_UNPACK_SECONDS, check=False)
        if done.returncode:
            raise ImageError(f"{path.name}: cannot be unpacked: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout
    return data
