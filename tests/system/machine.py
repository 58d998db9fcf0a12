"""What a lab could leave on a machine, to compare before and after."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from clip.cache import state_dir
from lab.cgroups import Groups, of_this_machine
from lab.model import Places

SYSCTLS = ("kernel/io_uring_disabled", "kernel/pid_max", "kernel/yama/ptrace_scope", "net/ipv4/ip_forward")
"""Not fs/pipe-max-size: agents raise it where post-copy needs that (nodeagent/features.py)."""


@dataclass(frozen=True, slots=True)
class Traces:
    """Of given labs, and of the host what no lab may change."""

    files: tuple[str, ...]
    groups: tuple[str, ...]
    netns: tuple[str, ...]
    mounts: tuple[str, ...]
    links: tuple[str, ...]
    sysctls: tuple[str, ...]


def traces(*labs: str) -> Traces:
    """What there is now."""
    return Traces(
        files=tuple(sorted(str(path) for lab in labs for path in _files(lab))),
        groups=tuple(str(path) for lab in labs for path in Groups(lab, "", of_this_machine()).directories if path.exists()),
        netns=tuple(sorted(path.name for path in Path("/run/netns").glob("mx-*") if path.name.split("-")[1] in labs)),
        mounts=tuple(line.split()[4] for line in _lines("/proc/self/mountinfo") if any(f"/labs/{lab}/" in line for lab in labs)),
        links=tuple(sorted(path.name for path in Path("/sys/class/net").iterdir())),
        sysctls=tuple(Path("/proc/sys", name).read_text() for name in SYSCTLS if Path("/proc/sys", name).exists()),
    )


def _files(lab: str) -> list[Path]:
    places = Places(lab)
    users = state_dir().glob(f"images/*/users/lab-{lab}")
    return [path for path in (places.directory, places.lock, *users) if path.exists()]


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def namespaces(pid: int) -> set[str]:
    """Those of a process that are not the host's."""
    return _namespaces(pid) - _namespaces("self")


def _namespaces(process: int | str) -> set[str]:
    return {str(Path(f"/proc/{process}/ns/{kind}").readlink()) for kind in ("mnt", "pid", "net", "uts", "ipc")}


def inhabitants(wanted: set[str]) -> list[str]:
    """Command lines of all processes in any of these namespaces."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if namespaces(int(directory.name)) & wanted:
                found.append((directory / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        except PermissionError:
            continue  # it has capabilities that root has not here; what a lab starts never has
    return found


def run(command: list[str], timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """With its output as text."""
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
