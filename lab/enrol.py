"""Gives the nodes of a lab their certificates, as whoever runs a rack does for its machines.

The authority's key stays on the head's disk; a node's key stays on the node. What passes between them, through the root of the
node's first process, is the request in the one direction and the certificate in the other.
"""

import os
from pathlib import Path

from clip.authority import Authority
from clip.errors import ClipError
from clip.registry import Registry
from crds.join import Proof
from crds.organisations import CLIP, ETCD, RECONCILER
from lab import plan
from lab.errors import LabError
from lab.model import HEAD, HEAD_ADDRESS, LabNode, Places

ADMIN = "admin"
_SERVICES = {ETCD: [HEAD_ADDRESS, "127.0.0.1", HEAD], RECONCILER: [], CLIP: [HEAD_ADDRESS, "127.0.0.1", HEAD]}


def open_authority(places: Places) -> Authority:
    """The lab's authority, made when there is none yet, with an admin's certificate for mxctl and those of the head's services.

    LabError.
    """
    services = places.head / plan.HEAD_TLS.lstrip("/")
    try:
        authority = Authority.open(places.authority, f"lab {places.lab}")
        if not all(path.exists() for path in admin_files(places)):
            authority.admin(ADMIN)
        for name, addresses in _SERVICES.items():
            if not (services / f"{name.removeprefix('_')}.crt").exists():
                authority.service(services, name, addresses)
        revoked = places.head / plan.REVOKED.lstrip("/")
        if not revoked.exists():
            authority.publish(revoked, [])  # etcd wants one to begin with
    except (ClipError, OSError) as error:
        raise LabError(f"lab {places.lab}: {error}") from error
    return authority


def admin_files(places: Places) -> tuple[Path, Path, Path]:
    """What mxctl proves itself with: authority's certificate, own certificate, own key."""
    return places.authority / "ca.crt", places.authority / f"{ADMIN}.crt", places.authority / f"{ADMIN}.key"


async def enrol(registry: Registry, node: LabNode) -> bool:
    """True when the node has a certificate that fits its key; signs its request if need be. LabError, StoreError."""
    if node.init is None:
        return False
    return await enrol_in(registry, Path(f"/proc/{node.init.pid}/root{plan.TLS}"), node.name, node.mac)


async def enrol_in(registry: Registry, directory: Path, node: str, mac: str) -> bool:
    """The same for the directory of its agent, wherever that is seen. False while there is no request. LabError, StoreError."""
    authority = registry.authority
    try:
        request = (directory / "node.csr").read_bytes()
        ca = directory / "ca.crt"
        if not ca.exists() or ca.read_bytes() != authority.pem:
            _put(ca, authority.pem)
        there = directory / "node.crt"
        if not there.exists() or not authority.fits(there.read_bytes(), request):
            _put(there, await registry.issue(request, node, mac, Proof.BOOTED))
    except FileNotFoundError:
        return False  # the agent has not come so far yet, or the node went off
    except (ClipError, OSError) as error:
        raise LabError(f"node {node}: no certificate: {error}") from error
    return True


def _put(path: Path, content: bytes) -> None:
    """Readers see the old file or the new."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)
