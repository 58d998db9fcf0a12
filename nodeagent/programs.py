"""Tells what this node has where jobs anywhere in the cluster have programs and libraries, as long as the reconciler wants to know.

A file is read once; later its inode, size and time of change say whether it is still the same.
"""

import asyncio
import hashlib
import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from crds import keys
from crds.programs import NodeFiles, WantedFiles
from nodeagent.heartbeat import Heartbeat
from store.errors import StoreError
from store.informer import SELDOM, Informer
from store.kv import KV, Delete, Put

log = logging.getLogger(__name__)

AGAIN = 60.0  # seconds after which files are looked at again: somebody may upgrade the machine
RETRY = 2.0
LARGEST = 256 << 20
"""Bytes of a file that are read; of a larger one the size has to do."""


class Digests:
    """Of files of this node. Calls block."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def of(self, paths: Iterable[str]) -> dict[str, str]:
        """By path, 16 hexadecimal digits; empty where there is no ordinary file that we may read."""
        found = {path: self._look(path) for path in paths}
        self._known = {path: known for path, known in found.items() if known is not None}
        return {path: known.digest if known else "" for path, known in found.items()}

    def _look(self, path: str) -> "_Known | None":
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                here = os.fstat(file.fileno())
                if not stat.S_ISREG(here.st_mode):
                    return None
                stamp = (here.st_dev, here.st_ino, here.st_size, here.st_mtime_ns, here.st_ctime_ns)
                known = self._known.get(path)
                if known is not None and known.stamp == stamp:
                    return known
                if here.st_size > LARGEST:
                    return _Known(stamp, f"{here.st_size} bytes")
                return _Known(stamp, hashlib.file_digest(file, "sha256").hexdigest()[:16])
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class _Known:
    stamp: tuple[int, ...]
    digest: str


class Programs:
    """One per agent."""

    def __init__(self, kv: KV, node: str, heartbeat: Heartbeat) -> None:
        self._kv = kv
        self._key = keys.files(node)
        self._heartbeat = heartbeat
        self._informer = Informer(kv, keys.FILES, probe=SELDOM)
        self._digests = Digests()
        self._told: NodeFiles | None = None

    def wanted(self) -> bool:
        """Whether somebody wants to know which files jobs have mapped."""
        return keys.FILES in self._informer.items

    async def run(self, boot_id: str) -> None:
        """Until cancelled."""
        changed = asyncio.Event()
        self._informer.subscribe(lambda *_: changed.set())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informer.run(), name="wanted files")
            await self._informer.synced.wait()
            while True:
                changed.clear()
                wait: float | None = AGAIN if self.wanted() else None
                try:
                    await self._tell(boot_id)
                except (StoreError, ValidationError) as error:
                    log.warning("%s: not told, trying again: %s", self._key, str(error).splitlines()[0])
                    wait = RETRY
                await _wait(changed, wait)

    async def _tell(self, boot_id: str) -> None:
        there = self._informer.items.get(keys.FILES)
        table = None
        if there is not None:
            paths = WantedFiles.model_validate_json(there.value).paths
            table = NodeFiles(boot_id=boot_id, digests=await asyncio.to_thread(self._digests.of, paths))
        if table == self._told:
            return
        await self._heartbeat.standing.wait()
        done = await self._kv.txn([self._heartbeat.guard()], [Put(self._key, table.to_json()) if table else Delete(self._key)])
        if not done.succeeded:
            self._heartbeat.fenced()
            raise StoreError("this session is over, a new one begins")
        self._told = table


async def _wait(changed: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return
