"""NFS: who may mount what. For nfs-ganesha, and for the kernel's server where there is one.

  /images        the shelf of layers, read-only, for all nodes
  /state/<node>  what a node keeps over reboots, for that node alone
  /shared        the shared file system, for all nodes

NFS believes an address, so this keeps accidents apart, not attackers: a node proves itself by its certificate. Images are
immutable: an export never changes what it shows. Version 4.1 at most: with 4.2 ganesha has returned zeros for data.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from clip.render import checks
from clip.table import Row, Table

IMAGES_ID, SHARED_ID, FIRST_STATE_ID, LAST_ID = 1, 2, 16, 65535


@dataclass(frozen=True, slots=True)
class NfsSettings:
    """Directories of the head, and the address to serve at. ``recovery`` survives a restart: who had files open."""

    server: str
    images: str
    state: str
    shared: str
    recovery: str


def ganesha(settings: NfsSettings, table: Table) -> str:
    """ganesha.conf; after a change ganesha reads it again on SIGHUP. RenderError."""
    clients = [checks.address(row.address) for row in table.rows]
    blocks = [
        "# written by mx-clip: changes are lost",
        f"NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = 2049; Bind_addr = {checks.address(settings.server)};"
        " Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; allow_set_io_flusher_fail = true; }",
        "NFSV4 { Graceless = true; Lease_Lifetime = 60; RecoveryBackend = fs; Minor_Versions = 0, 1; Only_Numeric_Owners = true; }",
        f'NFSv4_RECOVERY_FS {{ recovery_root = "{checks.path(settings.recovery)}"; }}',
        _export(IMAGES_ID, settings.images, "/images", "RO", clients),
        _export(SHARED_ID, settings.shared, "/shared", "RW", clients),
    ]
    for row, number in state_ids(table).items():
        directory = f"{settings.state}/{checks.name(row.name)}"
        blocks.append(_export(number, directory, f"/state/{row.name}", "RW", [checks.address(row.address)]))
    return "\n".join(blocks) + "\n"


def state_ids(table: Table) -> dict[Row, int]:
    """A number for each node's state that stays its own while others come and go: its place in the cluster's network.

    Filehandles contain it, so it must not change under a node that runs. RenderError in a network too large for that.
    """
    first = int(IPv4Network(table.network.cidr).network_address)
    ids = {row: FIRST_STATE_ID + int(IPv4Address(checks.address(row.address))) - first for row in table.rows}
    for row, number in ids.items():
        if not FIRST_STATE_ID < number <= LAST_ID:
            raise checks.RenderError(
                f"node {row.name}: {row.address} is too far up in {table.network.cidr}: take one of the first 65000"
            )
    return ids


def _export(number: int, directory: str, pseudo: str, access: str, clients: list[str]) -> str:
    allowed = f" CLIENT {{ Clients = {', '.join(clients)}; Access_Type = {access}; }}" if clients else ""
    return (
        f'EXPORT {{ Export_Id = {number}; Filesystem_Id = {number}.1; Path = "{checks.path(directory)}"; Pseudo = "{pseudo}";'
        " Protocols = 4; Transports = TCP;"
        f" Access_Type = None; Squash = No_Root_Squash; SecType = sys; Attr_Expiration_Time = 1; FSAL {{ Name = VFS; }}{allowed} }}"
    )


def kernel_exports(settings: NfsSettings, table: Table) -> str:
    """/etc/exports.d/mx.exports, for ``exportfs -ra``. RenderError."""
    options = "no_root_squash,no_subtree_check"
    everybody = [checks.address(row.address) for row in table.rows]
    lines = ["# written by mx-clip: changes are lost"]
    for directory, access, number in ((settings.images, "ro,async", IMAGES_ID), (settings.shared, "rw,sync", SHARED_ID)):
        allowed = " ".join(f"{client}({access},{options},fsid={number})" for client in everybody)
        if allowed:
            lines.append(f"{checks.path(directory)} {allowed}")
    for row, number in state_ids(table).items():
        directory = f"{checks.path(settings.state)}/{checks.name(row.name)}"
        lines.append(f"{directory} {checks.address(row.address)}(rw,sync,{options},fsid={number})")
    return "\n".join(lines) + "\n"
