"""Node: one machine. People declare it; its agent proves that it is there."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from crds.assignment import Assignment, KernelArgument, check_kernel_arguments
from crds.load import LoadVector
from crds.machine import BootTimeline, Hardware, Mac, check_card
from crds.meta import Column, Model, Name, Resource, Status, Time, is_true
from crds.power import PowerSpec
from crds.quantity import Cpu, Memory, format_cpu, human_memory
from crds.rollout import UNDER_WAY, NodeUpdate

READY = "Ready"
MEMORY_PRESSURE = "MemoryPressure"
CPU_PRESSURE = "CPUPressure"
GUARDED = "Guarded"
IMAGE_DRIFT = "ImageDrift"
"""True: a boot of its own would change what it runs; its message says what. Unknown: it is not known what it runs."""
BOOTED = "Booted"
"""Of a node with a MAC: whether its machine came through its latest boot, and if not, what it waits for."""
DISCOVERED = "Discovered"
"""Of what `mxctl get nodes` shows for a machine that is no node: it is held until it is approved or refused."""

LEAVING = "Leaving"
"""Only while it is being removed; its message says what that waits for."""

LEAVE_FINALIZER = "mx/leave"
"""Held, once its machine was heard, until its jobs have left it and it was switched off."""
CERTIFICATE_FINALIZER = "mx/certificate"
"""Held, once it has a certificate, until that was taken back; that is the last step."""

HEARTBEAT = "HeartbeatReceived"
NO_HEARTBEAT = "HeartbeatLost"
NEVER_SEEN = "NeverSeen"
GUARD_RUNS = "GuardRuns"
NO_GUARD = "NoGuard"


class Taint(Model):
    """Keeps jobs away that do not tolerate it."""

    key: str
    """Name of the taint."""
    value: str = ""
    """Optional value."""


class NodeSpec(Model):
    """Desired state of a machine."""

    mac: Mac | None = None
    """Its network card, e.g. 52:54:00:77:00:01; unique in the cluster."""
    address: str | None = None
    """Its IPv4 address."""
    image: Name | None = None
    """Image it runs."""
    kernel_arguments: list[KernelArgument] = Field(default_factory=list)
    """Words for its kernel line, after the Cluster's."""
    power: PowerSpec | None = None
    """How it is switched on and off."""
    speed: float | None = Field(default=None, gt=0, le=1000)
    """How fast one of its cores is; only ratios between nodes matter. Measured by its agent when unset."""
    owner: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9_.@-]{1,64}$")
    """Login name of the person whose machine it is. While he is logged in, a BalancePolicy with guests: evict sends jobs of others
    away."""
    taints: list[Taint] = Field(default_factory=list)
    """Keep jobs away that do not tolerate them."""
    unschedulable: bool = False
    """Set by cordon: no job is placed or moved here."""

    @field_validator("mac")
    @classmethod
    def _is_card(cls, value: str | None) -> str | None:
        return value if value is None else check_card(value)

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        import ipaddress

        if value is not None:
            ipaddress.IPv4Address(value)
        return value

    @field_validator("kernel_arguments")
    @classmethod
    def _are_words(cls, value: list[str]) -> list[str]:
        return check_kernel_arguments(value)


class Capacity(Model):
    """What the node has for jobs."""

    cpu: Cpu = 0.0
    """Cores (quota included)."""
    memory: Memory = 0
    """Bytes (limit included)."""


class NodeFacts(Model):
    """What the agent found on its machine."""

    boot_id: str = ""
    """Changes with every start of the machine."""
    agent_version: str = ""
    """Version of the node agent."""
    kernel: str = ""
    """Kernel release."""
    criu: str = ""
    """Version of CRIU."""
    image: str = ""
    """Digest of the image it runs."""
    assigned: str = ""
    """Digest of the Assignment it booted with."""
    address: str = ""
    """Address of its data channel, host:port."""
    speed: float | None = None
    """How fast its agent found one of its cores."""


class NodeStatus(Status):
    """Observed state of a machine."""

    capacity: Capacity = Field(default_factory=Capacity)
    """What it has for jobs."""
    load: LoadVector | None = None
    """Latest load it reported."""
    jobs: int = 0
    """Jobs placed on it."""
    facts: NodeFacts = Field(default_factory=NodeFacts)
    """What its agent found."""
    hardware: Hardware | None = None
    """What the machine says of itself; absent when CLiP never saw it."""
    boot: BootTimeline | None = None
    """How far its latest boot came; absent when CLiP never saw it."""
    last_heartbeat: Time | None = None
    """When its heartbeat was last known to be there."""
    assigned: Assignment | None = None
    """What it boots. Set when its image first has a revision; afterwards only rollouts change it."""
    good: Assignment | None = None
    """What it was last Ready with: the way back when a rollout fails."""
    update: NodeUpdate | None = None
    """Where it stands in a rollout, or how its last one ended."""
    asleep: bool = False
    """It was switched off for having no jobs (Cluster.spec.idle), and is woken when it is needed."""


def _state(node: "Node") -> str:
    if is_true(node.status.conditions, DISCOVERED):
        return DISCOVERED
    state = "Ready" if is_true(node.status.conditions, READY) else "NotReady"
    if node.status.asleep:
        state = "Asleep"
    if node.metadata.deletion_timestamp:
        state += ",Leaving"
    if is_being_updated(node):
        state += ",Updating"
    return state + (",SchedulingDisabled" if node.spec.unschedulable else "")


def is_being_updated(node: "Node") -> bool:
    """A rollout is at it right now."""
    return node.status.update is not None and node.status.update.step in UNDER_WAY


def takes_jobs(node: "Node") -> bool:
    """Nobody has closed it for jobs: no person, no rollout, no deletion, no sleep."""
    closed = node.spec.unschedulable or node.status.asleep or is_being_updated(node)
    return not closed and node.metadata.deletion_timestamp is None


def _cpu(node: "Node") -> str:
    load = node.status.load
    used = format_cpu(round(load.cpu_demand, 2)) if load else "-"
    return f"{used}/{format_cpu(node.status.capacity.cpu)}"


def _memory(node: "Node") -> str:
    load = node.status.load
    used = human_memory(load.memory_used) if load else "-"
    return f"{used}/{human_memory(node.status.capacity.memory)}"


def _speed(node: "Node") -> str:
    speed = node.spec.speed or node.status.facts.speed
    return f"{speed:g}" if speed else "-"


def _hardware(node: "Node") -> str:
    found = node.status.hardware
    if found is None:
        return "-"
    size = f"{found.cpus} core{'s'[: found.cpus - 1]}" if found.cpus else "", human_memory(found.memory) if found.memory else ""
    return " ".join(word for word in (found.vendor, found.product, found.serial, *size) if word) or "-"


def _boot(node: "Node") -> str:
    return (node.status.boot.stage if node.status.boot else "") or "-"


class Node(Resource):
    """One machine."""

    KIND: ClassVar[str] = "Node"
    PLURAL: ClassVar[str] = "nodes"
    SHORT: ClassVar[tuple[str, ...]] = ("no",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("STATUS", _state),
        Column("JOBS", lambda n: str(n.status.jobs)),
        Column("CPU", _cpu),
        Column("MEMORY", _memory),
        Column("SPEED", _speed, wide=True),
        Column("ADDRESS", lambda n: n.spec.address or "-", wide=True),
        Column("MAC", lambda n: n.spec.mac or "-", wide=True),
        Column("IMAGE", lambda n: n.spec.image or "-", wide=True),
        Column("DIGEST", lambda n: n.status.facts.image[:12] or "-", wide=True),
        Column("BOOT", _boot, wide=True),
        Column("HARDWARE", _hardware, wide=True),
        Column("CRIU", lambda n: n.status.facts.criu or "-", wide=True),
    )

    kind: Literal["Node"] = "Node"
    """Kind of the resource."""
    spec: NodeSpec = Field(default_factory=NodeSpec)
    """Desired state."""
    status: NodeStatus = Field(default_factory=NodeStatus)
    """Observed state."""
