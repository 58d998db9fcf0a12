"""A QEMU that speaks as much QMP as power needs, over a real socket. Knobs: ``garbage``, ``refuses`` (commands), ``events``."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class FakeQemu:
    """``boots`` counts resets. ``status`` is what query-status says."""

    path: Path
    status: str = "running"
    boots: int = 1
    events: bool = True
    garbage: bool = False
    silent: bool = False
    refuses: set[str] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> "FakeQemu":
        self._server = await asyncio.start_unix_server(self._talk, str(self.path))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting: dict[str, Any] = {"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": []}}
        writer.write(b"what?\r\n" if self.garbage else json.dumps(greeting).encode() + b"\r\n")
        capable = False
        while line := await reader.readline():
            if self.silent:
                continue
            command = json.loads(line)["execute"]
            if not capable and command != "qmp_capabilities":
                answer: dict[str, Any] = {"error": {"class": "CommandNotFound", "desc": "expecting capabilities negotiation"}}
            elif command in self.refuses:
                answer = {"error": {"class": "GenericError", "desc": f"{command} is not possible now"}}
            else:
                capable = True
                answer = {"return": self._do(command)}
                if self.events and command in ("stop", "cont", "system_reset"):
                    writer.write(json.dumps({"event": command.upper(), "timestamp": {"seconds": 1}}).encode() + b"\r\n")
            writer.write(json.dumps(answer).encode() + b"\r\n")
            await writer.drain()
        writer.close()

    def _do(self, command: str) -> dict[str, Any]:
        if command == "query-status":
            return {"status": self.status, "running": self.status == "running"}
        if command == "stop":
            self.status = "paused"
        elif command == "cont":
            self.status = "running"
        elif command == "system_reset":
            self.boots += 1
        return {}
