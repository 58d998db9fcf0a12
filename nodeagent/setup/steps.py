"""The steps of joining and leaving. Each may be repeated; what was there before is left as it was."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from nodeagent.cgroups import JOBS, Cgroups
from nodeagent.hosts import HostsBroken, update
from nodeagent.setup.model import RECORD, Joined, SetupFailed, Supervisor
from nodeagent.setup.services import UNITS, Service, loop, unit_file

SECONDS = 30.0
NAMES = ("nodeagent", "guard")
SHARED = Path("/shared")
STATE, RUN, LOGS, ETC = Path("/var/lib/mx/agent"), Path("/run/mx"), Path("/var/log/mx"), Path("/etc/mx")
OURS = (STATE, LOGS, ETC)
"""Directories of ours that outlive a reboot."""
PROGRAMS = {
    "criu": "install criu 4.2 or later",
    "openssl": "apt install openssl",
    "ip": "apt install iproute2",
    "mount": "apt install mount",
}


def supervisor() -> Supervisor:
    """What this machine has."""
    return Supervisor.SYSTEMD if Path("/run/systemd/system").is_dir() else Supervisor.PROCESSES


def check_machine(shared: str) -> None:
    """SetupFailed when it cannot be a node, before anything is done."""
    if os.geteuid() != 0:
        raise SetupFailed("a node needs root, for namespaces, mounts and control groups; run mxctl with sudo")
    for program, remedy in PROGRAMS.items():
        if shutil.which(program) is None:
            raise SetupFailed(f"the program {program} is missing: {remedy}")
    if not shared and not SHARED.is_mount():
        raise SetupFailed(f"nothing is mounted at {SHARED}: name what to mount with --shared SERVER:/PATH, or mount it before")


def missing_directories() -> list[str]:
    """Those that joining will make, outermost first."""
    wanted = [*OURS, SHARED, Path("/var/lib/mx")]
    return sorted(str(path) for path in wanted if not path.exists())


def mount_shared(source: str) -> None:
    """SetupFailed."""
    if SHARED.is_mount():
        return
    SHARED.mkdir(exist_ok=True)
    # vers=4.1: with 4.2 some servers give zeros for data
    _run(["mount", "-t", "nfs", "-o", "vers=4.1,hard,nosuid,nodev", source, str(SHARED)])
    fstab = Path("/etc/fstab")
    line = f"{source} {SHARED} nfs vers=4.1,hard,nosuid,nodev,_netdev 0 0 # mx"
    old = fstab.read_text(encoding="utf-8") if fstab.exists() else ""
    if line not in old:
        fstab.write_text(old + ("" if old.endswith("\n") or not old else "\n") + line + "\n", encoding="utf-8")


def start(joined: Joined, services: Sequence[Service]) -> None:
    """From now on, and after each boot where there is systemd. SetupFailed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    RUN.mkdir(parents=True, exist_ok=True)
    if joined.supervisor is Supervisor.SYSTEMD:
        for service in services:
            Path(UNITS, service.unit).write_text(unit_file(service), encoding="utf-8")
        _run(["systemctl", "daemon-reload"])
        _run(["systemctl", "enable", "--now", *(service.unit for service in services)])
        return
    for service in services:
        if not _session_of(service.name):
            started = subprocess.Popen(
                loop(service, str(LOGS / f"{service.name}.log")),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _pid_file(service.name).write_text(f"{started.pid} {_start_time(started.pid)}\n", encoding="utf-8")


def stop(joined: Joined, names: Sequence[str] = NAMES) -> None:
    """Ends agent and guard for good. SetupFailed."""
    if joined.supervisor is Supervisor.SYSTEMD:
        units = [f"mx-{name}.service" for name in names if Path(UNITS, f"mx-{name}.service").exists()]
        if units:
            _run(["systemctl", "disable", "--now", *units])
        for unit in units:
            Path(UNITS, unit).unlink(missing_ok=True)
        _run(["systemctl", "daemon-reload"])
        return
    for name in names:
        session = _session_of(name)
        if session:
            _end_session(session)
        _pid_file(name).unlink(missing_ok=True)


def remove_traces(joined: Joined) -> None:
    """All that joining made. The record last, so that it can be done again. SetupFailed."""
    with contextlib.suppress(OSError, HostsBroken):
        update(Path("/etc/hosts"), [])
    if joined.mounted:
        fstab = Path("/etc/fstab")
        if fstab.exists():
            kept = [line for line in fstab.read_text(encoding="utf-8").splitlines(True) if not line.rstrip().endswith("# mx")]
            fstab.write_text("".join(kept), encoding="utf-8")
        if SHARED.is_mount():
            _run(["umount", str(SHARED)])
    for mount in _mounts_below(RUN):
        _run(["umount", mount])
    _remove_groups()
    for path in (RUN, *(Path(path) for path in joined.made if Path(path) not in (SHARED, ETC))):
        shutil.rmtree(path, ignore_errors=True)
    if str(SHARED) in joined.made and not SHARED.is_mount():
        with contextlib.suppress(OSError):  # somebody put something there
            SHARED.rmdir()
    for name in NAMES:
        (LOGS / f"{name}.log").unlink(missing_ok=True)
    shutil.rmtree(STATE, ignore_errors=True)
    RECORD.unlink(missing_ok=True)
    if str(ETC) in joined.made:
        shutil.rmtree(ETC, ignore_errors=True)


def _remove_groups() -> None:
    """The empty groups of jobs that have ended."""
    for top in {path / JOBS for path in Cgroups().hierarchies.values()}:
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()


def _mounts_below(directory: Path) -> list[str]:
    """Innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    return [point for point in reversed(points) if point.startswith(f"{directory}/")]


def _pid_file(name: str) -> Path:
    return RUN / f"{name}.session"


def _session_of(name: str) -> int:
    """The session in which the service runs; 0 when it does not."""
    try:
        pid, begun = _pid_file(name).read_text(encoding="utf-8").split()
    except (FileNotFoundError, ValueError):
        return 0
    return int(pid) if _start_time(int(pid)) == begun else 0


def _start_time(pid: int) -> str:
    """Together with the number it names a process; "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _end_session(session: int) -> None:
    """The shell first, or it would start its program again."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session, number)
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            if not _group_lives(session):
                return
            time.sleep(0.05)


def _group_lives(group: int) -> bool:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] not in "ZX":
                return True
    return False


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupFailed(f"{' '.join(command[:3])}: {error}") from error
    if done.returncode:
        raise SetupFailed(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
