"""Agent and guard as services of a machine: units for systemd, commands where there is none. Pure."""

import shlex
import sys
from dataclasses import dataclass

from nodeagent.setup.model import Joined

TLS = "/var/lib/mx/agent/tls"
UNITS = "/etc/systemd/system"


@dataclass(frozen=True, slots=True)
class Service:
    """A program that has to run all the time."""

    name: str
    what: str
    command: tuple[str, ...]

    @property
    def unit(self) -> str:
        return f"mx-{self.name}.service"


def services(joined: Joined, paths: list[str]) -> list[Service]:
    """Guard first: it has to be there when the agent makes promises. ``paths``: where Python finds us and what we need."""
    agent = [
        *("--node", joined.node, "--endpoints", joined.endpoints, "--tls", TLS),
        *("--head", joined.head, "--address", joined.address),
    ]
    return [
        Service("guard", "MX: makes jobs stand still when their node has lost touch", _python("nodeagent.guard", paths[:1])),
        Service("nodeagent", "MX: runs and moves jobs on this node", (*_python("nodeagent", paths), *agent)),
    ]


def _python(module: str, paths: list[str]) -> tuple[str, ...]:
    """Nothing of the environment or of the working directory decides what runs."""
    script = f"import runpy, sys; sys.path[:0] = {paths!r}; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return (sys.executable, "-sE", "-c", script)


def unit_file(service: Service) -> str:
    """systemd's. KillMode=process: what ends with the agent is the agent; jobs and their shims go on."""
    escaped = " ".join(shlex.quote(word).replace("%", "%%").replace("$", "$$") for word in service.command)
    return f"""[Unit]
Description={service.what}
After=network-online.target remote-fs.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart={escaped}
Restart=always
RestartSec=0.5
KillMode=process
Delegate=yes
OOMScoreAdjust=-900
LimitNOFILE=65536
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""


def loop(service: Service, log: str) -> list[str]:
    """Without systemd: a shell of its own session that starts the program again when it ends."""
    return [
        "setsid",
        "sh",
        "-c",
        f"while :; do {shlex.join(service.command)}; sleep 0.5; done >>{shlex.quote(log)} 2>&1 </dev/null",
    ]
