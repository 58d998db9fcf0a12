"""A connection from the agent to the mx-stdio of a job, or of a session beside it: bytes are only passed on.

It has to be gone before criu comes, because a socket whose other end is not part of the job cannot be dumped: ``detach`` sees to it
that mx-stdio has closed its end. Whoever is attached then comes back to wherever the job is.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from nodeagent.errors import EngineFailed
from nodeagent.stdio.frames import PAUSE, frame

BLOCK = 1 << 16  # bytes passed on at once
CONNECT_SECONDS = 5.0
DETACH_SECONDS = 3.0
"""For mx-stdio to close its end; it takes a millisecond unless the machine is drowning or somebody stopped it."""

Read = Callable[[], Awaitable[bytes]]
"""Some bytes of the client; b"" when it has hung up."""
Write = Callable[[bytes], Awaitable[None]]
"""To the client."""


class Attachment:
    """One connection. ``relay`` runs until either side hangs up or it is detached."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._sock = sock
        self._name = name
        self._passing: set[asyncio.Task[Any]] = set()
        self._leaving: asyncio.Task[None] | None = None

    async def relay(self, read: Read, write: Write) -> None:
        """Passes bytes on, both ways. Raises what ``read`` and ``write`` raise."""
        if self._leaving is not None:
            return
        inward, outward = asyncio.create_task(self._inward(read)), asyncio.create_task(self._outward(write))
        self._passing = passing = {inward, outward}
        try:
            done, _ = await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            if done == {inward} and not inward.cancelled() and not inward.exception() and inward.result():
                await asyncio.wait({outward})  # what mx-stdio said last, the exit code perhaps, is still to be read
                done.add(outward)
        finally:
            for task in passing:
                task.cancel()
            await asyncio.wait(passing)
        for task in done:
            if not task.cancelled():
                task.result()

    async def _inward(self, read: Read) -> bool:
        """Whether it was mx-stdio that hung up."""
        loop = asyncio.get_running_loop()
        try:
            while data := await read():
                await loop.sock_sendall(self._sock, data)
        except (ConnectionError, BrokenPipeError):
            return True
        return False

    async def _outward(self, write: Write) -> None:
        loop = asyncio.get_running_loop()
        while data := await self._receive(loop):
            await write(data)

    async def _receive(self, loop: asyncio.AbstractEventLoop) -> bytes:
        try:
            return await loop.sock_recv(self._sock, BLOCK)
        except ConnectionError:
            return b""

    async def detach(self) -> None:
        """Ends the relay; mx-stdio has closed its end when this returns. What was on its way is sent again after the next hello.

        May be called by several, and again. Raises EngineFailed when it is not closed.
        """
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._detach(), name=f"detach from {self._name}")
        await asyncio.shield(self._leaving)

    @property
    def gone(self) -> bool:
        """Whether mx-stdio has closed its end."""
        return self._leaving is not None and self._leaving.done()

    async def _detach(self) -> None:
        for task in self._passing:
            task.cancel()
        if self._passing:
            await asyncio.wait(self._passing)
        loop = asyncio.get_running_loop()
        try:
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(DETACH_SECONDS):
                while await self._receive(loop):
                    pass
        except TimeoutError as error:
            raise EngineFailed(f"{self._name}: its mx-stdio does not close a connection: is that process stopped?") from error
        except OSError:
            return  # it was closed already
        finally:
            self._sock.close()


async def pause(sock: socket.socket, name: str) -> None:
    """Before a freeze: lets mx-stdio take in what the program has printed. Raises EngineFailed."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(DETACH_SECONDS):
            await loop.sock_sendall(sock, frame(PAUSE))
            while await loop.sock_recv(sock, BLOCK):
                pass
    except TimeoutError as error:
        raise EngineFailed(f"{name}: its mx-stdio does not answer: is that process stopped?") from error
    except OSError:
        return  # it has ended, and the job with it
    finally:
        sock.close()


async def connect(directory: Path, session: str, name: str) -> socket.socket:
    """To the socket of that name in the sandbox's directory of sockets. Raises EngineFailed."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:  # by way of the descriptor: a socket's own path may not be longer than 107 bytes
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, f"/proc/self/fd/{descriptor}/{session}")
        finally:
            os.close(descriptor)
    except (OSError, TimeoutError) as error:
        sock.close()
        raise EngineFailed(f"{name}: its mx-stdio cannot be reached: {str(error) or 'no answer in time'}") from error
    except BaseException:
        sock.close()
        raise
    return sock
