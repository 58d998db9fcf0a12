"""What an agent finds on its machine at its start: boot id, address, version. Capacity is the load sampler's matter."""

import os
import socket
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

from crds.load import MountFacts, SystemFacts


def boot_id(run: Path) -> str:
    """Random, made once after each start of the machine: ``run`` is a tmpfs. The kernel's own is the host's in a namespace node."""
    file = run / "boot-id"
    if not file.exists():
        run.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".boot-id-{os.getpid()}")
        fresh.write_text(f"{uuid.uuid4()}\n")
        fresh.replace(file)
    return file.read_text().strip()


IMAGE_FILE = Path("/etc/mx/image")
"""Written by whoever puts an image on a machine."""


def image_digest() -> str:
    """Of the image this node runs; "" on a machine that runs none."""
    return IMAGE_FILE.read_text().strip() if IMAGE_FILE.exists() else ""


ASSIGNED_FILE = Path("/etc/mx/assigned")
"""Written by whoever boots a node without a kernel line of its own."""
_ASSIGNED_WORD = "mx.assigned="


def assigned_digest(kernel_line: Path = Path("/proc/cmdline"), file: Path = ASSIGNED_FILE) -> str:
    """Of the Assignment this node booted with; "" on a machine that mx does not boot."""
    if file.exists():
        return file.read_text().strip()
    words = kernel_line.read_text().split()
    return next((word.removeprefix(_ASSIGNED_WORD) for word in words if word.startswith(_ASSIGNED_WORD)), "")


def first_address() -> str:
    """The first IPv4 address that is not loopback; loopback when there is none (a node alone)."""
    found = [
        address.address
        for name, addresses in sorted(psutil.net_if_addrs().items())
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.") and name != "lo"
    ]
    return found[0] if found else "127.0.0.1"


def agent_version() -> str:
    """Of the installed package; "unknown" in a tree that was never installed."""
    with suppress(FileNotFoundError):  # in an image it lies beside us
        lines = (Path(__file__).resolve().parent.parent / "mx.dist-info/METADATA").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("Version: ")).removeprefix("Version: ")
    import importlib.metadata  # late: it takes a twentieth of all that a machine imports when it boots

    try:
        return importlib.metadata.version("mx")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


SYSCTLS = (
    "fs.inotify.max_user_instances",
    "fs.nr_open",
    "fs.pipe-max-size",
    "kernel.pid_max",
    "vm.max_map_count",
    "vm.overcommit_memory",
)
"""Limits that a restored job may meet where it never met them before."""


def system_facts(shared: Path, proc: Path = Path("/proc")) -> SystemFacts:
    """What the doctor compares between nodes. What cannot be read is left out."""
    found = {name: _read(proc / "sys" / name.replace(".", "/")) for name in SYSCTLS}
    return SystemFacts(
        sysctls={name: value for name, value in found.items() if value},
        shared=mount_of(shared, _read(proc / "self/mountinfo")),
        processor=processor_name(read_cpuinfo(proc)),
    )


def mount_of(path: Path, mountinfo: str) -> MountFacts:
    """The file system that ``path`` is on, from the kernel's own table."""
    best, facts = "", MountFacts()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, source, options) = before.split(), after.split()[:3]
        point = fields[4]
        if (str(path) == point or str(path).startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            every = dict.fromkeys([*fields[5].split(","), *options.split(",")])  # of the mount, then of the file system
            best, facts = point, MountFacts(source=source, type=kind, options=",".join(every))
    return facts


def processor_name(cpuinfo: str) -> str:
    """Of the first processor; "" where the kernel does not say."""
    names = (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    return next(names, "")


def read_cpuinfo(proc: Path = Path("/proc")) -> str:
    """The kernel's own words about its processors."""
    return _read(proc / "cpuinfo")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
