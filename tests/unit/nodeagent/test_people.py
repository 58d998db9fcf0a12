"""Who is logged in, and how fast the machine is."""

import os
from pathlib import Path

import psutil
import pytest

from nodeagent.people import UNKNOWN, People
from nodeagent.speed import FILE, UNIT, measure, speed_of


def session(directory: Path, name: str, **facts: object) -> None:
    directory.mkdir(exist_ok=True)
    lines = {"CLASS": "user", "STATE": "active", "UID": 1000, "LEADER": os.getpid(), **facts}
    (directory / name).write_text("# private\n" + "".join(f"{key}={value}\n" for key, value in lines.items()))


def test_sessions_of_logind(tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    people = People(sessions, tmp_path / "utmp")
    assert people.logged_in() == {}
    session(sessions, "1", USER="ann")
    session(sessions, "2", USER="gdm", CLASS="greeter")
    session(sessions, "3", USER="gone", STATE="closing")
    session(sessions, "4", USER="dead", LEADER=2**22 + 1)
    os.utime(sessions, ns=(1, 1))
    assert people.logged_in() == {"ann": 1000}
    (sessions / "1").unlink()
    os.utime(sessions, ns=(2, 2))
    assert people.logged_in() == {}


def test_utmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class User:
        name, pid = "nobody-knows-him", os.getpid()

    monkeypatch.setattr(psutil, "users", lambda: [User])
    (tmp_path / "utmp").write_bytes(b"")
    assert People(tmp_path / "sessions", tmp_path / "utmp").logged_in() == {"nobody-knows-him": UNKNOWN}


def test_what_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    monkeypatch.setattr(psutil, "users", lambda: reads.append(1) or [])
    (tmp_path / "utmp").write_bytes(b"")
    people = People(tmp_path / "sessions", tmp_path / "utmp")
    for _ in range(5):
        people.logged_in()
    assert len(reads) == 1


def test_the_best_try_is_the_speed_whatever_disturbs_the_others() -> None:
    times = iter([0.0, 0.0, 9 * UNIT, 10 * UNIT, 12 * UNIT, 13 * UNIT, 13.5 * UNIT, 1000.0])
    assert measure(lambda: next(times)) == 2.0


def test_the_best_of_all_starts_is_kept_for_its_processor(tmp_path: Path) -> None:
    assert speed_of(tmp_path, "Xeon", lambda: 1.0) == 1.0
    assert speed_of(tmp_path, "Xeon", lambda: 0.5) == 1.0
    assert speed_of(tmp_path, "Xeon", lambda: 1.2) == 1.2
    assert speed_of(tmp_path, "Epyc", lambda: 0.8) == 0.8
    (tmp_path / FILE).write_text("rubbish")
    assert speed_of(tmp_path, "Epyc", lambda: 0.7) == 0.7
    assert speed_of(Path("/proc/1/nowhere"), "Epyc", lambda: 0.7) == 0.7
