"""The records of machines in etcd: read once, then written by us alone, a moment after something changed and never twice at once.

What was heard is kept in memory until it is written, so an etcd that is away delays the record, not the boot.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from pydantic import ValidationError

from clip.service.sighting import Message, observe, worth_writing
from crds import keys
from crds.machine import Machine
from store.errors import Conflict, Unavailable
from store.kv import KV, Put, unchanged

log = logging.getLogger(__name__)

PAUSE = 0.3  # seconds in which changes are gathered
RETRY = 1.0
AT_ONCE = 50  # puts in a transaction; etcd takes 128 operations


class Ledger:
    """``hear`` at once, ``run`` writes."""

    def __init__(self, kv: KV, now: Callable[[], datetime]) -> None:
        self._kv = kv
        self._now = now
        self._machines: dict[str, Machine] = {}
        self._stored: dict[str, tuple[int, Machine | None]] = {}
        """By MAC: mod_revision and what stands there; absent: nothing does."""
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._early: list[tuple[Message, datetime]] | None = []
        """Heard before the records were read for the first time; None afterwards."""
        self._loaded = False

    def hear(self, message: Message) -> None:
        """Never waits, never fails."""
        if self._early is not None:
            self._early.append((message, self._now()))
        else:
            self._take(message, self._now())

    def _take(self, message: Message, heard: datetime) -> None:
        after = observe(self._machines.get(message.mac), message, heard)
        self._machines[message.mac] = after
        _, stored = self._stored.get(message.mac, (0, None))
        if worth_writing(stored, after):
            self._changed.add(message.mac)
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if not self._loaded:
                    await self._load()
                await self._wake.wait()
                await asyncio.sleep(PAUSE)
                await self._write()
            except (Conflict, Unavailable) as error:
                log.warning("machines: not written, trying again: %s", error)
                self._loaded = False  # whether it was written is unknown: look
                await asyncio.sleep(RETRY)

    async def _load(self) -> None:
        page = await self._kv.list(keys.MACHINES)
        self._stored = {}
        for item in page.items:
            mac = item.key.removeprefix(keys.MACHINES)
            self._stored[mac] = (item.mod_revision, _read(item.value))
            there = self._stored[mac][1]
            if there is not None and mac not in self._machines:
                self._machines[mac] = there
        self._changed = {mac for mac, now in self._machines.items() if worth_writing(self._stored.get(mac, (0, None))[1], now)}
        if self._changed:
            self._wake.set()
        self._loaded = True
        early, self._early = self._early or [], None
        for message, heard in early:
            self._take(message, heard)

    async def _write(self) -> None:
        self._wake.clear()
        waiting = sorted(self._changed)
        for start in range(0, len(waiting), AT_ONCE):
            await self._write_some(waiting[start : start + AT_ONCE])

    async def _write_some(self, macs: list[str]) -> None:
        written = {mac: self._machines[mac] for mac in macs}
        compares = [unchanged(keys.machine(mac), self._stored.get(mac, (0, None))[0]) for mac in macs]
        done = await self._kv.txn(compares, [Put(keys.machine(mac), machine.to_json()) for mac, machine in written.items()])
        if not done.succeeded:
            raise Conflict("somebody else wrote there")
        for mac, machine in written.items():
            self._stored[mac] = (done.revision, machine)
            if self._machines[mac] == machine:
                self._changed.discard(mac)
        if self._changed:
            self._wake.set()


def _read(raw: bytes) -> Machine | None:
    """None when it cannot be read: then it is written anew."""
    try:
        return Machine.model_validate_json(raw)
    except ValidationError as error:
        log.warning("machines: one cannot be read and is written anew: %s", error)
        return None
