"""The head's services as systemd units. Pure.

Each has what it needs and no more. etcd and the reconciler are users of their own, made for each run, and get their keys as
credentials (%d); mx-join is root without a capability, for it keeps the authority's key; dnsmasq and ganesha have the
capabilities that their work takes; mx-clip builds images, which takes most of them.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clip.setup.config import Dhcp, HeadConfig

UNITS = "/etc/systemd/system"
TLS, AUTHORITY, TOKENS = "/etc/mx/tls", "/var/lib/mx/authority", "/var/lib/mx/tokens"
REVOKED = "/var/lib/mx/revoked/list.crl"
"""Certificates that etcd believes no more; a directory of its own, for mx-join replaces it and everybody may read it."""
RUN = "mx-dnsmasq"
"""Its leases, below /run."""
ETCD_STATE = "mx-etcd"
ETCD_DATA = f"/var/lib/{ETCD_STATE}"
"""systemd keeps it below /var/lib/private, for a user that is made for each run, and links it here."""
WAIT_SECONDS = 86400  # for mx-clip to write its first files: until then somebody has to apply a cluster

NO_MORE = """\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
PrivateTmp=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
LockPersonality=yes
SystemCallArchitectures=native
"""
ALONE = """\
PrivateDevices=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""
BUILDER = """\
ProtectClock=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
RestrictRealtime=yes
LockPersonality=yes
SystemCallArchitectures=native
"""
"""mmdebstrap makes devices and set-user-id programs, mounts and changes roots: it is not kept from that."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A service. ``credentials``: name -> file that only root reads; ``capabilities`` None: all of them."""

    name: str
    what: str
    command: tuple[str, ...]
    before: tuple[str, ...] = ()
    """A command that has to end first."""
    after: tuple[str, ...] = ()
    credentials: dict[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] | None = ()
    writes: tuple[str, ...] = ()
    lines: str = ""
    """What else its section says."""

    @property
    def file(self) -> str:
        return f"{self.name}.service"


def units(config: HeadConfig, paths: Sequence[str], python: str) -> list[Unit]:
    """In the order of their start. ``paths``: where ``python`` finds us and what we need."""
    ours = [make(config, paths, python) for make in (_reconciler, _join, _clip)]
    return [_etcd(config), *ours, _dnsmasq(config), _ganesha(config)]


def _etcd(config: HeadConfig) -> Unit:
    own = f"https://{config.endpoint}"
    peer = "https://127.0.0.1:2380"
    files = [
        *("--cert-file=%d/etcd.crt", "--key-file=%d/etcd.key", "--trusted-ca-file=%d/ca.crt", "--client-cert-auth"),
        f"--client-crl-file={REVOKED}",
        *("--peer-cert-file=%d/etcd.crt", "--peer-key-file=%d/etcd.key", "--peer-trusted-ca-file=%d/ca.crt"),
    ]
    command = [
        *(config.etcd, "--name=head", f"--data-dir={ETCD_DATA}"),
        *(f"--listen-client-urls={own},https://127.0.0.1:{config.etcd_port}", f"--advertise-client-urls={own}"),
        *files,
        *("--peer-client-cert-auth", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
        *(f"--initial-cluster=head={peer}", "--auto-compaction-mode=periodic", "--auto-compaction-retention=1h"),
        "--log-level=warn",
    ]
    more = f"Type=notify\nDynamicUser=yes\nStateDirectory={ETCD_STATE}\nStateDirectoryMode=0700\nLimitNOFILE=65536\n"
    return Unit(
        name="mx-etcd",
        what="MX: all that the cluster knows",
        command=tuple(command),
        credentials={name: f"{TLS}/{name}" for name in ("ca.crt", "etcd.crt", "etcd.key")},
        lines=more + NO_MORE + ALONE + "MemoryDenyWriteExecute=yes\n",
    )


def _reconciler(config: HeadConfig, paths: Sequence[str], python: str) -> Unit:
    command = (*_module("reconciler", paths, python), "--endpoints", config.endpoint, "--tls", "%d")
    return Unit(
        name="mx-reconciler",
        what="MX: decides what runs where",
        command=command,
        after=("mx-etcd.service",),
        credentials={name: f"{TLS}/{name}" for name in ("ca.crt", "reconciler.crt", "reconciler.key")},
        lines="DynamicUser=yes\n" + NO_MORE + ALONE,
    )


def _join(config: HeadConfig, paths: Sequence[str], python: str) -> Unit:
    told = [
        *("--endpoints", config.endpoint, "--tls", TLS, "--address", config.address, "--port", str(config.join_port)),
        *("--authority", AUTHORITY, "--tokens", TOKENS, "--shared", f"{config.address}:/shared"),
        *("--revoked", REVOKED),
    ]
    return Unit(
        name="mx-join",
        what="MX: admits machines and signs their certificates",
        command=(*_module("clip.join", paths, python), *told),
        after=("mx-etcd.service",),
        writes=(TOKENS, str(Path(REVOKED).parent)),
        lines=NO_MORE + ALONE,
    )


def _clip(config: HeadConfig, paths: Sequence[str], python: str) -> Unit:
    told = [
        *("--endpoints", config.endpoint, "--tls", TLS, "--join", f"{config.address}:{config.join_port}", "--tokens", TOKENS),
        *(
            "--cluster",
            config.cluster,
            "--server",
            config.address,
            "--interface",
            config.interface,
            "--http-port",
            str(config.http_port),
        ),
        *("--state", config.state, "--images", config.images, "--shared", config.shared),
        *(("--proxy",) if config.dhcp is Dhcp.PROXY else ()),
    ]
    return Unit(
        name="mx-clip",
        what="MX: answers machines that boot, builds their images, switches them",
        command=(*_module("clip.service", paths, python), *told),
        after=("mx-etcd.service",),
        capabilities=None,
        lines=BUILDER,
    )


def _dnsmasq(config: HeadConfig) -> Unit:
    conf = f"{config.state}/dnsmasq.conf"
    told = ("--keep-in-foreground", "--user=dnsmasq", f"--conf-file={conf}", f"--pid-file={config.state}/dnsmasq.pid")
    return Unit(
        name="mx-dnsmasq",
        what="MX: DHCP and TFTP for machines that boot",
        command=("/usr/sbin/dnsmasq", *told),
        before=_until_there(conf),
        after=("mx-clip.service",),
        capabilities=(
            *("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_CHOWN"),
            "CAP_DAC_OVERRIDE",
        ),
        writes=(config.state,),
        lines=f"RuntimeDirectory={RUN}\nRuntimeDirectoryPreserve=yes\nTimeoutStartSec={WAIT_SECONDS}\n{NO_MORE}",
    )


def _ganesha(config: HeadConfig) -> Unit:
    conf = f"{config.state}/ganesha.conf"
    told = ("-F", "-f", conf, "-L", "/var/log/mx/ganesha.log", "-p", f"{config.state}/ganesha.pid", "-N", "NIV_EVENT")
    return Unit(
        name="mx-nfs",
        what="MX: images, nodes' state and /shared over NFS",
        command=("/usr/bin/ganesha.nfsd", *told),
        before=_until_there(conf),
        after=("mx-clip.service",),
        capabilities=(
            *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_LEASE", "CAP_MKNOD"),
            *("CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_RESOURCE"),
        ),
        writes=(config.state, config.shared, "/var/log/mx"),
        # what nodes do on /shared is theirs, files that run as their owner included
        lines=f"TimeoutStartSec={WAIT_SECONDS}\nLimitNOFILE=1048576\n{NO_MORE}".replace("SUIDSGID=yes", "SUIDSGID=no"),
    )


def _module(module: str, paths: Sequence[str], python: str) -> tuple[str, ...]:
    """Nothing of the environment or of the working directory decides what runs."""
    script = f"import runpy, sys; sys.path[:0] = {list(paths)!r}; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return (python, "-sE", "-c", script)


def _until_there(file: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", f"until [ -s {file} ]; do sleep 0.2; done")


def unit_file(unit: Unit) -> str:
    """systemd's."""
    after = " ".join(("network-online.target", *unit.after))
    lines = [f"ExecStartPre={_line(unit.before)}"] if unit.before else []
    lines.append(f"ExecStart={_line(unit.command)}")
    lines += [f"LoadCredential={name}:{path}" for name, path in unit.credentials.items()]
    if unit.capabilities is not None:
        lines.append(f"CapabilityBoundingSet={' '.join(unit.capabilities)}")
    lines += [f"ReadWritePaths={path}" for path in unit.writes]
    section = "\n".join(lines)
    return f"""# written by mxctl head init: changes are lost
[Unit]
Description={unit.what}
After={after}
Wants={after}
StartLimitIntervalSec=0

[Service]
{section}
Restart=always
RestartSec=1
{unit.lines}
[Install]
WantedBy=multi-user.target
"""


def _line(command: Sequence[str]) -> str:
    """%d stays systemd's; there is no other % and no $ in what we say."""
    return " ".join(shlex.quote(word) if not word.startswith("%d") else word for word in command).replace("$", "$$")
