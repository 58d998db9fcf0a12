"""iPXE: what it is told to do next. Its scripts are text that begins with ``#!ipxe``."""

from dataclasses import dataclass

from clip.render import checks
from clip.render.dnsmasq import asking_again, boot_url
from clip.table import Row, Table

INITRD = "initrd.img"
HOLD_SECONDS = 3
REFUSED_SECONDS = 60


@dataclass(frozen=True, slots=True)
class BootSettings:
    """How machines reach the head: ``etcd`` is host:port, several with commas."""

    server: str
    http_port: int
    etcd: str
    join: str = ""
    """mx-join's host:port; empty: machines get their certificates from somebody else."""
    fingerprint: str = ""
    """By which they know it."""


def boot_script(settings: BootSettings, table: Table, row: Row, token: str = "") -> str:
    """Fetch kernel and initramfs, and run them. When one does not come, ask again: what to boot may be another by then.

    ``token`` is good for this boot of this machine; without one it has a root, and no certificate."""
    base = f"http://{checks.address(settings.server)}:{settings.http_port}"
    line = kernel_line(settings, table, row, token)
    boot = f"{base}/images/{checks.words(row.revision.boot)}"
    return "\n".join(
        [
            "#!ipxe",
            f"echo mx: {checks.name(row.name)} boots {checks.words(row.revision.digest)}",
            # UEFI fails without initrd=
            f"kernel {boot}/vmlinuz?mac={checks.mac(row.mac)} initrd={INITRD} {line} || goto again",
            f"initrd --name {INITRD} {boot}/{INITRD} || goto again",
            "boot || goto again",
            ":again",
            f"echo mx: that failed, asking again in {HOLD_SECONDS} s",
            f"sleep {HOLD_SECONDS}",
            f"chain --replace {boot_url(settings.server, settings.http_port)}",
            "",
        ]
    )


def kernel_line(settings: BootSettings, table: Table, row: Row, token: str = "") -> str:
    """What the initramfs is told: the machine's address, name and root. ``ip=`` is the kernel's own form."""
    server = checks.address(settings.server)
    gateway = checks.address((row.gateway if row.netmask else table.network.gateway) or server)
    netmask = checks.address(row.netmask or table.netmask)
    words = [
        f"ip={checks.address(row.address)}::{gateway}:{netmask}:{checks.name(row.name)}:eth0:none",
        f"mx.mac={checks.mac(row.mac)}",
        f"mx.server={server}",
        f"mx.http={settings.http_port}",
        f"mx.etcd={settings.etcd}",
        f"mx.layers={':'.join(row.revision.layers)}",
        f"mx.image={row.revision.digest}",
        invitation(settings, token),
        row.revision.arguments,
    ]
    return checks.words(" ".join(word for word in words if word))


def invitation(settings: BootSettings, token: str) -> str:
    """The words by which a machine gets its certificate (nodeagent/admission.py); "" without a token."""
    if not token:
        return ""
    return checks.words(f"mx.join={settings.join} mx.ca={settings.fingerprint} mx.token={token}")


def start_script(settings: BootSettings) -> str:
    """For iPXE that got the short address: ask with all that is known."""
    return f"#!ipxe\nchain --replace {boot_url(settings.server, settings.http_port)}\n"


def hold_script(settings: BootSettings, mac: str) -> str:
    """For a machine nobody declared: wait, then ask again. It gets neither kernel nor root."""
    return _wait(
        settings, f"mx: {checks.mac(mac)} is not declared; on the head: mxctl approve node {mac} --name NAME", HOLD_SECONDS
    )


def stuck_script(settings: BootSettings, name: str, problem: str) -> str:
    """For a declared machine that cannot be served: it says why on its own screen."""
    told = "".join(letter if letter.isalnum() or letter in " .,:-/" else " " for letter in problem)
    return _wait(settings, f"mx: node {checks.name(name)} cannot be booted: {told}", HOLD_SECONDS)


def refused_script(settings: BootSettings, mac: str) -> str:
    """For a machine somebody refused."""
    return _wait(settings, f"mx: {checks.mac(mac)} was refused", REFUSED_SECONDS)


def _wait(settings: BootSettings, message: str, seconds: int) -> str:
    again = f"chain --replace {asking_again(settings.server, settings.http_port)} || goto wait"
    return "\n".join(["#!ipxe", f"echo {message}", ":wait", f"sleep {seconds}", again, ""])
