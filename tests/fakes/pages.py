"""Connections over which memory follows a job, between nodes that are none: see nodeagent/pages.py.

They belong to a ``MemoryNetwork`` and obey it: ``forbid`` keeps new ones from being made, and each stands in ``network.wires``,
oldest first: cut(), hold(), release(). Like the real ones they outlive the agents, not the machines.
"""

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Self

from crds.placement import MoveOrder
from nodeagent.errors import MoveFailed, PeerLost
from tests.fakes.channel import MemoryNetwork

PIECE = 1 << 16


class MemoryWire:
    """One connection; what comes in at either end goes out at the other, unless it is held."""

    def __init__(self, source: str, destination: str, migration: str) -> None:
        self.source, self.destination, self.migration = source, destination, migration
        (self.out, one), (other, self.into) = socket.socketpair(), socket.socketpair()
        self._ends = (one, other)
        self._free = asyncio.Event()
        self._free.set()
        for end in self._ends:
            end.setblocking(False)
        loop = asyncio.get_running_loop()
        self._left = 2
        self._tasks = [loop.create_task(self._pass(*ends), name=f"pages of {migration}") for ends in ((one, other), (other, one))]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    @property
    def over(self) -> bool:
        """Nothing passes any more."""
        return not self._left

    async def _pass(self, here: socket.socket, there: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(here, PIECE):
                await self._free.wait()
                await loop.sock_sendall(there, data)
        await self._free.wait()
        with contextlib.suppress(OSError):
            there.shutdown(socket.SHUT_WR)

    def _ended(self, _: "asyncio.Task[None]") -> None:
        self._left -= 1
        if not self._left:
            for end in self._ends:
                end.close()

    def cut(self) -> None:
        """Lost for both ends."""
        for end, task in zip(self._ends, self._tasks, strict=True):
            if not self.over:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            task.cancel()

    def hold(self) -> None:
        self._free.clear()

    def release(self) -> None:
        self._free.set()


class MemoryDoor:
    """``pages.Entrance``."""

    def __init__(self, network: MemoryNetwork, order: MoveOrder) -> None:
        self.order = order
        self.came: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self.port = network.next_port()
        self._network = network

    def __enter__(self) -> Self:
        self._network.doors[self.port] = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._network.doors[self.port]
        if not self.came.cancel() and not self.came.cancelled():
            self.came.result().close()

    async def wire(self) -> socket.socket:
        return await self.came


class MemoryPages:
    """``pages.Pages`` of one node."""

    def __init__(self, network: MemoryNetwork, node: str) -> None:
        self._network, self._node = network, node

    def door(self, order: MoveOrder) -> MemoryDoor:
        return MemoryDoor(self._network, order)

    async def reach(self, order: MoveOrder, port: int) -> socket.socket:
        if not port:
            raise MoveFailed(f"node/{order.destination} cannot take jobs by post-copy")
        await asyncio.sleep(0)
        door = self._network.doors.get(port)
        if door is None or door.came.done() or not self._network.allowed(self._node, order.destination):
            raise PeerLost(f"node/{order.destination} cannot be reached for pages: connection refused")
        assert door.order.ticket == order.ticket
        wire = MemoryWire(self._node, order.destination, order.migration)
        self._network.wires.append(wire)
        door.came.set_result(wire.into)
        return wire.out
