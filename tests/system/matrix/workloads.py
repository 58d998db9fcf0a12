"""The workload matrix: ordinary programs of every kind, each of which checks its own data and says 0, 1, 2, …

What moves has to move three times there and back; what cannot has to be refused with its reason before anything happens.
"""

from dataclasses import dataclass, field
from typing import Any

PACKAGES = ("gcc", "libc6-dev", "nodejs", "openjdk-21-jre-headless")
"""What the nodes need beside the usual image."""
HOME = "/shared/matrix"
"""Where the programs are on the nodes."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of program."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    """More of the job's spec."""
    obstacle: str = ""
    """Why it cannot be moved; empty when it can."""

    def job(self) -> dict[str, Any]:
        """The spec of its job."""
        return {"command": list(self.command), "workdir": HOME, "env": self.env, **self.spec}


def python(name: str, program: str = "", **more: Any) -> Workload:
    """One of the Python programs."""
    return Workload(name, ("python3", f"{program or name}.py"), {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}, **more)


NODE = ("node", "witness.js")
WORKLOADS = (
    Workload("c", ("./counter",)),
    python("numpy", "numpy_blas"),
    python("multiprocessing", "multiproc"),
    python("threads"),
    Workload("pipeline", ("bash", "pipeline.sh")),
    Workload("gcc", ("bash", "gccloop.sh")),
    Workload("java", ("java", "-Xmx64m", "-XX:+UseSerialGC", "Witness.java")),
    Workload("node", NODE, spec={"migration": {"ioUring": False}}),
    Workload("node-ring", NODE, obstacle="IoUring"),
    python("shm"),
    python("sysv"),
    python("memfd"),
    python("inotify"),
    python("events"),
    python("unix"),
    python("tcp"),
    python("deleted"),
    python("locks"),
    Workload("terminal", ("bash", "-i", "pipeline.sh"), spec={"stdio": {"tty": True}}),
    python("network", "tcp", spec={"network": {"mode": "own"}}),
    python("user", "threads", spec={"user": {"uid": 1234, "gid": 1234}}),
)
