"""QEMU's monitor protocol over its unix socket.

A machine is *off* when its processors are stopped: the process stays, so that it can be switched on again over the same socket.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from clip.power.driver import PowerError
from crds.power import PowerState

_RUNNING = frozenset({"running", "inmigrate", "prelaunch", "restore-vm"})
_LONGEST = 1 << 20  # bytes of one answer


class Monitor:
    """One conversation; QEMU holds only one at a time."""

    def __init__(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._path, self._reader, self._writer = path, reader, writer

    async def execute(self, command: str, **arguments: object) -> Any:
        """What QEMU returns; events in between are passed over. PowerError."""
        message: dict[str, object] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()
            while True:
                answer = await self.read()
                if "error" in answer:
                    raise PowerError(f"qemu at {self._path}: {command}: {answer['error'].get('desc', answer['error'])}")
                if "return" in answer:
                    return answer["return"]
        except OSError as error:
            raise PowerError(f"qemu at {self._path}: {command}: {error}: did it end?") from error

    async def read(self) -> dict[str, Any]:
        """The next message."""
        try:
            line = await self._reader.readline()
            found = json.loads(line) if line else None
        except (OSError, ValueError) as error:
            raise PowerError(f"qemu at {self._path}: does not speak QMP: {error}") from error
        if not isinstance(found, dict):
            raise PowerError(f"qemu at {self._path}: it closed the conversation: did it end?")
        return found


@asynccontextmanager
async def monitor(path: str) -> AsyncIterator[Monitor]:
    """A conversation in which commands may be given. PowerError."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST)
    except OSError as error:
        raise PowerError(f"qemu at {path}: {error.strerror or error}: does the machine's process run?") from error
    try:
        talk = Monitor(path, reader, writer)
        await talk.read()  # its greeting
        await talk.execute("qmp_capabilities")
        yield talk
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class QmpDriver:
    """``path`` of the socket that ``-qmp unix:PATH,server=on,wait=off`` made."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def status(self) -> PowerState:
        async with monitor(self._path) as talk:
            return await self._status(talk)

    async def on(self) -> None:
        async with monitor(self._path) as talk:
            if await self._status(talk) != PowerState.ON:
                await self._start(talk)

    async def off(self) -> None:
        async with monitor(self._path) as talk:
            await talk.execute("stop")

    async def reset(self) -> None:
        async with monitor(self._path) as talk:
            await self._start(talk)

    async def boot_from_network(self) -> None:
        """QEMU boots as it was started; ours are started with nothing but the network."""

    async def _status(self, talk: Monitor) -> PowerState:
        found = await talk.execute("query-status")
        return PowerState.ON if found.get("status") in _RUNNING else PowerState.OFF

    async def _start(self, talk: Monitor) -> None:
        await talk.execute("system_reset")
        await talk.execute("cont")
