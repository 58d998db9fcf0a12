"""The node agent as it runs on a node under test: the production agent, whose hooks tell the harness where it is and wait.

Runs as ``python3 -sE -c <this text> --node n1 …`` on the node, so it imports nothing of the tests. At each moment it connects to
the harness' socket on the shared file system, says ``{"node", "moment", "job", "epoch"}`` and goes on at the answer; meanwhile the
harness may kill or stop it. The answer may tell it to flip a byte: then the next data channel it opens leads through a relay.
"""

import asyncio
import json
import select
import socket
import sys
import threading
from typing import Any

sys.path[:0] = ["/usr/lib/mx", "/usr/lib/mx/deps"]

from nodeagent.__main__ import main  # noqa: E402 - the node's packages have to be found first
from nodeagent.config import DATA_PORT  # noqa: E402
from nodeagent.engine import Copy  # noqa: E402

SOCKET = "/shared/faults/moments"
PATIENCE = 60.0  # seconds; a harness that is gone must not keep the agent
flips: list[int] = []
"""Where in the next data channel's bytes towards the destination one is to be flipped."""


class Announced:
    """Hooks that ask the harness."""

    async def at(self, moment: str, copy: Copy) -> None:
        said = {"node": sys.argv[sys.argv.index("--node") + 1], "moment": moment, "job": copy.key, "epoch": copy.epoch}
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(SOCKET)
                try:
                    writer.write(json.dumps(said).encode() + b"\n")
                    answer = json.loads(await reader.readline() or b"{}")
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return  # nobody listens any more
        if "flip" in answer:
            flips.append(answer["flip"])


def relay(listener: socket.socket, target: tuple[str, int], flip: int) -> None:
    """One connection; the byte number ``flip`` on its way to the target arrives changed."""
    with listener, listener.accept()[0] as near, socket.create_connection(target, timeout=PATIENCE) as far:
        passed = 0
        other = {near: far, far: near}
        while True:
            ready, _, _ = select.select([near, far], [], [], PATIENCE)
            for one in ready:
                data = bytearray(one.recv(1 << 16))
                if not data:
                    return
                if one is near:
                    if passed <= flip < passed + len(data):
                        data[flip - passed] ^= 1
                    passed += len(data)
                other[one].sendall(data)
            if not ready:
                return


class Loop(asyncio.SelectorEventLoop):
    """Leads data channels through a relay when told to."""

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        if flips and isinstance(address, tuple) and address[1] == DATA_PORT:
            listener = socket.create_server(("127.0.0.1", 0))
            threading.Thread(target=relay, args=(listener, address[:2], flips.pop()), daemon=True).start()
            address = listener.getsockname()
        await super().sock_connect(sock, address)


class Policy(asyncio.DefaultEventLoopPolicy):
    """So that asyncio.run makes our loop."""

    _loop_factory = Loop


if __name__ == "__main__":
    asyncio.set_event_loop_policy(Policy())
    sys.exit(main(hooks=Announced()))
