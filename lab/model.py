"""What is recorded of a lab: ``labs/<lab>/lab.json`` below the state directory.

Written before anything is done (intent before effect) and always as a whole, so that taking down works after a crash at
any point. All names follow from the lab's and the node's name; so even without this file nothing gets lost.
"""

import json
import os
import re
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from clip.cache import state_dir
from crds.meta import Model
from lab.errors import LabError, NoSuchLab

HEAD = "head"
HEAD_ADDRESS = "10.77.0.1"
BRIDGE = "br0"
PREFIX_LENGTH = 24
ENDPOINT = f"{HEAD_ADDRESS}:2379"
MOST_NODES = 99
LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")  # no dash: netns names are mx-<lab>-<node>


class Power(StrEnum):
    """What was intended last. Whether a node really runs is asked of the kernel."""

    OFF = "off"
    ON = "on"


class ProcessId(Model):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    """Its number, as the host sees it."""
    start_time: int
    """Field 22 of /proc/PID/stat: clock ticks after boot."""


class Service(Model):
    """A program that the node's first process keeps running."""

    name: str
    """Names its log, /var/log/mx/<name>.log."""
    command: list[str]
    """Program and arguments, as seen on the node."""


class Firmware(StrEnum):
    """What a machine starts with."""

    BIOS = "bios"
    UEFI = "uefi"


class LabMachine(Model):
    """A bare virtual machine: a network card, memory, and nothing else."""

    firmware: Firmware = Firmware.BIOS
    """What it starts with."""
    declared: bool = True
    """The cluster is told of it; otherwise it has to be approved."""


class Boot(Model):
    """What a node of namespaces runs that is assigned a revision of an image."""

    layers: list[str]
    """Names on the shelf, topmost first."""
    image: str
    """The revision's digest."""
    assigned: str
    """The assignment's digest."""


class LabNode(Model):
    """One node of a lab; the head is one too."""

    name: str
    """head, n1, n2, …"""
    address: str
    """On the lab's bridge."""
    mac: str = ""
    """Of its eth0; empty for the head, which has the bridge itself."""
    cpus: float | None = None
    """Cores its jobs may use; None for no limit."""
    memory: int | None = None
    """Bytes all on it may use; None for no limit."""
    services: list[Service] = Field(default_factory=list)
    """What it runs."""
    machine: LabMachine | None = None
    """A virtual machine that boots over the network; None: namespaces."""
    boot: Boot | None = None
    """What it was switched on with last; None: the lab's own image."""
    plain: bool = False
    """A machine that runs Linux already and knows nothing of us: it may join by itself."""
    power: Power = Power.OFF
    """Intended state."""
    init: ProcessId | None = None
    """Its first process, since it was switched on."""


class Lab(Model):
    """One lab."""

    name: str
    """Its name."""
    base: str
    """Base layer of the image its nodes run."""
    agent: str
    """Agent layer of that image."""
    head: str = ""
    """Layer with the programs that serve machines; empty when there are none."""
    boot: str = ""
    """Layer with the machines' kernel and initramfs."""
    machine_layers: list[str] = Field(default_factory=list)
    """Layers of the machines' root."""
    config_file: str
    """The mxctl configuration its context was written to."""
    ready: bool = False
    """Was completely up once; before that, down is all that can be done with it."""
    nodes: list[LabNode] = Field(default_factory=list)
    """Head first."""

    def node(self, name: str) -> LabNode:
        """The node of this name; NoSuchLab."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise NoSuchLab(f"lab {self.name} has no node {name!r}; it has {known}")

    @property
    def workers(self) -> list[LabNode]:
        """All but the head."""
        return [node for node in self.nodes if node.name != HEAD]


class Places:
    """Where a lab's things are. All of it follows from names, never from what was recorded."""

    def __init__(self, lab: str, state: Path | None = None) -> None:
        self.lab = lab
        self.state = state or state_dir()
        self.directory = self.state / "labs" / lab
        self.record = self.directory / "lab.json"
        self.lock = self.state / "labs" / f".{lab}.lock"
        self.shared = self.directory / "shared"
        self.head = self.node(HEAD) / "upper"
        self.authority = self.head / "var/lib/mx/authority"
        self.clip = self.directory / "clip"
        """The boot service's files; what machines keep is below it."""
        self.netns = f"mx-{lab}"

    def node(self, node: str) -> Path:
        """The node's own directory: its disk (upper) and what the overlay needs."""
        return self.directory / "nodes" / node

    def machine_state(self, node: str) -> Path:
        """What a machine keeps over reboots, as it has it at /var/lib/mx/agent."""
        return self.clip / "nodes" / node

    def node_netns(self, node: str) -> str:
        """Name of the node's network namespace; the head's is the lab's own, with the bridge."""
        return self.netns if node == HEAD else f"{self.netns}-{node}"

    def load(self) -> Lab:
        """What is recorded; NoSuchLab."""
        try:
            return Lab.model_validate_json(self.record.read_bytes())
        except FileNotFoundError as error:
            known = ", ".join(names(self.state)) or "none"
            raise NoSuchLab(f"there is no lab {self.lab!r} (labs: {known}); start one with mxctl lab up") from error
        except ValidationError as error:
            raise LabError(f"lab {self.lab}: {self.record} cannot be read; mxctl lab down --name {self.lab} removes it") from error

    def save(self, lab: Lab) -> None:
        """Replaces the record; it survives a power cut."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_whole(self.record, json.dumps(lab.to_data(), indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Readers see the old text or the new, never a part."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.rename(path)


def names(state: Path | None = None) -> list[str]:
    """All labs there is a directory of, half-built ones too."""
    directory = (state or state_dir()) / "labs"
    return sorted(path.name for path in directory.glob("*") if LAB_NAME.fullmatch(path.name) and path.is_dir())
