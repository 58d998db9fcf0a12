"""Gives the nodes of a lab their certificates, as whoever runs a rack does for its machines.

The authority's key stays on the host, in the lab's directory; a node's key stays on the node. What passes between them, through the
root of the node's first process, is the request in the one direction and the certificate in the other.
"""

import os
from pathlib import Path

from clip.authority import Authority
from clip.errors import ClipError
from lab import plan
from lab.errors import LabError
from lab.model import LabNode, Places

ADMIN = "admin"


def open_authority(places: Places) -> Authority:
    """The lab's authority, made when there is none yet, with an admin's certificate for mxctl. LabError."""
    try:
        authority = Authority.open(places.authority, f"lab {places.lab}")
        if not all(path.exists() for path in admin_files(places)):
            authority.admin(ADMIN)
    except (ClipError, OSError) as error:
        raise LabError(f"lab {places.lab}: {error}") from error
    return authority


def admin_files(places: Places) -> tuple[Path, Path, Path]:
    """What mxctl proves itself with: authority's certificate, own certificate, own key."""
    return places.authority / "ca.crt", places.authority / f"{ADMIN}.crt", places.authority / f"{ADMIN}.key"


def enrol(authority: Authority, node: LabNode) -> bool:
    """True when the node has a certificate that fits its key; signs its request if need be. LabError."""
    if node.init is None:
        return False
    return enrol_in(authority, Path(f"/proc/{node.init.pid}/root{plan.TLS}"), node.name)


def enrol_in(authority: Authority, directory: Path, node: str) -> bool:
    """The same for the directory of the node's agent, wherever it is seen. False while there is no request. LabError."""
    try:
        request = (directory / "node.csr").read_bytes()
        there = directory / "node.crt"
        ours = (authority.directory / "ca.crt").read_bytes()
        if not there.exists() or not authority.fits(there.read_bytes(), request):
            _put(there, authority.sign(request, node))
        ca = directory / "ca.crt"
        if not ca.exists() or ca.read_bytes() != ours:
            _put(ca, ours)
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
