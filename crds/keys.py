"""Where everything lies in etcd. Order matters: what agents may read sorts last; no secret is ever stored.

A read right on a range leaks what sorts *after* it (GHSA-xg4h-6gfc-h4m8), so what agents may read comes behind all else: what they
write themselves, placements, and what every agent may know.
"""

from crds.meta import CLUSTER_SCOPE, Resource

ROOT = "/mx/"
ADDRESSES = "/mx/addresses/"
REFUSALS = "/mx/denied/"
EVENTS = "/mx/events/"
JOINS = "/mx/join/"
OBJECTS = "/mx/kinds/"
LEADER = "/mx/leader"
POWER = "/mx/machine-power/"
MACHINES = "/mx/machines/"
MANIFESTS = "/mx/manifests/"
NODES = "/mx/nodes/"
PLACEMENTS = "/mx/placements/"
PUBLIC = "/mx/public/"
"""What every agent may read."""
FILES = "/mx/public/files"
HOSTS = "/mx/public/hosts/"
REVOKED = "/mx/public/revoked/"


def object_key(kind: type[Resource], name: str, namespace: str = CLUSTER_SCOPE) -> str:
    """/mx/kinds/<plural>/<namespace>/<name>."""
    return f"{OBJECTS}{kind.PLURAL}/{namespace}/{name}"


def kind_prefix(kind: type[Resource], namespace: str | None = None) -> str:
    """All objects of a kind, or of a kind in one namespace."""
    return f"{OBJECTS}{kind.PLURAL}/" + (f"{namespace}/" if namespace else "")


def event_key(namespace: str, regarding: str, event_id: str) -> str:
    """/mx/events/<namespace>/<object>/<id>."""
    return f"{EVENTS}{namespace}/{regarding}/{event_id}"


def address(value: str) -> str:
    """/mx/addresses/<MAC or IP>: whose it is, a node's name or a job's "<namespace>/<job>", so that no two can both get it."""
    return f"{ADDRESSES}{value}"


def machine(mac: str) -> str:
    """What CLiP saw of the machine with this network card; CLiP alone writes it."""
    return f"{MACHINES}{mac}"


def refusal(mac: str) -> str:
    """That somebody refused the machine with this network card."""
    return f"{REFUSALS}{mac}"


def manifest_prefix(image: str) -> str:
    """What is in the revisions of an image."""
    return f"{MANIFESTS}{image}/"


def manifest(image: str, digest: str) -> str:
    """What is in its revisions of that digest."""
    return f"{MANIFESTS}{image}/{digest}"


def node_prefix(node: str) -> str:
    """All that the agent of this node may write."""
    return f"{NODES}{node}/"


def alive(node: str) -> str:
    """The node's heartbeat, under its lease."""
    return f"{NODES}{node}/alive"


def load(node: str) -> str:
    """The node's load vector."""
    return f"{NODES}{node}/load"


def files(node: str) -> str:
    """What the node has where jobs have programs."""
    return f"{NODES}{node}/files"


def report(node: str, namespace: str, job: str) -> str:
    """The node's report on a job."""
    return f"{NODES}{node}/jobs/{namespace}/{job}"


def claim(node: str, namespace: str, job: str) -> str:
    """The commit record of a job's arrival on the node."""
    return f"{NODES}{node}/claims/{namespace}/{job}"


def placement_prefix(node: str) -> str:
    """All that this node must run."""
    return f"{PLACEMENTS}{node}/"


def placement(node: str, namespace: str, job: str) -> str:
    """What this node must do with the job."""
    return f"{PLACEMENTS}{node}/{namespace}/{job}"


def power_request(node: str) -> str:
    """What somebody wants of the machine's power."""
    return f"{POWER}{node}/request"


def power_outcome(node: str) -> str:
    """How far mx-clip is with the request."""
    return f"{POWER}{node}/outcome"


def host(namespace: str, job: str) -> str:
    """Name and address of a job with a network of its own; every agent reads all of them."""
    return f"{HOSTS}{namespace}/{job}"


def join(mac: str) -> str:
    """How it goes with a machine that asked for a certificate."""
    return f"{JOINS}{mac}"


def revoked(serial: str) -> str:
    """A certificate that no agent believes any more, by its serial number; every agent reads all of them."""
    return f"{REVOKED}{serial}"


def parts(key: str) -> list[str]:
    """The key's words after /mx/: ``["nodes", "n1", "jobs", "default", "w"]``."""
    return key.removeprefix(ROOT).split("/")
