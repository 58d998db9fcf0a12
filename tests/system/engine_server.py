"""Runs on a test node, on the image's Python, in the agent's place: serves the node's real engine on stdin and stdout.

One JSON line a request: {"id": …, "call": method, "on": sandbox number or null, "with": arguments} or {"cancel": id}.
Ends at the end of stdin.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crds.job import Fencing, JobSpec
from nodeagent.attachment import Attachment
from nodeagent.engine import Copy, Network, PageWire
from nodeagent.errors import AgentError, StartFailed
from nodeagent.namespaces import NamespaceEngine
from nodeagent.sandbox import NamespaceSandbox


def read_network(data: dict[str, Any] | None) -> Network | None:
    """None when there is none."""
    return Network(**data) if data else None


READ: dict[str, Callable[[Any], Any]] = {
    "copy": lambda data: Copy(**data),
    "network": read_network,
    "images": Path,
    "file": Path,
    "policy": Fencing,
    "spec": JobSpec.model_validate,
}
"""Arguments that are no plain data."""


class Server:
    """The engine and the sandboxes it gave out, by number."""

    def __init__(self) -> None:
        self.engine = NamespaceEngine(Path("/run/mx"), Path("/shared"))
        self.sandboxes: list[NamespaceSandbox] = []
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.attached: list[asyncio.Task[None]] = []
        self.ends: dict[int, socket.socket] = {}
        self.made = 0

    async def call(self, method: str, number: int | None, values: dict[str, Any]) -> Any:
        """The result in plain data."""
        for name, read in READ.items():
            if name in values:
                values[name] = read(values[name])
        if method in ("wires", "wire"):
            await self.engine.features()  # as every agent does before it moves anything: post-copy needs what this sets
            made = self._keep(socket.socketpair() if method == "wires" else [await _connect(**values)])
            return made if method == "wires" else made[0]
        target: Any = self.engine if number is None else self.sandboxes[number]
        wire = self.ends.pop(values["wire"]) if "wire" in values else None
        if wire is not None:
            values["wire"] = PageWire(wire)
        try:
            result = await getattr(target, method)(**values)
        finally:
            if wire is not None:
                wire.close()
        if isinstance(result, NamespaceSandbox):
            self.sandboxes.append(result)
            return len(self.sandboxes) - 1
        if isinstance(result, Attachment):
            self.attached.append(asyncio.create_task(result.relay(asyncio.Event().wait, swallow)))
            return None
        if method == "leftovers":
            return [asdict(copy) for copy in result]
        if method == "wait_exit":
            return {"code": result.code, "time": result.time.isoformat(), "fenced": result.fenced}
        if method == "obstacles":
            return [obstacle.to_data() for obstacle in result]
        return asdict(result) if method == "usage" else result

    def _keep(self, sockets: Iterable[socket.socket]) -> list[int]:
        numbers = []
        for sock in sockets:
            sock.setblocking(True)
            self.made += 1
            self.ends[self.made] = sock
            numbers.append(self.made)
        return numbers

    async def answer(self, request: dict[str, Any]) -> None:
        """Calls, and says how it went."""
        try:
            reply = {"result": await self.call(request["call"], request["on"], request["with"])}
        except AgentError as error:
            code = error.exit_code if isinstance(error, StartFailed) else 0
            reply = {"error": type(error).__name__, "message": str(error), "code": code}
        except asyncio.CancelledError:
            reply = {"error": "CancelledError", "message": "", "code": 0}
        print(json.dumps({"id": request["id"], **reply}), flush=True)

    async def serve(self) -> None:
        """Until the end of stdin."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            request = json.loads(line)
            if "cancel" in request:
                self.tasks[request["cancel"]].cancel()
            else:
                self.tasks[request["id"]] = asyncio.create_task(self.answer(request))


async def swallow(data: bytes) -> None:
    """A client that says nothing and hears everything."""


async def _connect(path: str, listen: bool) -> socket.socket:
    """One end of a connection over a path that does not exist before."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    if listen:
        sock.bind(path + ".new")
        sock.listen(1)
        Path(path + ".new").rename(path)
        with sock:
            return (await loop.sock_accept(sock))[0]
    while not Path(path).exists():  # noqa: ASYNC110 - the other node makes it
        await asyncio.sleep(0.005)
    await loop.sock_connect(sock, path)
    return sock


async def main() -> None:
    """Serves."""
    await Server().serve()


if __name__ == "__main__":
    asyncio.run(main())
