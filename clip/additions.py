"""The files layer: what an image's spec adds to Debian: files, users, and what makes systemd start our daemons.

It lies over base and kernel. In an overlay a directory of an upper layer lends its own mode and owner to the merged one, and hides
a link of a lower layer; so directories are made as the layers below have them, at the place that links there lead to.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clip import accounts, systemd
from clip.errors import ImageError
from crds.image import ImageFile, ImageSpec, ImageUser, Init

FILES = "files-"
WANTED = "etc/systemd/system/multi-user.target.wants"
SYSTEMD_PACKAGES = ("dbus", "systemd-sysv", "udev")
_LINKS = 40


@dataclass(frozen=True, slots=True)
class Additions:
    """What is to be added. Nothing at all needs no layer."""

    files: tuple[ImageFile, ...] = ()
    users: tuple[ImageUser, ...] = ()
    init: Init = Init.MINIMAL

    @classmethod
    def of(cls, spec: ImageSpec) -> "Additions":
        """Those of a spec; the order of files does not matter, so it is not kept."""
        return cls(tuple(sorted(spec.files, key=lambda file: file.path)), tuple(spec.users), spec.init)

    def text(self) -> str:
        """Everything the layer depends on but the layers below."""
        parts = [f"files: 2 {self.init}\n"]
        if self.init is Init.SYSTEMD:
            parts.append(f"masked: {' '.join(systemd.MASKED)}\n")
        parts += [part.to_json().decode() + "\n" for part in (*self.files, *self.users)]
        return "".join(parts)

    @property
    def is_empty(self) -> bool:
        """There is nothing to add."""
        return not self.files and not self.users and self.init is Init.MINIMAL

    def layer(self, base: str) -> str:
        """The layer's name, over a base."""
        return f"{FILES}{hashlib.sha256((self.text() + base).encode()).hexdigest()[:12]}"


def build(layer: Path, what: Additions, base_root: Path) -> None:
    """Makes ``layer/root``. ImageError naming the user or file that cannot be."""
    root = layer / "root"
    root.mkdir()
    shutil.copystat(base_root, root)
    tree = _Tree(root, base_root)
    texts = {file: (base_root / file).read_text(encoding="utf-8") for file in accounts.FILES}
    if what.users:
        texts = accounts.with_users(texts, what.users)
        gid_of_shadow = accounts.number_of(texts[accounts.GROUP], "shadow", "group")
        for file, text in texts.items():
            tree.write(f"/{file}", text, accounts.MODES[file], 0, gid_of_shadow if "shadow" in file else 0)
    for person in what.users:
        _add_keys(tree, person)
    for added in what.files:
        user, _, group = added.owner.partition(":")
        uid = accounts.number_of(texts[accounts.PASSWD], user, "user")
        gid = accounts.number_of(texts[accounts.GROUP], group, "group") if group else _primary(texts[accounts.PASSWD], user)
        tree.write(added.path, added.content, int(added.mode, 8), uid, gid)
    if what.init is Init.SYSTEMD:
        for unit in systemd.UNITS:
            tree.link(f"/{WANTED}/{unit}", f"/usr/lib/systemd/system/{unit}")
        tree.write("/etc/machine-id", "", 0o444, 0, 0)  # empty, not absent: else every boot is a first one, and enables all units
        for unit in systemd.MASKED:
            tree.link(f"/etc/systemd/system/{unit}", "/dev/null")


def _primary(passwd: str, user: str) -> int:
    for line in passwd.splitlines():
        fields = line.split(":")
        if user in (fields[0], fields[2]):
            return int(fields[3])
    return 0


def _add_keys(tree: "_Tree", user: ImageUser) -> None:
    if user.ssh_keys:
        gid = user.uid if user.gid is None else user.gid
        tree.directory(user.directory, 0o700, user.uid, gid)
        tree.directory(f"{user.directory}/.ssh", 0o700, user.uid, gid)
        tree.write(f"{user.directory}/.ssh/authorized_keys", "".join(f"{key}\n" for key in user.ssh_keys), 0o600, user.uid, gid)


class _Tree:
    """A layer's tree over that of the layer below."""

    def __init__(self, root: Path, below: Path) -> None:
        self._root = root
        self._below = below

    def write(self, path: str, content: str, mode: int, uid: int, gid: int) -> None:
        """A file; what is there already is replaced."""
        target = self._place(path)
        if (self._below / target.relative_to(self._root)).is_dir() or target.is_dir():
            raise ImageError(f"node image: file {path} cannot be added: the image has a directory there; choose another path")
        target.unlink(missing_ok=True)
        target.write_text(content, encoding="utf-8")
        _give(target, mode, uid, gid)

    def directory(self, path: str, mode: int, uid: int, gid: int) -> None:
        """A directory of its own."""
        target = self._place(path)
        target.mkdir(exist_ok=True)
        _give(target, mode, uid, gid)

    def link(self, path: str, to: str) -> None:
        """A symbolic link."""
        self._place(path).symlink_to(to)

    def _place(self, path: str) -> Path:
        """Where a file of this path lies in the layer; its directories are made."""
        parent = PurePosixPath(path).parent
        here = PurePosixPath("/")
        for name in _resolve(self._below, parent.parts[1:], path):
            here = here / name
            self._make(here)
        return self._root / here.relative_to("/") / PurePosixPath(path).name

    def _make(self, directory: PurePosixPath) -> None:
        made, below = (top / directory.relative_to("/") for top in (self._root, self._below))
        if made.is_dir():
            return
        made.mkdir()
        status = below.stat() if below.is_dir() else None
        _give(made, status.st_mode & 0o7777 if status else 0o755, status.st_uid if status else 0, status.st_gid if status else 0)


def _give(path: Path, mode: int, uid: int, gid: int) -> None:
    os.chown(path, uid, gid)
    path.chmod(mode)  # last: chown takes set-user-id bits away


def _resolve(below: Path, names: Sequence[str], path: str) -> list[str]:
    """The directory's real parts, after the links in the tree below. Never leaves the tree."""
    left, real, followed = list(names), list[str](), 0
    while left:
        name = left.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            real = real[:-1]
            continue
        there = below.joinpath(*real, name)
        if there.is_symlink():
            followed += 1
            if followed > _LINKS:
                raise ImageError(f"node image: file {path} cannot be added: the links of the image on its way go in a circle")
            to = str(there.readlink())
            real = [] if to.startswith("/") else real
            left = [*to.split("/"), *left]
        elif there.exists() and not there.is_dir():
            raise ImageError(
                f"node image: file {path} cannot be added: /{'/'.join((*real, name))} is no directory; choose another path"
            )
        else:
            real.append(name)
    return real
