"""Tail-stream: the images cross the wire while criu still writes them.

The sender reads the growing pages-*.img from the local tmpfs in a thread that runs before the freeze begins; the small images
follow when the dump is done. Both ends work with blocking sockets in threads of their own: reading, checksums and sending all
release the interpreter's lock, and the event loop stays free. Every file has a running CRC-32 at both ends; the end frame compares
them.
"""

import asyncio
import os
import socket
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nodeagent.errors import MoveFailed, PeerLost
from nodeagent.frames import CHUNK, DATA, HEADER, MAX_MESSAGE, Abort, End, File, FileSum, decode, encode, parse_header

POLL = 0.001  # seconds between two looks for more when criu has written nothing new
MAX_FILES = 1 << 16

T = TypeVar("T")


async def in_thread(executor: Executor, work: Callable[[], T], stop: Callable[[], None]) -> T:
    """Runs blocking ``work``; when cancelled calls ``stop``, which must make it end, and waits for that end."""
    task = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # seen: the cancellation is what counts
        raise


def cut(sock: socket.socket) -> None:
    """Wakes a thread that is blocked on the socket; it gets an error or an end of file."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the peer was faster


@dataclass(slots=True)
class _Sent:
    number: int
    descriptor: int
    length: int = 0
    crc32: int = 0


class Sender:
    """Source's end. ``run`` blocks until all is sent; ``dumped`` tells it that the images are complete. Use it once."""

    def __init__(self, sock: socket.socket, images: Path, *, silence: float) -> None:
        self._sock = sock
        self._images = images
        self._silence = silence
        self._dumped = threading.Event()
        self._stopped = False
        self._files: dict[str, _Sent] = {}
        self._buffer = memoryview(bytearray(HEADER.size + CHUNK))
        self.bytes = 0
        """Image bytes sent up to now."""

    def dumped(self) -> None:
        """The dump succeeded: what is there now is all there will be."""
        self._dumped.set()

    def end_early(self) -> None:
        """Makes ``run`` end with PeerLost after the frame it is sending; the connection stays usable."""
        self._stopped = True
        self._dumped.set()

    def stop(self) -> None:
        """Makes ``run`` end with PeerLost at once; the connection is lost."""
        self.end_early()
        cut(self._sock)

    def run(self) -> list[FileSum]:
        """Sums of all files, in the order of sending. Raises PeerLost, and MoveFailed when the images cannot be read."""
        try:
            self._sock.settimeout(self._silence)
            while not self._dumped.is_set():
                if not self._sweep("pages-"):
                    self._dumped.wait(POLL)
            self._check_stopped()
            self._sweep("pages-")
            self._sweep("")
        except OSError as error:
            raise PeerLost(f"data channel: the destination took no more images: {error.strerror or 'no answer in time'}") from error
        finally:
            for sent in self._files.values():
                os.close(sent.descriptor)
        return [FileSum(name=name, length=sent.length, crc32=sent.crc32) for name, sent in self._files.items()]

    def _sweep(self, prefix: str) -> int:
        """Sends what is new in all files of that prefix; returns how much that was, in bytes."""
        with os.scandir(self._images) as entries:
            names = sorted(entry.name for entry in entries if entry.name.startswith(prefix) and not entry.name.endswith(".log"))
        before = self.bytes
        for name in names:
            self._send_new(name)
        return self.bytes - before

    def _send_new(self, name: str) -> None:
        sent = self._files.get(name) or self._open(name)
        while count := os.readv(sent.descriptor, [self._buffer[HEADER.size :]]):
            self._check_stopped()
            data = self._buffer[HEADER.size : HEADER.size + count]
            HEADER.pack_into(self._buffer, 0, DATA, sent.number, count)
            sent.crc32 = zlib.crc32(data, sent.crc32)
            sent.length += count
            self._sock.sendall(self._buffer[: HEADER.size + count])
            self.bytes += count

    def _open(self, name: str) -> _Sent:
        if len(self._files) >= MAX_FILES:
            raise MoveFailed(f"{self._images}: more than {MAX_FILES} image files")
        descriptor = os.open(self._images / name, os.O_RDONLY | os.O_CLOEXEC)
        sent = self._files[name] = _Sent(len(self._files), descriptor)
        self._sock.sendall(encode(File(number=sent.number, name=name)))
        return sent

    def _check_stopped(self) -> None:
        if self._stopped:
            raise PeerLost("data channel: sending was stopped")


class Receiver:
    """Destination's end. ``run`` blocks until the end frame came and all it promised is there. Use it once."""

    def __init__(self, sock: socket.socket, images: Path, *, most: int) -> None:
        self._sock = sock
        self._images = images
        self._most = most
        self._files: dict[int, tuple[str, _Sent]] = {}
        self._buffer = memoryview(bytearray(CHUNK))
        self.bytes = 0
        """Image bytes received up to now; more than ``most`` is refused."""

    def stop(self) -> None:
        """Makes ``run`` end with PeerLost, soon."""
        cut(self._sock)

    def run(self) -> End:
        """The verified end frame. Raises PeerLost, and MoveFailed for damaged data, an abort, or no room."""
        try:
            self._sock.settimeout(None)  # criu may be silent for long; a dead peer is found by TCP, the deadline by the caller
            while (end := self._frame()) is None:
                pass
            self._verify(end)
        except ConnectionError as error:
            raise PeerLost(f"data channel: images did not arrive: {error}") from error
        except OSError as error:
            raise MoveFailed(f"{self._images}: images cannot be kept here: {error}") from error
        finally:
            for _, file in self._files.values():
                os.close(file.descriptor)
        return end

    def _frame(self) -> End | None:
        header = bytearray(HEADER.size)
        self._fill(memoryview(header))
        kind, number, length = parse_header(header, MAX_MESSAGE)
        if kind == DATA:
            self._keep(number, length)
            return None
        payload = bytearray(length)
        self._fill(memoryview(payload))
        message = decode(payload)
        if isinstance(message, End):
            return message
        if isinstance(message, Abort):
            raise MoveFailed(f"the source gave up: {message.reason}")
        if not isinstance(message, File):
            raise MoveFailed(f"data channel: {message.kind} while images were expected")
        self._create(message)
        return None

    def _create(self, file: File) -> None:
        if file.number in self._files:
            raise MoveFailed(f"data channel: image number {file.number} was named twice")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._images / file.name, flags, 0o600)
        self._files[file.number] = (file.name, _Sent(file.number, descriptor))

    def _keep(self, number: int, length: int) -> None:
        if number not in self._files:
            raise MoveFailed(f"data channel: data of image number {number}, which was never named")
        if self.bytes + length > self._most:
            raise MoveFailed(f"images are larger than the {self._most} bytes there is room for")
        data = self._buffer[:length]
        self._fill(data)
        _, file = self._files[number]
        file.crc32 = zlib.crc32(data, file.crc32)
        file.length += length
        self.bytes += length
        while data:
            data = data[os.write(file.descriptor, data) :]

    def _fill(self, view: memoryview) -> None:
        while view:
            try:
                count = self._sock.recv_into(view)
            except OSError as error:
                raise ConnectionError(str(error)) from error
            if count == 0:
                raise ConnectionError("the peer closed the connection")
            view = view[count:]

    def _verify(self, end: End) -> None:
        here = {name: (file.length, file.crc32) for name, file in self._files.values()}
        promised = {file.name: (file.length, file.crc32) for file in end.files}
        for name in sorted(here.keys() | promised.keys()):
            if name not in here or name not in promised:
                raise MoveFailed(f"image {name} {'did not arrive' if name in promised else 'was not announced at the end'}")
            if here[name][0] != promised[name][0]:
                raise MoveFailed(f"image {name} has {here[name][0]} bytes here, {promised[name][0]} at the source")
            if here[name] != promised[name]:
                raise MoveFailed(f"image {name} was damaged on its way: its checksum differs")
