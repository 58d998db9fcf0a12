"""Which files of its node a job has mapped: its program, libraries, tables. Those that every node shares do not count."""

from collections.abc import Iterable
from pathlib import Path

from nodeagent.preflight.files import NOT_FILES
from nodeagent.preflight.scene import DELETED, GONE, parse_maps


def of_node(pids: Iterable[int], shared: tuple[str, ...], proc: Path = Path("/proc")) -> list[str]:
    """Sorted paths. PermissionError when we may not look."""
    found: set[str] = set()
    for pid in pids:
        try:
            maps = (proc / str(pid) / "maps").read_text(errors="replace")
        except GONE:
            continue
        found.update(mapping.target for mapping in parse_maps(maps) if _counts(mapping.target, shared))
    return sorted(found)


def _counts(path: str, shared: tuple[str, ...]) -> bool:
    if not path.startswith("/") or path.startswith(NOT_FILES) or path.endswith(DELETED):
        return False
    return not any(path == top or path.startswith(f"{top}/") for top in shared)
