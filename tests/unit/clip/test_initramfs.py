"""The initramfs: what is in it, and what is said of bases without a kernel."""

import lzma
import stat
from pathlib import Path

import pytest

from clip import cpio, initramfs, modules
from clip.errors import ImageError

RELEASE = "6.12-test"
DEPENDENCIES = """\
kernel/drivers/net/virtio_net.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/fs/nfs/nfsv4.ko.xz: kernel/fs/nfs/nfs.ko.xz
kernel/fs/nfs/nfs.ko.xz:
kernel/fs/overlayfs/overlay.ko.xz:
kernel/net/bridge/bridge.ko.xz:
kernel/drivers/net/tg3.ko.xz: kernel/net/core/failover.ko.xz
kernel/sound/snd.ko.xz:
"""
BUILTIN = "kernel/drivers/virtio/virtio_pci.ko\n"


def unpack(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Name -> mode and content, of a cpio archive."""
    found, at = {}, 0
    while True:
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        at += (110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], data[at : at + fields[6]])
        at += (fields[6] + 3) // 4 * 4


@pytest.fixture
def base(tmp_path: Path) -> Path:
    root = tmp_path / "base-1/root"
    tree = root / "usr/lib/modules" / RELEASE
    for line in DEPENDENCIES.splitlines():
        file = tree / line.partition(":")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(lzma.compress(file.name.encode()))
    (tree / "modules.dep").write_text(DEPENDENCIES)
    (tree / "modules.builtin").write_text(BUILTIN)
    (tree / "modules.alias").write_text("alias pci:v1 tg3\nalias pci:v2 snd\n")
    (root / "boot").mkdir()
    (root / "boot" / f"vmlinuz-{RELEASE}").write_bytes(b"kernel")
    (root / "usr/bin").mkdir()
    (root / "usr/bin/busybox").write_bytes(b"busybox")
    return root


def test_kernel_and_what_a_boot_needs_are_there(base: Path, tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    initramfs.build(tmp_path / "boot", base)
    assert (tmp_path / "boot/root/vmlinuz").read_bytes() == b"kernel"
    files = unpack((tmp_path / "boot/root/initrd.img").read_bytes())
    tree = f"lib/modules/{RELEASE}"
    assert files["init"][0] == stat.S_IFREG | 0o755
    assert files["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert files[f"{tree}/kernel/fs/nfs/nfs.ko"][1] == b"nfs.ko.xz"  # unpacked
    assert files[f"{tree}/kernel/drivers/net/tg3.ko.xz"][1] == lzma.compress(b"tg3.ko.xz")  # as it was
    assert not [name for name in files if "snd" in name]
    dependencies = files[f"{tree}/modules.dep"][1].decode()
    assert "kernel/drivers/net/tg3.ko.xz: kernel/net/core/failover.ko\n" in dependencies
    assert files[f"{tree}/modules.alias"][1] == b"alias pci:v1 tg3\n"


def test_directories_come_before_what_is_in_them(base: Path, tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    initramfs.build(tmp_path / "boot", base)
    seen = {"."}
    for name, (mode, _) in unpack((tmp_path / "boot/root/initrd.img").read_bytes()).items():
        assert str(Path(name).parent) in seen, name
        if stat.S_ISDIR(mode):
            seen.add(name)


def test_the_same_base_gives_the_same_bytes(base: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        initramfs.build(tmp_path / name, base)
    assert (tmp_path / "one/root/initrd.img").read_bytes() == (tmp_path / "two/root/initrd.img").read_bytes()


def test_a_base_without_a_kernel_is_told(base: Path) -> None:
    (base / "boot" / f"vmlinuz-{RELEASE}").unlink()
    with pytest.raises(ImageError, match="base-1: it has no kernel"):
        initramfs.find_kernel(base)


def test_a_base_without_busybox_is_told(base: Path) -> None:
    (base / "usr/bin/busybox").unlink()
    with pytest.raises(ImageError, match="put the package busybox-static into it"):
        initramfs.find_kernel(base)


def test_a_kernel_without_nfs_is_told() -> None:
    with pytest.raises(ImageError, match="no module nfsv4"):
        modules.choose(DEPENDENCIES.replace("nfsv4", "nfsv5"), BUILTIN)


def test_an_empty_archive_ends_with_its_trailer() -> None:
    assert unpack(cpio.archive([])) == {}


def test_a_machine_has_its_name_before_it_mounts() -> None:
    """An NFS server knows its clients by their host's name: of two that are called alike each takes the other's state away."""
    script = initramfs.INIT.read_text(encoding="utf-8")
    body = script[script.rindex("\n}\n") :]
    assert body.index('hostname "$name"') < body.index("\nmount_root")
    assert "\nhostname" in body and body.index("mount_root") < body.index("mount_nfs")
