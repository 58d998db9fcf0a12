"""From what was asked to what will be built: names, addresses and limits of every node. Pure, and says clearly what cannot be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from crds.quantity import format_cpu, human_memory, parse_cpu, parse_memory
from lab.errors import LabError
from lab.model import BRIDGE, ENDPOINT, HEAD, HEAD_ADDRESS, LAB_NAME, MOST_NODES, Firmware, LabMachine, LabNode, Service

DEFAULT_CPUS = "0.35"
DEFAULT_MEMORY = "512Mi"
TLS = "/var/lib/mx/agent/tls"
"""Where an agent has its key and certificate, as seen on the node; on its disk, so they survive a reboot."""
AUTHORITY = "/var/lib/mx/authority"
"""The cluster's authority, as seen on the head."""
HEAD_TLS = "/etc/mx/tls"
"""Where the head's services have theirs."""
REVOKED = f"{HEAD_TLS}/revoked.crl"
"""Certificates that etcd believes no more."""
LEAST_CPUS = 0.01  # the kernel takes quotas from 1 ms of 100 ms
LEAST_MEMORY = 64 * 2**20  # the agent itself needs that much

ETCD = Service(
    name="etcd",
    command=[
        "etcd",
        "--name=head",
        "--data-dir=/var/lib/etcd",
        f"--listen-client-urls=https://{ENDPOINT},https://127.0.0.1:2379",
        f"--advertise-client-urls=https://{ENDPOINT}",
        f"--cert-file={HEAD_TLS}/etcd.crt",
        f"--key-file={HEAD_TLS}/etcd.key",
        f"--trusted-ca-file={HEAD_TLS}/ca.crt",
        "--client-cert-auth",
        f"--client-crl-file={REVOKED}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=head=http://127.0.0.1:2380",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        "--log-level=warn",
    ],
)
RECONCILER = Service(name="reconciler", command=["mx-reconciler", "--endpoints", ENDPOINT, "--tls", HEAD_TLS])
JOIN = f"{HEAD_ADDRESS}:8443"
MX_JOIN = Service(
    name="join",
    command=[
        "mx-join",
        f"--endpoints={ENDPOINT}",
        f"--tls={HEAD_TLS}",
        f"--address={HEAD_ADDRESS}",
        f"--authority={AUTHORITY}",
        f"--revoked={REVOKED}",
    ],
)
ETCDCTL = {  # so that people find etcd on the head, as its administrator
    "ETCDCTL_CACERT": f"{HEAD_TLS}/ca.crt",
    "ETCDCTL_CERT": f"{HEAD_TLS}/clip.crt",
    "ETCDCTL_KEY": f"{HEAD_TLS}/clip.key",
}

CLIP, IMAGES = "/var/lib/mx/clip", "/var/lib/mx/images"
"""The boot service's files and the shelf of layers, as seen on the head."""
MACHINE_KERNEL = "linux-image-cloud-amd64"
MACHINE_MEMORY = "1Gi"
LEAST_MACHINE_MEMORY = 384 * 2**20  # kernel, initramfs and agent need that much
MOST_MACHINES = 16
# What makes an emulated machine faster, and lets it start again when its kernel gives up.
MACHINE_ARGUMENTS = (
    "console=ttyS0 loglevel=4 panic=10 mitigations=off tsc=reliable no_timer_check nokaslr raid=noautodetect random.trust_cpu=on"
)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Services:
    """What runs where; tests run less. ``agent`` is called with each node's name."""

    head: tuple[Service, ...]
    agent: Callable[[str], tuple[Service, ...]]


def agent_service(node: str) -> tuple[Service, ...]:
    """The node agent as it runs on ``node``, and the guard beside it."""
    agent = Service(name="nodeagent", command=["mx-nodeagent", "--node", node, "--endpoints", ENDPOINT, "--tls", TLS])
    return (agent, Service(name="guard", command=["mx-guard"]))


def boot_services(cluster: str, layers: Sequence[str], boot: str, digest: str) -> tuple[Service, ...]:
    """What the head runs for machines that boot this image. dnsmasq and ganesha wait until mx-clip has written their files."""
    clip = [
        "mx-clip",
        f"--endpoints={ENDPOINT}",
        f"--tls={HEAD_TLS}",
        f"--join={JOIN}",
        f"--server={HEAD_ADDRESS}",
        f"--interface={BRIDGE}",
        f"--state={CLIP}",
        f"--images={IMAGES}",
        f"--cluster={cluster}",
        f"--layers={':'.join(layers)}",
        f"--boot={boot}",
        f"--digest={digest}",
        f"--arguments={MACHINE_ARGUMENTS}",
    ]
    dnsmasq = f"dnsmasq --keep-in-foreground --user=root --conf-file={CLIP}/dnsmasq.conf --pid-file={CLIP}/dnsmasq.pid"
    ganesha = f"ganesha.nfsd -F -f {CLIP}/ganesha.conf -L /var/log/mx/ganesha.log -p {CLIP}/ganesha.pid -N NIV_EVENT"
    return (
        MX_JOIN,
        Service(name="clip", command=clip),
        Service(name="dnsmasq", command=_once_there(f"{CLIP}/dnsmasq.conf", dnsmasq)),
        Service(name="nfs", command=_once_there(f"{CLIP}/ganesha.conf", ganesha)),
    )


def _once_there(file: str, command: str) -> list[str]:
    return ["sh", "-c", f"until [ -s {file} ]; do sleep 0.1; done; exec {command}"]


EVERYTHING = Services((ETCD, RECONCILER), agent_service)


def check_name(name: str) -> None:
    """LabError when the name cannot be one."""
    if not LAB_NAME.fullmatch(name):
        raise LabError(f"lab name {name!r} will not do: up to 12 lower-case letters and digits, a letter first")


def parse_list(text: str, parse: Callable[[str], Value], option: str) -> list[Value]:
    """``"0.35"`` or ``"0.35,0.2"`` to values; LabError naming the option."""
    try:
        return [parse(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise LabError(f"{option} {text}: {error}") from error


def spread(values: Sequence[Value], nodes: int, option: str) -> list[Value]:
    """One value for all nodes, or one for each."""
    if len(values) == 1:
        return list(values) * nodes
    if len(values) != nodes:
        raise LabError(f"{option} has {len(values)} values for {nodes} nodes; give one for all, or one for each")
    return list(values)


def plan_nodes(nodes: int, cpus: str, memory: str, cores: int, services: Services = EVERYTHING) -> list[LabNode]:
    """The head and ``nodes`` nodes n1, n2, …; LabError when this machine of ``cores`` cores cannot give what is asked."""
    if not 1 <= nodes <= MOST_NODES:
        raise LabError(f"--nodes {nodes}: a lab has 1 to {MOST_NODES} nodes")
    each_cpus = spread(parse_list(cpus, parse_cpu, "--cpus"), nodes, "--cpus")
    each_memory = spread(parse_list(memory, parse_memory, "--memory"), nodes, "--memory")
    _check_limits(each_cpus, each_memory, cores)
    return [only_head(services), *(_node(i, each_cpus[i - 1], each_memory[i - 1], services) for i in range(1, nodes + 1))]


def only_head(services: Services) -> LabNode:
    """For a lab in which all nodes are machines."""
    return LabNode(name=HEAD, address=HEAD_ADDRESS, services=list(services.head))


def _check_limits(cpus: list[float], memory: list[int], cores: int) -> None:
    total = sum(cpus)
    if min(cpus) < LEAST_CPUS:
        raise LabError(f"--cpus {format_cpu(min(cpus))}: a node needs {LEAST_CPUS} cores or more")
    if total >= cores:
        raise LabError(
            f"--cpus: {len(cpus)} nodes would share {format_cpu(total)} cores, but must stay below the {cores} of this machine, "
            f"or quotas mean nothing; ask for fewer nodes or e.g. --cpus {format_cpu(int(70 * cores / len(cpus)) / 100)}"
        )
    if min(memory) < LEAST_MEMORY:
        raise LabError(f"--memory {min(memory)}: a node needs 64Mi or more")


def _node(number: int, cpus: float, memory: int, services: Services) -> LabNode:
    name = f"n{number}"
    return LabNode(
        name=name,
        address=f"10.77.0.{10 + number}",
        mac=f"52:54:00:77:00:{number:02x}",
        cpus=cpus,
        memory=memory,
        services=list(services.agent(name)),
    )


@dataclass(frozen=True, slots=True)
class Machines:
    """What was asked for beside the namespace nodes."""

    declared: int = 0
    undeclared: int = 0
    firmware: Firmware = Firmware.BIOS
    memory: str = MACHINE_MEMORY

    @property
    def count(self) -> int:
        return self.declared + self.undeclared


NO_MACHINES = Machines()


def plan_machines(wish: Machines, nodes: int) -> list[LabNode]:
    """The machines, named on from the namespace nodes: n3, n4, …; those that nobody declares are u1, u2, … LabError."""
    if not 0 <= wish.declared <= MOST_MACHINES or not 0 <= wish.undeclared <= MOST_MACHINES:
        raise LabError(f"--machines {wish.declared} --undeclared {wish.undeclared}: a lab has up to {MOST_MACHINES} of each")
    [memory] = spread(parse_list(wish.memory, parse_memory, "--machine-memory"), 1, "--machine-memory")
    if memory < LEAST_MACHINE_MEMORY:
        raise LabError(f"--machine-memory {wish.memory}: a machine needs {human_memory(LEAST_MACHINE_MEMORY)} or more")
    declared = [
        _machine(f"n{nodes + i}", nodes + i, memory, LabMachine(firmware=wish.firmware)) for i in range(1, wish.declared + 1)
    ]
    return declared + [
        _machine(f"u{i}", 0x80 + i, memory, LabMachine(firmware=wish.firmware, declared=False))
        for i in range(1, wish.undeclared + 1)
    ]


def _machine(name: str, number: int, memory: int, machine: LabMachine) -> LabNode:
    address = f"10.77.0.{10 + number}" if machine.declared else ""
    return LabNode(name=name, address=address, mac=f"52:54:00:77:00:{number:02x}", memory=memory, machine=machine)


def plan_plain(count: int, nodes: int) -> list[LabNode]:
    """Machines that run Linux and are no nodes yet, p1, p2, …; numbered on from the nodes. LabError."""
    if not 0 <= count <= MOST_NODES - nodes:
        raise LabError(f"--plain {count}: a lab has up to {MOST_NODES} nodes, plain ones included")
    nobody = Services((), lambda name: ())
    made = [_node(nodes + i, 0.3, parse_memory(DEFAULT_MEMORY), nobody) for i in range(1, count + 1)]
    return [node.model_copy(update={"name": f"p{i}", "plain": True}) for i, node in enumerate(made, 1)]


def hosts_file(nodes: Sequence[LabNode], own: str) -> str:
    """/etc/hosts of the node called ``own``."""
    lines = ["127.0.0.1 localhost", *(f"{node.address} {node.name}" for node in nodes if node.address)]
    if all(node.name != own for node in nodes):
        raise LabError(f"node {own!r} is not one of the lab's")
    return "\n".join(lines) + "\n"
