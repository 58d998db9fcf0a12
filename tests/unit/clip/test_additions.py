"""Files and users over a base: where links lead, with the directories' own modes."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from clip import accounts, additions, systemd
from clip.additions import Additions
from clip.errors import ImageError
from crds.image import ImageSpec, ImageUser
from tests.fakes.workshop import GROUP, GSHADOW, PASSWD, SHADOW

TEXTS = {accounts.PASSWD: PASSWD, accounts.GROUP: GROUP, accounts.SHADOW: SHADOW, accounts.GSHADOW: GSHADOW}


def user(name: str, uid: int, **fields: Any) -> ImageUser:
    return ImageUser.model_validate({"name": name, "uid": uid} | fields)


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Who was made the owner of what: tests are not root."""
    given: dict[str, tuple[int, int]] = {}

    def chown(path: Path, uid: int, gid: int) -> None:
        given[str(path).partition("/layer/root")[2]] = (uid, gid)

    monkeypatch.setattr(os, "chown", chown)
    return given


@pytest.fixture
def base(tmp_path: Path) -> Path:
    root = tmp_path / "base"
    for file, text in TEXTS.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    (root / "usr/lib/systemd").mkdir(parents=True)
    (root / "root").mkdir(mode=0o700)
    (root / "lib").symlink_to("usr/lib")
    (root / "opt").symlink_to("/usr/../usr/lib/systemd")
    (root / "loop").symlink_to("loop")
    return root


def build(tmp_path: Path, base: Path, **spec: Any) -> Path:
    layer = tmp_path / "layer"
    layer.mkdir()
    additions.build(layer, Additions.of(ImageSpec.model_validate(spec)), base)
    return layer / "root"


def test_users_get_groups_of_their_own_and_those_they_name() -> None:
    people = [
        user("ann", 2000, groups=["users", "bob"]),
        user("bob", 2001, gid=100, shell="/bin/sh", home="/srv/bob"),
        user("cid", 2002),
    ]
    with pytest.raises(ImageError, match="user ann: the image has no group bob"):
        accounts.with_users(TEXTS, people)
    texts = accounts.with_users(TEXTS, [user("ann", 2000, groups=["users", "cid"]), *people[1:]])
    assert texts[accounts.PASSWD].splitlines()[-3:] == [
        "ann:x:2000:2000::/home/ann:/bin/bash",
        "bob:x:2001:100::/srv/bob:/bin/sh",
        "cid:x:2002:2002::/home/cid:/bin/bash",
    ]
    assert {"users:x:100:ann", "ann:x:2000:", "cid:x:2002:ann"} <= set(texts[accounts.GROUP].splitlines())
    assert texts[accounts.SHADOW].count(":*:") == 5, "nobody gets in by a password"
    assert texts[accounts.PASSWD].startswith(PASSWD)


@pytest.mark.parametrize(
    ("person", "words"),
    [
        (user("root", 2000), "there is root (0)"),
        (user("ann", 1), "there is daemon (1)"),
        (user("ann", 42), "there is shadow (42); say gid: 42"),
        (user("users", 2000), "there is users (100)"),
    ],
)
def test_an_account_that_is_there_already_is_told(person: ImageUser, words: str) -> None:
    with pytest.raises(ImageError, match=re.escape(words)) as caught:
        accounts.with_users(TEXTS, [person])
    assert caught.value.reason == "UnknownAccount"


def test_files_go_where_the_links_below_lead(tmp_path: Path, base: Path, owners: dict[str, tuple[int, int]]) -> None:
    root = build(
        tmp_path, base, files=[{"path": "/lib/a", "content": "A"}, {"path": "/opt/b/c", "content": "B"}, {"path": "/etc/motd"}]
    )
    assert (root / "usr/lib/a").read_text() == "A" and not (root / "lib").exists(), "a directory would hide the link below"
    assert (root / "usr/lib/systemd/b/c").read_text() == "B"
    assert (root / "etc/motd").read_text() == ""


def test_directories_keep_the_mode_they_have_below(tmp_path: Path, base: Path, owners: dict[str, tuple[int, int]]) -> None:
    root = build(tmp_path, base, files=[{"path": "/root/.bashrc"}, {"path": "/new/x", "mode": "4755", "owner": "daemon:shadow"}])
    assert (root / "root").stat().st_mode & 0o7777 == 0o700
    assert (root / "new").stat().st_mode & 0o7777 == 0o755
    assert (root / "new/x").stat().st_mode & 0o7777 == 0o4755
    assert owners["/new/x"] == (1, 42)


def test_keys_make_a_home_that_is_the_users(tmp_path: Path, base: Path, owners: dict[str, tuple[int, int]]) -> None:
    people = [{"name": "ann", "uid": 2000, "sshKeys": ["ssh-ed25519 A ann", "ssh-ed25519 B"]}, {"name": "bob", "uid": 2001}]
    root = build(tmp_path, base, users=people, files=[{"path": "/home/ann/x", "owner": "ann"}])
    assert (root / "home/ann/.ssh/authorized_keys").read_text() == "ssh-ed25519 A ann\nssh-ed25519 B\n"
    assert (root / "home/ann").stat().st_mode & 0o7777 == 0o700
    assert owners["/home/ann"] == owners["/home/ann/.ssh"] == owners["/home/ann/x"] == (2000, 2000)
    assert not (root / "home/bob").exists(), "homes lie on shared storage"
    assert (root / "etc/shadow").stat().st_mode & 0o7777 == 0o640 and owners["/etc/shadow"] == (0, 42)


def test_systemd_starts_agent_and_guard(tmp_path: Path, base: Path, owners: dict[str, tuple[int, int]]) -> None:
    root = build(tmp_path, base, init="systemd")
    wanted = {path.name: str(path.readlink()) for path in (root / additions.WANTED).iterdir()}
    assert wanted == {unit: f"/usr/lib/systemd/system/{unit}" for unit in systemd.UNITS}
    assert str((root / "etc/systemd/system/etcd.service").readlink()) == "/dev/null", "a node is no member of etcd"
    assert (root / "etc/machine-id").read_text() == "", "no boot is taken for the first one"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"path": "/etc"}, "the image has a directory there"),
        ({"path": "/etc/passwd/x"}, "/etc/passwd is no directory"),
        ({"path": "/loop/x"}, "in a circle"),
        ({"path": "/x", "owner": "nobody-here"}, "no user nobody-here"),
        ({"path": "/x", "owner": "root:nobody-here"}, "no group nobody-here"),
    ],
)
def test_files_that_cannot_be_are_told(
    tmp_path: Path, base: Path, owners: dict[str, tuple[int, int]], file: dict[str, str], words: str
) -> None:
    with pytest.raises(ImageError, match=words):
        build(tmp_path, base, files=[file])
