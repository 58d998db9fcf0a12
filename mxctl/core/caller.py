"""Who calls, and from where: what a job takes over from whoever starts it. Names are resolved here, nodes know numbers only."""

import grp
import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from crds.job import Limit, RunAs
from crds.wording import did_you_mean
from mxctl.core.failures import Failure
from mxctl.core.types import Checked

SHARED = "/shared"
LIMITS: list[str] = list(get_args(Limit))


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a job runs as; ``env`` tells the program its name, as a login would."""

    user: RunAs
    env: dict[str, str] = field(default_factory=dict)


def identity(wish: str | None) -> Identity:
    """NAME, UID, NAME:GROUP or UID:GID; None: whoever calls, which under sudo is root. Raises Failure for an unknown name."""
    if wish is None:
        return Identity(RunAs(uid=os.geteuid(), gid=os.getegid(), groups=_groups_of_caller()), _names(os.geteuid()))
    user, _, group = wish.partition(":")
    entry = _entry(user)
    if entry is None:
        if not user.isdecimal():
            raise Failure(f'--user {wish}: this machine knows no user "{user}": give a number, e.g. --user 1000:1000')
        gid = _gid(group, wish) if group else int(user)
        return Identity(RunAs(uid=int(user), gid=gid))
    gid = _gid(group, wish) if group else entry.pw_gid
    groups = [] if group else sorted(set(os.getgrouplist(entry.pw_name, gid)) - {gid})
    return Identity(RunAs(uid=entry.pw_uid, gid=gid, groups=groups), _names(entry.pw_uid))


def _groups_of_caller() -> list[int]:
    return [] if os.geteuid() == 0 else sorted(set(os.getgroups()) - {os.getegid()})


def _names(uid: int) -> dict[str, str]:
    """Not for root, for whom nothing asks."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return {}
    return {"USER": name, "LOGNAME": name} if uid else {}


def _entry(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        return None


def _gid(group: str, wish: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise Failure(f'--user {wish}: this machine knows no group "{group}": give a number, e.g. --user 1000:1000') from error


def shared_directory(shared: str | None) -> str | None:
    """The caller's working directory as nodes see it; None when it is not below /shared (``shared`` on this machine)."""
    if shared is None:
        return None
    try:
        here, top = Path.cwd().resolve(), Path(shared).resolve()
    except OSError:
        return None  # it was removed under the caller's feet
    return str(Path(SHARED, here.relative_to(top))) if here.is_relative_to(top) else None


def _limit(text: str) -> tuple[str, int]:
    name, sign, value = text.partition("=")
    if not sign or name not in LIMITS:
        hint = did_you_mean(name, LIMITS) if name not in LIMITS else ""
        raise ValueError(f'"{text}" is not NAME=NUMBER{hint}' + ("" if hint else f"; limits are {', '.join(LIMITS)}"))
    if value == "unlimited":
        return name, -1
    if not value.isdecimal():
        raise ValueError(f'{name}: "{value}" is neither a number nor unlimited')
    return name, int(value)


LIMIT = Checked("limit", _limit)
"""``nofile=4096`` or ``core=unlimited``."""
