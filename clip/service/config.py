"""What mx-clip is told at its start: where it serves, where it keeps its files, what machines boot that nothing else is said of."""

from dataclasses import dataclass
from pathlib import Path

from clip.power.credentials import DIRECTORY
from clip.render.dnsmasq import DhcpSettings
from clip.render.ipxe import BootSettings
from clip.render.nfs import NfsSettings
from clip.table import Revision
from clip.tokens import TOKENS

HTTP_PORT = 8080
RUN = Path("/run/mx-dnsmasq")
TFTP = Path("/usr/lib/ipxe")


@dataclass(frozen=True, slots=True)
class Config:
    """``state`` survives restarts of the head; ``images`` is the shelf of layers; ``shared`` the shared file system."""

    server: str
    interface: str
    etcd: str
    state: Path
    images: Path
    shared: Path
    http_port: int = HTTP_PORT
    tftp: Path = TFTP
    proxy: bool = False
    run: Path | None = None
    """A directory that survives restarts of services, not of the machine; None: ``state``."""
    power: Path = DIRECTORY
    """Files with the credentials of machines' controllers."""
    join: str = ""
    """mx-join's host:port, where machines get their certificates; empty: from somebody else."""
    fingerprint: str = ""
    """Of the cluster's authority, by which machines know mx-join."""
    tokens: Path = TOKENS
    """Hashes of the tokens in our answers; mx-join reads them there."""
    revision: Revision | None = None
    """For machines whose image was never built."""
    arguments: str = ""
    """For the kernel's command line of every machine."""
    cluster: str = "cluster"
    """Name of the cluster, under which its layers are held on the shelf: that of its context in mxctl."""

    @property
    def hosts(self) -> Path:
        """dnsmasq's directory of hosts."""
        return self.state / "hosts.d"

    @property
    def dnsmasq(self) -> Path:
        return self.state / "dnsmasq.conf"

    @property
    def dnsmasq_log(self) -> Path:
        return self.state / "dnsmasq.log"

    @property
    def leases(self) -> Path:
        """In memory: dnsmasq waits for the disk at each new one, which makes 500 machines at once wait for seconds."""
        return (self.run or self.state) / "dnsmasq.leases"

    @property
    def dnsmasq_pid(self) -> Path:
        return self.state / "dnsmasq.pid"

    @property
    def ganesha(self) -> Path:
        return self.state / "ganesha.conf"

    @property
    def ganesha_pid(self) -> Path:
        return self.state / "ganesha.pid"

    @property
    def recovery(self) -> Path:
        return self.state / "recovery"

    @property
    def nodes(self) -> Path:
        """What each node keeps over reboots: a directory of its name."""
        return self.state / "nodes"

    @property
    def dhcp_settings(self) -> DhcpSettings:
        return DhcpSettings(
            interface=self.interface,
            server=self.server,
            http_port=self.http_port,
            hosts=str(self.hosts),
            leases=str(self.leases),
            log=str(self.dnsmasq_log),
            tftp=str(self.tftp),
            proxy=self.proxy,
        )

    @property
    def boot_settings(self) -> BootSettings:
        return BootSettings(self.server, self.http_port, self.etcd, self.join, self.fingerprint)

    @property
    def nfs_settings(self) -> NfsSettings:
        return NfsSettings(self.server, str(self.images), str(self.nodes), str(self.shared), str(self.recovery))
