"""Whom processes run as: becoming a user with limits, and as whom criu has to dump a tree where CAP_SYS_RESOURCE is missing.

Root without CAP_SYS_RESOURCE may not even read another user's resource limits (prlimit(2)), which criu does for each process. Then
criu runs as the job's own user, with all other capabilities. It can be only one user at a time, so a tree of several cannot be
dumped there.
"""

# ruff: noqa: PTH123
# importing pathlib takes as long as all the rest
from __future__ import annotations  # so that typing need not be imported either

import os
import resource

from nodeagent.shim.answers import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Ids = tuple[int, int]

CAP_SYS_RESOURCE = 24
EXTRA = {"locks": 10}
"""Limits the resource module has no name for."""


def take_on(uid: int, gid: int, groups: list[int], limits: dict[str, int], nice: int, umask: str) -> None:
    """Makes the calling process that user's, with these limits. Refused for a limit that cannot be set; OSError."""
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    os.umask(int(umask, 8))
    for name, value in limits.items():
        set_limit(name, value)
    become(uid, gid, groups)


def set_limit(name: str, value: int) -> None:
    """Soft and hard alike; -1 is unlimited. Refused, naming the limit, when it may not be set."""
    kind: int = EXTRA[name] if name in EXTRA else getattr(resource, f"RLIMIT_{name.upper()}")
    wanted = resource.RLIM_INFINITY if value == -1 else value
    hard = resource.getrlimit(kind)[1]
    try:
        resource.setrlimit(kind, (wanted, wanted))
    except (ValueError, OSError) as error:
        asked = "unlimited" if value == -1 else value
        if may_raise_limits():
            raise Refused(f"limit {name}={asked}: the kernel refuses it: {error}") from error
        raise Refused(
            f"limit {name}={asked}: this node allows {hard} at most and cannot raise it without CAP_SYS_RESOURCE: ask for less"
        ) from error


def become(uid: int, gid: int, groups: list[int]) -> None:
    """For good: real, effective and saved."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def may_raise_limits() -> bool:
    """Whether we have CAP_SYS_RESOURCE."""
    with open("/proc/self/status", encoding="ascii") as file:
        effective = next(line for line in file if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


def ids_of(pid: int) -> list[Ids]:
    """(uid, gid) of a process: real, effective and saved. FileNotFoundError, ProcessLookupError when it has ended."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        lines = {line.split(":", 1)[0]: line.split() for line in file}
    return [(int(uid), int(gid)) for uid, gid in zip(lines["Uid"][1:4], lines["Gid"][1:4], strict=True)]


def dump_as(pids: Iterable[int]) -> Ids | None:
    """The user as whom criu must dump these processes; None: as ourselves. Refused when no single one will do."""
    if may_raise_limits():
        return None
    found: dict[Ids, int] = {}
    for pid in pids:
        try:
            found.update(dict.fromkeys(ids_of(pid), pid))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    if len(found) > 1:
        users = ", ".join(f"{uid}:{gid} (process {pid})" for (uid, gid), pid in sorted(found.items()))
        raise Refused(
            f"its processes belong to several users, {users}: this node has no CAP_SYS_RESOURCE, without which only the processes "
            "of one user can be moved together: start them as jobs of their own"
        )
    only = next(iter(found), None)
    return None if only == (os.geteuid(), os.getegid()) else only


def argv_as(ids: Ids | None, argv: list[str]) -> list[str]:
    """The criu command line for that user: with every capability that we have."""
    if ids is None:
        return argv
    caps = "+all,-sys_resource"
    become_user = [f"--reuid={ids[0]}", f"--regid={ids[1]}", "--clear-groups", f"--inh-caps={caps}", f"--ambient-caps={caps}"]
    return ["setpriv", *become_user, argv[0], "--unprivileged", *argv[1:]]


def stop_writing(pid: int) -> None:
    """Sets the file size limit of a process of any user to 0, as that user where we may not do it ourselves."""
    nothing = (0, 0)
    try:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, nothing)
    except PermissionError:
        ids = ids_of(pid)[0]
        child = os.fork()
        if child == 0:
            try:
                become(*ids, [])
                resource.prlimit(pid, resource.RLIMIT_FSIZE, nothing)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
