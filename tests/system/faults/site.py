"""The lab as the harness sees it, from the host: its processes, mounts, directories and links."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from clip.cache import state_dir
from lab import cluster, plan
from lab.cgroups import Groups
from lab.model import ENDPOINT, HEAD, Lab, Places, Service

AGENT = Path(__file__).with_name("agent.py").read_text(encoding="utf-8")
FREED = "52:54:00:77:fe:fe"  # a hardware address that nobody has: what is sent there is heard by nobody
SECONDS = 20


def agent_service(node: str) -> tuple[Service, ...]:
    """The agent under test."""
    return (
        Service(
            name="nodeagent",
            command=["/usr/bin/python3", "-sE", "-c", AGENT, "--node", node, "--endpoints", ENDPOINT, "--tls", plan.TLS],
        ),
    )


SERVICES = plan.Services((plan.ETCD, plan.RECONCILER), agent_service)


class Site:
    """A running lab with the agents under test."""

    def __init__(self, lab: Lab) -> None:
        self.name = lab.name
        self.places = Places(lab.name, state_dir())
        self.nodes = {node.name: node for node in lab.nodes}
        self.workers = [node.name for node in lab.workers]
        self.hidden = self.places.shared / "faults"
        self._mounts = {name: self.mounts(name) for name in self.workers}

    @classmethod
    @contextlib.contextmanager
    def up(cls, name: str, nodes: int = 2, memory: str = "256Mi") -> Iterator["Site"]:
        """A lab, taken down at the end. Its context goes to a file of its own, so that people's are left alone."""
        with tempfile.TemporaryDirectory() as directory:
            os.environ["MXCONFIG"] = f"{directory}/config"
            lab = cluster.up(name, nodes, "0.4", memory, services=SERVICES)
            try:
                yield cls(lab)
            finally:
                cluster.down(name)

    # --- processes ---

    def init(self, node: str) -> int:
        process = self.nodes[node].init
        assert process is not None
        return process.pid

    def root(self, node: str) -> Path:
        """The node's file system."""
        return Path(f"/proc/{self.init(node)}/root")

    def daemon(self, node: str, service: str) -> int | None:
        """Host's number of a service's process; None while it does not run."""
        state = json.loads((self.root(node) / "run/mx/services.json").read_text())
        wanted = state[service]["pid"]
        for pid in self.processes(node) if wanted else ():
            if _numbers(pid)[-1:] == [wanted] and _parent(pid) == self.init(node):
                return pid
        return None

    def processes(self, node: str) -> set[int]:
        """All on the node, as the host numbers them."""
        return Groups(self.name, node).processes()

    def criu(self, node: str, verb: bytes = b"") -> list[int]:
        """Those that are criu, or criu doing ``verb``."""
        found = [pid for pid in self.processes(node) if _read(pid, "comm").strip() == b"criu"]
        return sorted(pid for pid in found if not verb or verb in _read(pid, "cmdline").split(b"\0"))

    def copies(self, tag: str) -> dict[tuple[str, str], list[int]]:
        """Processes of the job with ``tag`` on their command line, by node and group."""
        found: dict[tuple[str, str], list[int]] = {}
        for node in self.workers:
            for pid in self.processes(node):
                if tag.encode() in _read(pid, "cmdline") and _read(pid, "comm").strip() != b"criu":
                    found.setdefault((node, _group(pid)), []).append(pid)
        return found

    @staticmethod
    def stopped(pid: int) -> bool:
        return _read(pid, "stat").rpartition(b")")[2].split()[:1] in ([b"T"], [b"t"])

    # --- what lies about ---

    def names(self, node: str, path: str) -> list[str]:
        """Entries of one of the node's directories; none when it is not there."""
        directory = self.root(node) / path.lstrip("/")
        return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []

    def groups(self, node: str) -> list[str]:
        """Jobs' control groups."""
        directories = [path / "jobs" for path in Groups(self.name, node).directories]
        return sorted({entry.name for path in directories if path.is_dir() for entry in path.iterdir() if entry.is_dir()})

    def mounts(self, node: str) -> list[str]:
        """Mount points in the node's own namespace."""
        lines = Path(f"/proc/{self.init(node)}/mountinfo").read_text(encoding="utf-8").splitlines()
        return sorted(line.split()[4] for line in lines)

    def new_mounts(self, node: str) -> list[str]:
        """Those that were not there at the beginning."""
        return sorted(set(self.mounts(node)) - set(self._mounts[node]))

    # --- links and room ---

    def deafen(self, node: str, peer: str) -> None:
        """From now on nothing that ``node`` sends to ``peer`` arrives."""
        address = self.nodes[peer].address
        self._ip(node, "neigh", "replace", address, "lladdr", FREED, "dev", "eth0", "nud", "permanent")

    def heal(self, node: str, peer: str) -> None:
        """It arrives again."""
        self._ip(node, "neigh", "del", self.nodes[peer].address, "dev", "eth0")

    def _ip(self, node: str, *words: str) -> None:
        subprocess.run(["ip", "-n", self.places.node_netns(node), *words], check=True, capture_output=True, timeout=SECONDS)

    def limit_room(self, node: str, left: int | None) -> None:
        """The node's tmpfs for images has only ``left`` bytes more, or as much as it likes (None)."""
        images = "/run/mx/images" if (self.root(node) / "run/mx/images").is_mount() else "/run"
        usage = os.statvfs(self.root(node) / images.removeprefix("/"))
        size = (usage.f_blocks - usage.f_bfree) * usage.f_frsize + left if left is not None else 1 << 33
        command = ["nsenter", "-t", str(self.init(node)), "-m", "--", "mount", "-o", f"remount,size={size}", images]
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)

    def log(self, node: str, service: str) -> str:
        """The whole log of a service."""
        path = self.places.node(node) / f"upper/var/log/mx/{service}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def send(pid: int | None, number: signal.Signals) -> bool:
    """False when it is not there (any more)."""
    if pid is None:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def service_of(who: str, source: str, destination: str) -> tuple[str, str]:
    """Node and name of the service that a fault calls source, destination, reconciler or etcd."""
    return {"source": (source, "nodeagent"), "destination": (destination, "nodeagent")}.get(who, (HEAD, who))


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _numbers(pid: int) -> list[int]:
    """In all pid namespaces it is in, the host's first."""
    lines = [line for line in _read(pid, "status").splitlines() if line.startswith(b"NSpid:")]
    return [int(word) for line in lines for word in line.split()[1:]]


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _group(pid: int) -> str:
    """The last part of its memory group's name."""
    for line in _read(pid, "cgroup").decode().splitlines():
        if "/jobs/" in line:
            return line.rpartition("/jobs/")[2]
    return ""
