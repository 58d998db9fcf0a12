"""From one NodeSet to everything that is written for its machines: what it costs to define many."""

import time
from datetime import UTC, datetime

from clip.render import dnsmasq, ipxe, nfs
from clip.render.dnsmasq import DhcpSettings
from clip.render.ipxe import BootSettings
from clip.render.nfs import NfsSettings
from clip.table import Revision, make_table
from crds.cluster import NetworkSpec
from crds.meta import Metadata, OwnerReference
from crds.nodeset import NodeSet, NodeSetSpec
from reconciler.planning.nodeset import plan_nodes

SERVER = "10.77.0.1"
NETWORK = NetworkSpec(cidr="10.77.0.0/16", job_range=None, discovery_range="10.77.254.0/24")
REVISION = Revision("d1", ("agent-1", "base-1"), "boot-1", "console=ttyS0")


def rendered(count: int) -> dict[str, str]:
    """Every file and answer for a set of so many nodes, by name."""
    macs = [f"52:54:02:00:{number >> 8:02x}:{number & 255:02x}" for number in range(count)]
    spec = NodeSetSpec(names="n{:04}", macs=macs, addresses="10.77.16.1-10.77.31.254")
    wish = NodeSet(metadata=Metadata(name="rack", uid="u", creation_timestamp=datetime(2026, 1, 1, tzinfo=UTC)), spec=spec)
    nodes = plan_nodes(wish, OwnerReference(kind="NodeSet", name="rack", uid="u"), []).create
    table = make_table(NETWORK, nodes, {node.name: REVISION for node in nodes}, server=SERVER)
    settings = BootSettings(SERVER, 8080, f"{SERVER}:2379")
    scripts = {row.name: ipxe.boot_script(settings, table, row) for row in table.rows}
    dhcp = DhcpSettings("br0", SERVER, 8080, "/h", "/l", "/g", "/t")
    exports = NfsSettings(SERVER, "/images", "/state", "/shared", "/recovery")
    files = {"dnsmasq.conf": dnsmasq.config(dhcp, NETWORK), "ganesha.conf": nfs.ganesha(exports, table)}
    return {**dnsmasq.host_files(table), **scripts, **files}


def render_set(count: int) -> float:
    """Seconds."""
    begun = time.perf_counter()
    rendered(count)
    return time.perf_counter() - begun
