"""Who is logged in on this machine: what systemd-logind and utmp say. Asked every few seconds, read only when it changed."""

import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SESSIONS = Path("/run/systemd/sessions")
UTMP = Path("/run/utmp")
UNKNOWN = -1
"""Number of a user whom this machine does not know by name."""
ENDS = ("closing",)


@dataclass(slots=True)
class People:
    """``logged_in`` is cheap to ask again and again."""

    sessions: Path = SESSIONS
    utmp: Path = UTMP
    proc: Path = Path("/proc")
    _seen: tuple[int, int] | None = None
    _found: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, number, PID of who leads the session; 0 where that is not known."""

    def logged_in(self) -> dict[str, int]:
        """Name and number. A session whose leader has died counts no more, whatever stands written."""
        now = (_changed(self.sessions), _changed(self.utmp))
        if now != self._seen:
            self._seen, self._found = now, [*self._of_logind(), *self._of_utmp()]
        return {name: number for name, number, leader in self._found if not leader or (self.proc / str(leader)).exists()}

    def _of_logind(self) -> list[tuple[str, int, int]]:
        found = []
        for file in sorted(self.sessions.glob("*")) if self.sessions.is_dir() else []:
            facts = _facts(file)
            if facts.get("CLASS") == "user" and facts.get("STATE") not in ENDS and facts.get("USER"):
                found.append((facts["USER"], int(facts.get("UID", UNKNOWN)), int(facts.get("LEADER", 0))))
        return found

    def _of_utmp(self) -> list[tuple[str, int, int]]:
        if not self.utmp.exists():
            return []
        return [(user.name, _number(user.name), int(user.pid or 0)) for user in psutil.users()]


def _changed(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - every few seconds
    except FileNotFoundError:
        return 0


def _facts(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}  # the session has just ended
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _number(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return UNKNOWN
