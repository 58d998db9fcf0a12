"""What an agent is told at its start: who it is, where its directories are, how patient it is."""

from dataclasses import dataclass, field
from pathlib import Path

DATA_PORT = 7950


@dataclass(frozen=True, slots=True)
class Timing:
    """All in seconds."""

    lease: float = 15.0
    """Time to live of the heartbeat."""
    load: float = 1.0
    """Between two samples of the load."""
    usage: float = 3.0
    """Between two looks at what a job used, for its report."""
    obstacles: float = 10.0
    """Between two looks for what keeps a job from being moved."""
    retry_first: float = 0.2
    """First pause after a failed step of a job; doubled each time."""
    retry_most: float = 5.0
    """Longest such pause."""
    connect: float = 5.0
    """One attempt to reach the peer of a move."""
    hello: float = 10.0
    """A caller must have shown its ticket by then, and a caller whose job is not expected yet waits so long."""
    answer: float = 15.0
    """A peer that acknowledges nothing for so long is lost."""
    pages: float = 120.0
    """The same where a job waits for its memory: to give the peer up is to lose the job."""
    restore: float = 60.0
    """criu restore, at most."""


@dataclass(frozen=True, slots=True)
class Config:
    """``state`` survives reboots, ``run`` (a tmpfs) does not, ``shared`` is the same on all nodes."""

    node: str
    state: Path = Path("/var/lib/mx/agent")
    run: Path = Path("/run/mx")
    shared: Path = Path("/shared")
    address: str = "127.0.0.1"
    """Where peers reach the data channel."""
    port: int = DATA_PORT
    """0: any free one."""
    tls: Path | None = None
    """Directory of key and certificates of the data channel; None: no TLS, and nobody proves who it is."""
    head: str = ""
    """mx-join's host:port, for the next certificate; empty: somebody else puts it there."""
    hosts: Path | None = None
    """Where names of jobs are kept; None: nowhere."""
    timing: Timing = field(default_factory=Timing)

    @property
    def journal(self) -> Path:
        return self.state / "journal"

    @property
    def images(self) -> Path:
        """Where checkpoints in transit lie: memory, not disk."""
        return self.run / "images"
