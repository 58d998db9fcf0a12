"""dnsmasq: its configuration, and a file a machine in the directory that it watches.

Lines that were tried, and why they are so: no ``set:`` tag in a host's line (dnsmasq 2.90 crashes on SIGHUP after such a line
changed in place); ``no-ping`` saves 3 s for each new MAC; option 176 within 175 tells iPXE not to wait for a second (proxy)
server; the empty router advertisement spares iPXE 15 s of waiting for IPv6.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from clip.render import checks
from clip.table import Row, Table
from crds.cluster import NetworkSpec

LEASE = "2m"
"""Of machines nobody declared: what asks for less often than that has been switched off."""
BIOS_PROGRAM, UEFI_PROGRAM = "undionly.kpxe", "snponly.efi"


@dataclass(frozen=True, slots=True)
class DhcpSettings:
    """Where the boot service is and keeps its files. ``proxy``: beside a DHCP server that gives the addresses itself."""

    interface: str
    server: str
    http_port: int
    hosts: str
    leases: str
    log: str
    tftp: str
    proxy: bool = False


def config(settings: DhcpSettings, network: NetworkSpec) -> str:
    """dnsmasq.conf. RenderError."""
    lines = [
        "# written by mx-clip: changes are lost",
        "port=0",
        f"interface={checks.words(settings.interface)}",
        "bind-interfaces",
        "log-dhcp",
        f"log-facility={checks.path(settings.log)}",
        "enable-tftp",
        f"tftp-root={checks.path(settings.tftp)}",
        "dhcp-match=set:ipxe,175",
        *(f"dhcp-match=set:efi64,option:client-arch,{arch}" for arch in (7, 9)),
        *(_proxy(settings, network) if settings.proxy else _server(settings, network)),
    ]
    return "\n".join(lines) + "\n"


def boot_url(server: str, port: int) -> str:
    """What iPXE asks first; it fills in the values itself."""
    known = "&".join(f"{name}=${{{setting}}}" for name, setting in IPXE_SETTINGS.items())
    return f"http://{server}:{port}/boot?{known}"


def asking_again(server: str, port: int) -> str:
    """The same with what is too long for a DHCP answer: of a machine that is held, people want to know what it has.

    Debian's iPXE has no ``memsize``, but reads SMBIOS: type 17 is a memory module each, with its size at 12, or at 28 if large;
    type 4 a processor each, with its cores at 35. hexraw: the bytes as they lie there."""
    sizes, large = (",".join(f"${{smbios/{module}.17.{field}:hexraw}}" for module in range(MODULES)) for field in ("12.2", "28.4"))
    cores = ",".join(f"${{smbios/{socket}.4.35.1:hexraw}}" for socket in range(SOCKETS))
    return f"{boot_url(server, port)}&modules={sizes}&large={large}&cores={cores}"


MODULES, SOCKETS = 8, 2
"""That are asked for. Who has more is known when its kernel runs."""


IPXE_SETTINGS = {
    "mac": "net0/mac",
    "ip": "net0/ip",
    "uuid": "uuid",
    "vendor": "manufacturer:uristring",
    "product": "product:uristring",
    "serial": "serial:uristring",
    "firmware": "platform",
}
"""What iPXE tells of a machine: name in our query -> setting of iPXE."""


def _server(settings: DhcpSettings, network: NetworkSpec) -> list[str]:
    server = checks.address(settings.server)
    mask = IPv4Network(network.cidr).netmask
    lent = IPv4Network(network.discovery_range) if network.discovery_range else None
    dynamic = (
        f"dhcp-range={_first(lent)},{_last(lent)},{mask},{LEASE}" if lent else f"dhcp-range={server},static,{mask}"
    )  # static: only declared machines are answered
    return [
        "dhcp-authoritative",
        "no-ping",
        dynamic,
        f"dhcp-option=option:router,{checks.address(network.gateway or server)}",
        f"dhcp-hostsdir={checks.path(settings.hosts)}",
        f"dhcp-leasefile={checks.path(settings.leases)}",
        "dhcp-option-force=encap:175,176,1b",
        "enable-ra",
        f"dhcp-range=::,constructor:{checks.words(settings.interface)},ra-only",
        f"ra-param={checks.words(settings.interface)},60,0",
        f"dhcp-boot=tag:!ipxe,tag:!efi64,{BIOS_PROGRAM}",
        f"dhcp-boot=tag:!ipxe,tag:efi64,{UEFI_PROGRAM}",
        f"dhcp-boot=tag:ipxe,{boot_url(server, settings.http_port)}",
    ]


def _proxy(settings: DhcpSettings, network: NetworkSpec) -> list[str]:
    """Beside another DHCP server only the boot program is offered; addresses, and iPXE's option 176, are that server's matter."""
    server = checks.address(settings.server)
    return [
        f"dhcp-range={IPv4Network(network.cidr).network_address},proxy,{IPv4Network(network.cidr).netmask}",
        f'pxe-service=tag:!ipxe,x86PC,"mx",{BIOS_PROGRAM.removesuffix(".kpxe")}.kpxe,{server}',
        f'pxe-service=tag:!ipxe,X86-64_EFI,"mx",{UEFI_PROGRAM},{server}',
        f'pxe-service=tag:!ipxe,BC_EFI,"mx",{UEFI_PROGRAM},{server}',
        f"dhcp-boot=tag:ipxe,{start_url(server, settings.http_port)}",
    ]


def start_url(server: str, port: int) -> str:
    """What iPXE is told beside another DHCP server: in the header of an offer, where 127 characters fit and not one more."""
    return f"http://{server}:{port}/start"


def _first(pool: IPv4Network) -> IPv4Address:
    return pool.network_address if pool.prefixlen > 30 else pool.network_address + 1


def _last(pool: IPv4Network) -> IPv4Address:
    return pool.broadcast_address if pool.prefixlen > 30 else pool.broadcast_address - 1


def host_line(row: Row) -> str:
    """The machine's address and name, for as long as it is declared. RenderError."""
    return f"{checks.mac(row.mac)},{checks.address(row.address)},{checks.name(row.name)},infinite\n"


def ignore_line(mac: str) -> str:
    """A machine that is not answered. A file must say so before it is deleted: dnsmasq does not notice that a file is gone."""
    return f"{checks.mac(mac)},ignore\n"


def host_files(table: Table) -> dict[str, str]:
    """File name -> content, for the directory of hosts. RenderError names the first that cannot be written."""
    files = {_file(row.mac): host_line(row) for row in table.rows}
    return files | {_file(mac): ignore_line(mac) for mac in sorted(table.refused) if _file(mac) not in files}


def _file(mac: str) -> str:
    return checks.mac(mac).replace(":", "-")
