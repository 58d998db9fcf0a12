"""What a job takes over from whoever starts it."""

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from crds.job import Job, RunAs
from mxctl.core.caller import identity, shared_directory
from mxctl.core.failures import Failure
from tests.unit.mxctl.terminal import Terminal

ALICE = pwd.struct_passwd(("alice", "x", 1000, 1001, "", "/home/alice", "/bin/sh"))


@pytest.fixture
def alice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls, and is the only user there is."""

    def find(wanted: Any) -> pwd.struct_passwd:
        if wanted not in ("alice", 1000):
            raise KeyError(wanted)
        return ALICE

    for name, value in {"geteuid": 1000, "getegid": 1001, "getgroups": [1001, 27, 4]}.items():
        monkeypatch.setattr(os, name, lambda value=value: value)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 100])
    monkeypatch.setattr(pwd, "getpwnam", find)
    monkeypatch.setattr(pwd, "getpwuid", find)


@pytest.mark.usefixtures("alice")
def test_a_job_runs_as_who_calls(terminal: Terminal) -> None:
    assert terminal.run("run", "--name", "w", "--env", "USER=me", "--", "true").code == 0
    spec = terminal.do(lambda store: store.get(Job, "w")).spec
    assert spec.user == RunAs(uid=1000, gid=1001, groups=[4, 27])
    assert spec.env == {"USER": "me", "LOGNAME": "alice"}


def test_root_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "1000")
    for name in ("geteuid", "getegid"):
        monkeypatch.setattr(os, name, lambda: 0)
    assert identity(None).user == RunAs()
    assert identity(None).env == {}


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(
    ("wish", "user"),
    [
        ("alice", RunAs(uid=1000, gid=1001, groups=[100])),
        ("1000", RunAs(uid=1000, gid=1001, groups=[100])),
        ("alice:7", RunAs(uid=1000, gid=7)),
        ("4711", RunAs(uid=4711, gid=4711)),
        ("4711:42", RunAs(uid=4711, gid=42)),
    ],
)
def test_another_user(wish: str, user: RunAs) -> None:
    assert identity(wish).user == user


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(("wish", "message"), [("bob", 'no user "bob"'), ("alice:nogroupofthisname", "no group")])
def test_a_user_nobody_knows(wish: str, message: str) -> None:
    with pytest.raises(Failure, match=message):
        identity(wish)


def test_limits_nice_and_umask(terminal: Terminal) -> None:
    options = ["--limit", "nofile=4096", "--limit", "core=unlimited", "--nice", "5", "--umask", "077"]
    assert terminal.run("run", "--name", "w", *options, "--", "true").code == 0
    spec = terminal.do(lambda store: store.get(Job, "w")).spec
    assert (spec.limits, spec.nice, spec.umask) == ({"nofile": 4096, "core": -1}, 5, "077")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "nofiles=1"], 'did you mean "nofile"'),
        (["--limit", "nofile"], "is not NAME=NUMBER"),
        (["--limit", "nofile=many"], "neither a number nor unlimited"),
        (["--umask", "9"], "spec.umask"),
        (["--nice", "20"], "-20<=x<=19"),
    ],
)
def test_what_makes_no_sense(terminal: Terminal, options: list[str], message: str) -> None:
    said = terminal.run("run", *options, "--", "true")
    assert said.code != 0
    assert message in said.err


def test_working_directory_below_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "shared/a/b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert shared_directory(str(tmp_path / "shared")) == "/shared/a/b"
    monkeypatch.chdir(tmp_path / "shared")
    assert shared_directory(str(tmp_path / "shared")) == "/shared"
    monkeypatch.chdir(tmp_path)
    assert shared_directory(str(tmp_path / "shared")) is None
    assert shared_directory(None) is None
