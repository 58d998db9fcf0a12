"""What an agent tells about its node: Alive (under its lease) and LoadVector. Keys of their own, not parts of the Node object.

Demand, not use, is what counts: under a quota a starved job uses little, so runnable tasks are sampled (facts: R-state
samples count demand exactly).
"""

from pydantic import Field

from crds.meta import Model, Time
from crds.quantity import Cpu, Memory


class MountFacts(Model):
    """Which file system a directory of the node is on."""

    source: str = ""
    """As mount was told, e.g. 10.0.0.1:/shared."""
    type: str = ""
    """Its type, e.g. nfs4."""
    options: str = ""
    """All its options, separated by commas."""


class SystemFacts(Model):
    """What differs from machine to machine and decides whether a job of the one can be restored on the other."""

    sysctls: dict[str, str] = Field(default_factory=dict)
    """Some of the kernel's settings, by name."""
    shared: MountFacts = Field(default_factory=MountFacts)
    """What /shared is."""
    processor: str = ""
    """What the kernel calls its processors."""


class Alive(Model):
    """/mx/nodes/<node>/alive, kept under the agent's lease: its presence is the heartbeat."""

    boot_id: str
    """Changes with every start of the machine; jobs of another boot are gone."""
    agent_version: str
    """Version of the node agent."""
    address: str
    """Data channel for moves, host:port."""
    kernel: str = ""
    """Kernel release."""
    criu: str = ""
    """Version of CRIU; empty when it does not work here."""
    image: str = ""
    """Digest of the image the node runs."""
    assigned: str = ""
    """Digest of the Assignment it booted with; empty on machines that mx does not boot."""
    root: str = ""
    """Names the node's own files: the image's digest, or the node itself where it runs none. Nodes with the same have the same."""
    cpu: Cpu = 0.0
    """Cores for jobs, quota included."""
    memory: Memory = 0
    """Bytes for jobs, limit included."""
    speed: float | None = None
    """How fast a core is, as measured; 1 is an ordinary core of 2020. None: not measured."""
    features: list[str] = Field(default_factory=list)
    """What it can do beside stopping moves: post-copy, pre-copy, network (jobs' own networks)."""
    cpu_flags: str = ""
    """Features of its processors that programs may use, sorted words."""
    system: SystemFacts = Field(default_factory=SystemFacts)
    """Its kernel's settings and its mounts."""
    since: Time
    """Start of this agent."""


class JobLoad(Model):
    """Load of one job on this node."""

    cpu_demand: float = 0.0
    """Runnable tasks, smoothed: what it would use if the node were its own, in cores."""
    cpu_used: float = 0.0
    """Cores used, smoothed."""
    memory: Memory = 0
    """Resident bytes."""
    age: float = 0.0
    """Seconds since the job was first started, anywhere."""
    attained: float | None = None
    """CPU seconds that it has had, on all nodes together."""


class LoadVector(Model):
    """/mx/nodes/<node>/load: written when it changed enough, at most once a second."""

    time: Time
    """When it was sampled; old ones are not acted on."""
    cpu_capacity: Cpu = 0.0
    """Cores for jobs."""
    cpu_demand: float = 0.0
    """Sum of the jobs' runnable tasks, smoothed, in cores."""
    cpu_used: float = 0.0
    """Cores used by jobs, smoothed."""
    memory_capacity: Memory = 0
    """Bytes for jobs."""
    memory_used: Memory = 0
    """Bytes in use on the node that cannot be reclaimed."""
    memory_pressure: float = 0.0
    """PSI memory 'some' avg10, per cent."""
    users: dict[str, int] = Field(default_factory=dict)
    """Who is logged in: name and number."""
    unguarded: str = ""
    """Why nothing would stop the jobs here when the agent hangs and the node loses touch; empty when its guard would."""
    jobs: dict[str, JobLoad] = Field(default_factory=dict)
    """By "<namespace>/<job>"."""
