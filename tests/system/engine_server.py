"""Runs on a test node, on the image's Python, in the agent's place: serves the node's real engine on stdin and stdout.

One JSON line a request: {"id": …, "call": method, "on": sandbox number or null, "with": arguments} or {"cancel": id}.
Ends at the end of stdin.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crds.job import Fencing, JobSpec
from nodeagent.attachment import Attachment
from nodeagent.engine import Copy, Network
from nodeagent.errors import AgentError, StartFailed
from nodeagent.sandbox import NamespaceEngine, NamespaceSandbox


def read_network(data: dict[str, Any] | None) -> Network | None:
    """None when there is none."""
    return Network(**data) if data else None


READ: dict[str, Callable[[Any], Any]] = {
    "copy": lambda data: Copy(**data),
    "network": read_network,
    "images": Path,
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

    async def call(self, method: str, number: int | None, values: dict[str, Any]) -> Any:
        """The result in plain data."""
        for name, read in READ.items():
            if name in values:
                values[name] = read(values[name])
        target: Any = self.engine if number is None else self.sandboxes[number]
        result = await getattr(target, method)(**values)
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


async def main() -> None:
    """Serves."""
    await Server().serve()


if __name__ == "__main__":
    asyncio.run(main())
