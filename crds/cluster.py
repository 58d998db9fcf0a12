"""Cluster: what holds for all nodes together. There is one, and it has defaults for everything."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from crds.assignment import KernelArgument, Mount, check_kernel_arguments
from crds.job import Fencing
from crds.meta import Column, Model, Resource, Status
from crds.quantity import Cpu, Duration, Memory


def address_range(text: str) -> tuple[int, int]:
    """First and last address of LOWEST-HIGHEST or of a network, as numbers; ValueError."""
    import ipaddress

    low, dash, high = text.partition("-")
    if not dash:
        network = ipaddress.IPv4Network(text)
        edge = 1 if network.prefixlen < 31 else 0
        return int(network.network_address) + edge, int(network.broadcast_address) - edge
    first, last = int(ipaddress.IPv4Address(low.strip())), int(ipaddress.IPv4Address(high.strip()))
    if last < first:
        raise ValueError(f"{text} ends before it begins: write LOWEST-HIGHEST")
    return first, last


JOB_RANGE = "10.77.0.128/25"
DISCOVERY_RANGE = "10.77.0.112/28"
Domain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")]


class NetworkSpec(Model):
    """The nodes' own network."""

    cidr: str = "10.77.0.0/24"
    """Addresses of the nodes, IPv4."""
    job_range: str | None = JOB_RANGE
    """Addresses for jobs with a network of their own: a part of ``cidr`` that nothing else uses. With another ``cidr`` it has to be
    named; until then no job gets such a network."""
    discovery_range: str | None = DISCOVERY_RANGE
    """Addresses lent to machines that nobody declared yet, while they are held: a part of ``cidr`` that nothing else uses. With
    another ``cidr`` it has to be named; until then unknown machines are not answered."""
    node_range: str | None = None
    """Addresses for nodes that are declared with a MAC and without an address: LOWEST-HIGHEST, or a part of ``cidr``."""
    gateway: str | None = None
    """Router in ``cidr`` for jobs with a network of their own; without it they reach what is in ``cidr``."""
    domain: Domain = "mx.local"
    """DNS domain of the nodes and jobs."""
    dns: list[str] = Field(default_factory=list)
    """Name servers that nodes are told at their boot, IPv4."""

    @field_validator("cidr", "job_range", "discovery_range")
    @classmethod
    def _is_network(cls, value: str | None) -> str | None:
        import ipaddress

        if value is not None:
            ipaddress.IPv4Network(value)
        return value

    @field_validator("gateway")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        import ipaddress

        if value is not None:
            ipaddress.IPv4Address(value)
        return value

    @field_validator("node_range")
    @classmethod
    def _is_range(cls, value: str | None) -> str | None:
        if value is not None:
            address_range(value)
        return value

    @field_validator("dns")
    @classmethod
    def _are_addresses(cls, value: list[str]) -> list[str]:
        import ipaddress

        for address in value:
            ipaddress.IPv4Address(address)
        return value

    @model_validator(mode="after")
    def _lies_inside(self) -> "NetworkSpec":
        import ipaddress

        cidr = ipaddress.IPv4Network(self.cidr)
        if self.job_range is not None and not ipaddress.IPv4Network(self.job_range).subnet_of(cidr):
            if self.job_range != JOB_RANGE:
                raise ValueError(f"jobRange {self.job_range} is not a part of cidr {self.cidr}: jobs could not be reached there")
            self.job_range = None
        if self.discovery_range is not None and not ipaddress.IPv4Network(self.discovery_range).subnet_of(cidr):
            if self.discovery_range != DISCOVERY_RANGE:
                raise ValueError(
                    f"discoveryRange {self.discovery_range} is not a part of cidr {self.cidr}: it cannot be served there"
                )
            self.discovery_range = None
        if self.discovery_range is not None and self.job_range is not None and _overlap(self.discovery_range, self.job_range):
            if self.discovery_range != DISCOVERY_RANGE:
                raise ValueError(f"discoveryRange {self.discovery_range} overlaps with jobRange {self.job_range}: name others")
            self.discovery_range = None
        if self.gateway is not None and ipaddress.IPv4Address(self.gateway) not in cidr:
            raise ValueError(f"gateway {self.gateway} is not in cidr {self.cidr}: jobs could not reach it")
        return self


def _overlap(one: str, other: str) -> bool:
    import ipaddress

    return ipaddress.IPv4Network(one).overlaps(ipaddress.IPv4Network(other))


def address_problem(network: NetworkSpec, address: str) -> str:
    """Why no machine can be served with this address, in words that follow its name; "" when it can."""
    import ipaddress

    found = ipaddress.IPv4Address(address)
    cidr = ipaddress.IPv4Network(network.cidr)
    if found not in cidr:
        return f"{address} is outside of the cluster's network {network.cidr}: give it one in there, or change spec.network.cidr"
    if found in (cidr.network_address, cidr.broadcast_address):
        return f"{address} is no machine's address in {network.cidr}: give it another"
    for field, other in (("jobRange", network.job_range), ("discoveryRange", network.discovery_range)):
        if other is not None and found in ipaddress.IPv4Network(other):
            return f"{address} lies in {field} {other}, which the cluster gives away itself: give it another"
    return ""


class JobDefaults(Model):
    """What a job gets that says nothing itself."""

    cpu: Cpu = 1.0
    """Cores a job is expected to want."""
    memory: Memory = 64 * 2**20
    """Memory a job is expected to want, bytes."""


class IdleSpec(Model):
    """Whether idle nodes are switched off."""

    after: Duration | None = None
    """Nodes with a power driver that had no job for so long are switched off, and woken when jobs wait; never, when unset."""
    keep: int = Field(default=1, ge=0)
    """So many Ready nodes stay on."""


class ClusterSpec(Model):
    """Desired state of the cluster as a whole."""

    network: NetworkSpec = Field(default_factory=NetworkSpec)
    """The nodes' network."""
    node_grace_period: Duration = 20.0
    """How long a node still counts as Ready after its heartbeat ran out, which is 15 s after its agent's last sign of life."""
    migration_history: Duration = 3600.0
    """How long finished Migrations are kept."""
    fencing: Fencing = Fencing.FREEZE
    """What a node that lost touch with the cluster does with jobs that do not say it themselves."""
    job_defaults: JobDefaults = Field(default_factory=JobDefaults)
    """What a job gets that says nothing itself."""
    idle: IdleSpec = Field(default_factory=IdleSpec)
    """Whether idle nodes are switched off."""
    kernel_arguments: list[KernelArgument] = Field(default_factory=list)
    """Words for the kernel line of every node."""
    mounts: list[Mount] = Field(default_factory=list)
    """File systems that every node mounts at its boot."""

    @field_validator("kernel_arguments")
    @classmethod
    def _are_words(cls, value: list[str]) -> list[str]:
        return check_kernel_arguments(value)


class ClusterStatus(Status):
    """Observed state of the cluster as a whole."""

    nodes: int = 0
    """Declared nodes."""
    ready_nodes: int = 0
    """Nodes that are Ready."""
    running_jobs: int = 0
    """Jobs that run now."""


class Cluster(Resource):
    """One rack of machines as one computer."""

    KIND: ClassVar[str] = "Cluster"
    PLURAL: ClassVar[str] = "clusters"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("NODES", lambda c: f"{c.status.ready_nodes}/{c.status.nodes}"),
        Column("JOBS", lambda c: str(c.status.running_jobs)),
        Column("NETWORK", lambda c: c.spec.network.cidr, wide=True),
    )

    kind: Literal["Cluster"] = "Cluster"
    """Kind of the resource."""
    spec: ClusterSpec = Field(default_factory=ClusterSpec)
    """Desired state."""
    status: ClusterStatus = Field(default_factory=ClusterStatus)
    """Observed state."""
