"""Jobs' own networks: what the world must know of them. An address belongs to one job from its first placement to its deletion."""

from pydantic import Field

from crds.meta import DEFAULT_NAMESPACE, Model

FEATURE = "network"
"""What a node must offer for such jobs: a bridge to plug them in."""


class Reservation(Model):
    """/mx/addresses/<MAC or IP>. Stored as bare text, the owner."""

    owner: str
    """A node's name, or a job's "<namespace>/<name>"."""

    @property
    def is_of_job(self) -> bool:
        """Names of nodes have no slash."""
        return "/" in self.owner


class HostEntry(Model):
    """/mx/public/hosts/<namespace>/<job>: a line of every node's /etc/hosts."""

    address: str
    """IPv4."""
    names: list[str] = Field(min_length=1)
    """The full one first."""


def names_of(namespace: str, job: str, domain: str) -> list[str]:
    """What a job is called by others.

    The bare name is for the default namespace only: it must not change its meaning because somebody else runs a job of that name.
    For the same reason a name with a dot, which could be another's in full, is no bare one.
    """
    bare = [job] if namespace == DEFAULT_NAMESPACE and "." not in job else []
    return [f"{job}.{namespace}.{domain}", f"{job}.{namespace}", *bare]


def mac_for(address: str) -> str:
    """The hardware address that goes with an IPv4 address: locally administered, and the same whenever that address is used again,
    so that no neighbour ever remembers a wrong one."""
    return ":".join(["52", "54", *(f"{int(part):02x}" for part in address.split("."))])
