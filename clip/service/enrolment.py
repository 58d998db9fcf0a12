"""Gives machines that we booted their certificates, through the directory that each of them alone has mounted.

NFS believes an address, so this proves no more than that the request came from where a declared machine is.
"""

import asyncio
import contextlib
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
_MOST = 1 << 16  # bytes of a request or a certificate
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
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # its agent has not come so far yet
    try:
        return await _enrol_in(registry, folder, row)
    finally:
        os.close(folder)


async def _enrol_in(registry: Registry, folder: int, row: Row) -> bool:
    """The machine is root in that directory, and we are here: so no link of its making is followed."""
    authority: Authority = registry.authority
    request = _read(folder, "node.csr")
    if request is None:
        return False
    _put(folder, "ca.crt", authority.pem)
    there = _read(folder, "node.crt")
    if there is not None and authority.fits(there, request):
        return False
    _put(folder, "node.crt", await registry.issue(request, row.name, row.mac, Proof.BOOTED))
    return True


def _read(folder: int, name: str) -> bytes | None:
    """None: it is not there (yet)."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_MOST)


def _put(folder: int, name: str, content: bytes) -> None:
    """Readers see the old file or the new."""
    if _read(folder, name) == content:
        return
    fresh = f".{name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=folder)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
