"""Gives machines that we booted their certificates, through the directory that each of them alone has mounted.

NFS believes an address, so this proves no more than that the request came from where a declared machine is.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from clip.authority import Authority
from clip.errors import ClipError
from clip.registry import Registry
from clip.table import Row, Table
from crds.join import Proof
from store.errors import StoreError

log = logging.getLogger(__name__)

POLL = 0.3  # seconds
RETRY = 5.0
TLS = "tls"
"""In a node's directory, as its agent has it."""


async def keep_enrolling(registry: Registry, nodes: Path, table: Callable[[], Table | None]) -> None:
    """Until cancelled. A request that cannot be signed is told, and looked at again later."""
    while True:
        await asyncio.sleep(POLL)
        now = table()
        for row in now.rows if now else ():
            try:
                if await enrol(registry, nodes / row.name / TLS, row):
                    log.info("node %s (%s): has its certificate", row.name, row.mac)
            except (ClipError, StoreError, OSError) as error:
                log.error("node %s (%s): no certificate: %s", row.name, row.mac, error)
                await asyncio.sleep(RETRY)


async def enrol(registry: Registry, directory: Path, row: Row) -> bool:
    """True when it was given one just now. ClipError, StoreError, OSError."""
    authority: Authority = registry.authority
    try:
        request = (directory / "node.csr").read_bytes()
    except FileNotFoundError:
        return False  # its agent has not come so far yet
    _put(directory / "ca.crt", authority.pem)
    there = directory / "node.crt"
    if there.exists() and authority.fits(there.read_bytes(), request):
        return False
    _put(there, await registry.issue(request, row.name, row.mac, Proof.BOOTED))
    return True


def _put(path: Path, content: bytes) -> None:
    """Readers see the old file or the new."""
    if path.exists() and path.read_bytes() == content:
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)
