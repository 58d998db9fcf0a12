"""System V shared memory, semaphores and message queues: they belong to an IPC namespace, and criu takes them along with it.

It does so only where it is not in that namespace itself. Having it leave for each dump would cost every freeze; so it is asked
beforehand whether there is anything to take along.
"""

from pathlib import Path

from nodeagent.preflight.tables import inside

KINDS = ("shm", "sem", "msg")
TABLES = Path("/proc/sysvipc")


def has_sysv(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether there is any such object in the process's IPC namespace. OSError when it has ended."""
    return inside(f"{proc}/{pid}/ns/ipc", lambda: any(len(_lines(kind)) > 1 for kind in KINDS))


def _lines(kind: str) -> list[str]:
    """Of the table of the namespace we are in; the first has the titles. A kernel may have been built without."""
    path = TABLES / kind
    return path.read_text().splitlines() if path.exists() else []
