"""/etc/mx/head.yaml: all that the head has to be told; the rest stands in the Cluster object."""

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator

from clip.errors import ClipError
from crds.meta import Model, Name
from crds.wording import explain

FILE = Path("/etc/mx/head.yaml")
_HEADER = """\
# The head of this cluster. After a change: mxctl head init, which does what differs and says so.
# Addresses of nodes, DNS and so on are the Cluster's: mxctl get cluster -o yaml
"""
Directory = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9_.+/-]*[A-Za-z0-9_+-]$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class SetupFailed(ClipError):  # noqa: N818 - reads as what it says
    """The machine cannot be made the head; says what to do."""


class Dhcp(StrEnum):
    """Who gives machines their addresses."""

    OWN = "own"
    PROXY = "proxy"
    """A server that is there already; we only say what to boot."""


class HeadConfig(Model):
    """One head."""

    cluster: Name = "rack"
    """What mxctl's context is called."""
    address: str
    """Our IPv4 address in the machines' network."""
    interface: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,15}$")]
    """Our network card there."""
    dhcp: Dhcp = Dhcp.OWN
    """own: we give the addresses. proxy: another DHCP server does, and we say what to boot."""
    shared: Directory = "/shared"
    """The file system that all nodes see; served by NFS."""
    images: Directory = "/var/lib/mx/images"
    """The shelf of image layers; served by NFS, read-only."""
    state: Directory = "/var/lib/mx/clip"
    """The boot service's files, and what nodes keep over reboots."""
    etcd: Directory = "/usr/bin/etcd"
    """etcd's program, 3.5.30 or later."""
    etcd_port: Port = 2379
    """etcd, for nodes and people."""
    http_port: Port = 8080
    """What machines boot from."""
    join_port: Port = 8443
    """Where machines that join ask for their certificates."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        found = ipaddress.IPv4Address(value)
        if found.is_loopback or found.is_unspecified or found.is_multicast:
            raise ValueError(f"{value} cannot be reached by machines: name our address in their network")
        return value

    @property
    def endpoint(self) -> str:
        """etcd's."""
        return f"{self.address}:{self.etcd_port}"


def load(path: Path = FILE) -> HeadConfig | None:
    """None where there is none. SetupFailed, naming the field."""
    try:
        return HeadConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except FileNotFoundError:
        return None
    except yaml.YAMLError as error:
        raise SetupFailed(f"{path}: broken YAML ({' '.join(str(error).split())}); repair it") from error
    except ValidationError as error:
        raise SetupFailed(f"{path}: {_problem(error)}") from error


def make(values: dict[str, object]) -> HeadConfig:
    """From options. SetupFailed, naming the option."""
    try:
        return HeadConfig.model_validate(values)
    except ValidationError as error:
        raise SetupFailed(_problem(error)) from error


def render(config: HeadConfig) -> str:
    """The file."""
    return _HEADER + yaml.safe_dump(config.to_data(), sort_keys=False)


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or '(all)'}: {explain(first)}"
