"""Tail-stream: the images cross the wire while criu still writes them.

The sender reads the growing pages-*.img from the local tmpfs before and while the job is frozen; the small images follow when the
dump is done. What the receiver has already (ahead.py) is only named. Every file has a running CRC-32 at both
ends; the end frame compares them. ``Outbox`` and ``Inbox`` know files and frames, and nothing of the wire; ``Sender`` and
``Receiver`` carry their frames over a blocking connection in threads of their own: reading, checksums, encryption and sending all
release the interpreter's lock, and the event loop stays free.
"""

import asyncio
import mmap
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from nodeagent.ahead import AHEAD, map_whole
from nodeagent.checksum import crc32
from nodeagent.errors import MoveFailed, PeerLost
from nodeagent.frames import (
    CHUNK,
    DATA,
    HEADER,
    KNOWN,
    MAX_MESSAGE,
    PLACE,
    Abort,
    End,
    File,
    FileSum,
    Message,
    decode,
    encode,
    parse_header,
)
from nodeagent.inplace import MemoryAhead, write_at
from nodeagent.likeness import Likeness
from nodeagent.space import release
from nodeagent.tlserrors import forget_errors

POLL = 0.001  # seconds between two looks for more when criu has written nothing new
MAX_FILES = 1 << 16
PAGES = "pages-"
"""What begins so grows for long, and is sent while it does."""
_PIECE = 1 << 20
"""Bytes of new pages that are worth a mapping of their own."""
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)
_LEAST = 4096  # bytes of room in the buffer for which it is worth going on to fill it
_SMALL = 1 << 16  # bytes that are rather copied than sent by themselves
_COMPARED = 1 << 18  # new bytes that are worth comparing while more come

T = TypeVar("T")
Frames = Generator[memoryview]
"""Each view is good until the next is asked for."""


class Wire(Protocol):
    """A blocking connection. All raise OSError; ``TimeoutError`` when the peer takes in nothing."""

    def settimeout(self, seconds: float | None) -> None: ...

    def sendall(self, data: memoryview) -> None: ...

    def recv_into(self, buffer: memoryview) -> int:
        """Bytes read, 0 at the end of the connection."""
        ...


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


@dataclass(slots=True)
class _Passed:
    """What has passed of one file. ``descriptor`` is -1 when it is closed."""

    number: int
    name: str
    descriptor: int
    length: int = 0
    crc32: int = 0

    def close(self) -> None:
        if self.descriptor != -1:
            os.close(self.descriptor)
            self.descriptor = -1


def _none_of_the_dump(names: Iterable[str]) -> bool:
    return all(name == AHEAD for name in names)


class Outbox:
    """A directory of images as frames. Not for two threads at once."""

    def __init__(self, images: Path) -> None:
        self._images = images
        self._files: dict[str, _Passed] = {}
        self._buffer = memoryview(bytearray(HEADER.size + CHUNK))
        self._fill = 0
        self._likeness: Likeness | None = None
        self.dump_began: Callable[[], None] = lambda: None
        """Called once, when the first image of the frozen job is on its way."""
        self.bytes = 0
        """Image bytes given out up to now, named ones too."""

    def compare(self) -> None:
        """From now on names what is in the file AHEAD, all of which was given out. Takes some time. Raises OSError."""
        self._likeness = Likeness(map_whole(self._images / AHEAD))

    def growing(self) -> Frames:
        """Frames with what is new in the pages; each is to be sent before the next is asked for."""
        for name in self._names(PAGES):
            yield from self._new(name, last=False)
        yield from self._flush()

    def rest(self) -> Frames:
        """Once, when the dump is done: frames with all that was not given out yet."""
        for name in sorted(self._names(""), key=lambda name: (not name.startswith(PAGES), name)):
            yield from self._new(name, last=True)
            self._files[name].close()
        yield from self._flush()

    def sums(self) -> list[FileSum]:
        """Of all files, in the order of sending."""
        return [FileSum(name=name, length=sent.length, crc32=sent.crc32) for name, sent in self._files.items()]

    def close(self) -> None:
        """Closes the files, and lets go of what went ahead. May be repeated."""
        for sent in self._files.values():
            sent.close()
        if self._likeness is not None:
            self._likeness.close()
        self._likeness = None

    def _names(self, prefix: str) -> list[str]:
        with os.scandir(self._images) as entries:
            files = (entry.name for entry in entries if entry.is_file(follow_symlinks=False))  # rounds of pre-copy lie beside them
            return sorted(name for name in files if name.startswith(prefix) and not name.endswith(".log"))

    def _new(self, name: str, *, last: bool) -> Iterator[memoryview]:
        sent = self._files.get(name)
        if sent is None:
            sent = self._open(name)
            yield from self._add(encode(File(number=sent.number, name=name)))
        if name.startswith(PAGES):
            compares = self._likeness is not None and name != AHEAD
            yield from self._compared(sent, 1 if last else _COMPARED) if compares else self._mapped(sent)
            if compares and not last:
                return  # a few bytes more will be compared with those that follow
        while True:
            if len(self._buffer) - self._fill < HEADER.size + _LEAST:
                yield from self._flush()
            begin = self._fill + HEADER.size
            count = os.preadv(sent.descriptor, [self._buffer[begin:]], sent.length)
            if count == 0:
                return
            HEADER.pack_into(self._buffer, self._fill, DATA, sent.number, count)
            self._fill = begin + count
            sent.crc32 = crc32(self._buffer[begin : self._fill], sent.crc32)
            sent.length += count
            self.bytes += count

    def _mapped(self, sent: _Passed) -> Iterator[memoryview]:
        """Whole pieces of a file that grows, without copying them; what is left over is read."""
        while os.fstat(sent.descriptor).st_size - sent.length >= _PIECE:
            data = self._map(sent, CHUNK)
            yield from self._send(sent, data)
            self._passed(sent, data)

    def _compared(self, sent: _Passed, least: int) -> Iterator[memoryview]:
        """What is new if it is ``least`` bytes or more; what is known at the other end is named only."""
        assert self._likeness is not None
        while (new := os.fstat(sent.descriptor).st_size - sent.length) >= least:
            data = self._map(sent, new)
            for part in self._likeness.parts(data):
                if part.known is None:
                    yield from self._send(sent, data[part.begin : part.end])
                else:
                    place = PLACE.pack(part.known, part.end - part.begin)
                    yield from self._add(HEADER.pack(KNOWN, sent.number, len(place)) + place)
            self._passed(sent, data)

    def _map(self, sent: _Passed, most: int) -> memoryview:
        """The next bytes of a file, up to the end of a frame's worth of pages; ``most`` are there.

        Not closed here: who got the view may still hold it when sending fails, and the mapping goes with the last of them.
        """
        begin = sent.length % mmap.PAGESIZE
        length = min(CHUNK, begin + most)
        flags = mmap.MAP_SHARED | _POPULATE
        return memoryview(mmap.mmap(sent.descriptor, length, flags=flags, offset=sent.length - begin))[begin:]

    def _send(self, sent: _Passed, data: memoryview) -> Iterator[memoryview]:
        header = HEADER.pack(DATA, sent.number, len(data))
        if len(data) <= _SMALL:
            yield from self._add(header + data)
            return
        yield from self._add(header)
        yield from self._flush()
        yield data

    def _passed(self, sent: _Passed, data: memoryview) -> None:
        sent.crc32 = crc32(data, sent.crc32)
        sent.length += len(data)
        self.bytes += len(data)

    def _add(self, frame: bytes) -> Iterator[memoryview]:
        if len(self._buffer) - self._fill < len(frame):
            yield from self._flush()
        self._buffer[self._fill : self._fill + len(frame)] = frame
        self._fill += len(frame)

    def _flush(self) -> Iterator[memoryview]:
        if self._fill:
            filled, self._fill = self._fill, 0
            yield self._buffer[:filled]

    def _open(self, name: str) -> _Passed:
        if len(self._files) >= MAX_FILES:
            raise MoveFailed(f"{self._images}: more than {MAX_FILES} image files")
        if name != AHEAD and _none_of_the_dump(self._files):
            self.dump_began()
        # to be mapped so that C may read it, it has to be writable
        descriptor = os.open(self._images / name, (os.O_RDWR if name.startswith(PAGES) else os.O_RDONLY) | os.O_CLOEXEC)
        sent = self._files[name] = _Passed(len(self._files), name, descriptor)
        return sent


class Inbox:
    """Frames as a directory of images. Not for two threads at once. Raises MoveFailed, and OSError for what cannot be written."""

    def __init__(self, images: Path, *, most: int) -> None:
        self._images = images
        self._most = most
        self._files: dict[int, _Passed] = {}
        self._ahead: MemoryAhead | None = None
        self.dump_began: Callable[[], None] = lambda: None
        """Called once, when the first image of the frozen job comes."""
        self.bytes = 0
        """Image bytes kept up to now; more than ``most`` is refused."""

    def take(self, message: Message) -> End | None:
        """The end frame when it was one, and all it promised is there."""
        if isinstance(message, End):
            self._verify(message)
            return message
        if isinstance(message, Abort):
            raise MoveFailed(f"the source gave up: {message.reason}")
        if not isinstance(message, File):
            raise MoveFailed(f"data channel: {message.kind} while images were expected")
        self._create(message)
        return None

    def allow(self, number: int, length: int) -> None:
        """Before data is read: whether it may come."""
        if number not in self._files:
            raise MoveFailed(f"data channel: data of image number {number}, which was never named")
        if self.bytes + length > self._most:
            raise MoveFailed(f"images are larger than the {self._most} bytes there is room for")

    def keep(self, number: int, data: memoryview) -> None:
        """Data that was allowed."""
        file, ahead = self._files[number], self._ahead
        if ahead is not None and ahead.is_image(file.descriptor):
            file.descriptor = ahead.go_on(file.length, len(data))
        if ahead is not None and ahead.is_image(file.descriptor):
            ahead.overwrite(file.length, data)
        else:
            write_at(file.descriptor, file.length, data)
        self._passed(file, data)

    def copy(self, number: int, place: bytes | bytearray) -> None:
        """Data that came ahead: the payload of a frame of kind KNOWN."""
        offset, length = PLACE.unpack(place)
        self.allow(number, length)
        file, ahead = self._files[number], self._memory_ahead()
        if offset + length > len(ahead) or file.name == AHEAD:
            raise MoveFailed(f"data channel: {length} bytes at {offset} were named, of {len(ahead)} that came ahead")
        if ahead.fits(file.length, offset, length):
            file.descriptor = ahead.become(self._images / file.name, file.descriptor, file.length)
        in_place = offset == file.length and ahead.is_image(file.descriptor)
        with closing(ahead.read(offset, length)) as pieces:
            for piece in pieces:
                if in_place:
                    self._passed(file, piece)
                else:
                    self.keep(number, memoryview(bytearray(piece)))  # where it is written, the piece may lie itself

    def close(self) -> None:
        """Closes the files. May be repeated."""
        self._settle()
        for file in self._files.values():
            file.close()

    def _memory_ahead(self) -> MemoryAhead:
        if self._ahead is None:
            if AHEAD not in {file.name for file in self._files.values()}:
                raise MoveFailed("data channel: memory was named that never came ahead")
            self._ahead = MemoryAhead(self._images / AHEAD)
        return self._ahead

    def _passed(self, file: _Passed, data: memoryview) -> None:
        file.crc32 = crc32(data, file.crc32)
        file.length += len(data)
        self.bytes += len(data)

    def _settle(self) -> None:
        """Nothing more is wanted of what came ahead."""
        if self._ahead is not None:
            image = next((file for file in self._files.values() if self._ahead.is_image(file.descriptor)), None)
            self._ahead.close(image.length if image else None)
        self._ahead = None

    def _create(self, file: File) -> None:
        if file.number in self._files:
            raise MoveFailed(f"data channel: image number {file.number} was named twice")
        if file.name != AHEAD:
            release(self._images)  # the images come now
            if _none_of_the_dump(file.name for file in self._files.values()):
                self.dump_began()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._images / file.name, flags, 0o600)
        self._files[file.number] = _Passed(file.number, file.name, descriptor)

    def _verify(self, end: End) -> None:
        here = {file.name: (file.length, file.crc32) for file in self._files.values()}
        promised = {file.name: (file.length, file.crc32) for file in end.files}
        for name in sorted(here.keys() | promised.keys()):
            if name not in here or name not in promised:
                raise MoveFailed(f"image {name} {'did not arrive' if name in promised else 'was not announced at the end'}")
            if here[name][0] != promised[name][0]:
                raise MoveFailed(f"image {name} has {here[name][0]} bytes here, {promised[name][0]} at the source")
            if here[name] != promised[name]:
                raise MoveFailed(f"image {name} was damaged on its way: its checksum differs")


class Sender:
    """Source's end (``channel.Outgoing``). ``cut`` must wake a thread that is blocked on the wire; ``silence`` is in seconds."""

    def __init__(self, wire: Wire, images: Path, executor: Executor, cut: Callable[[], None], *, silence: float) -> None:
        self._silence = silence
        self._wire = wire
        self._outbox = Outbox(images)
        self._executor = executor
        self._cut = cut
        self._dumped = threading.Event()
        self._stopped = False

    @property
    def bytes(self) -> int:
        """Image bytes sent up to now."""
        return self._outbox.bytes

    def on_dump(self, call: Callable[[], None]) -> None:
        self._outbox.dump_began = call

    async def compare(self) -> None:
        """Waits in a thread, as the memory ahead is read once."""
        try:
            await asyncio.to_thread(self._outbox.compare)
        except (OSError, ValueError) as error:
            raise MoveFailed(f"memory that went ahead cannot be read: {error}") from error

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
        self._cut()

    async def run(self) -> list[FileSum]:
        """Sends until all is sent, in a thread."""
        return await in_thread(self._executor, self.work, self.stop)

    def work(self) -> list[FileSum]:
        """Blocks until all is sent. Raises PeerLost, and MoveFailed when the images cannot be read."""
        forget_errors()
        try:
            self._wire.settimeout(self._silence)
            while not self._dumped.is_set():
                if not self._send(self._outbox.growing()):
                    self._dumped.wait(POLL)
            self._check_stopped()
            self._send(self._outbox.rest())
        except OSError as error:
            raise PeerLost(f"data channel: the destination took no more images: {error.strerror or 'no answer in time'}") from error
        finally:
            self._outbox.close()
        return self._outbox.sums()

    def _send(self, frames: Frames) -> bool:
        """Whether there was anything to send. When it fails no image stays mapped: the error lives on, and knows what was sent."""
        any_sent, frame = False, memoryview(b"")
        try:
            for frame in frames:
                self._check_stopped()
                self._wire.sendall(frame)
                any_sent = True
        finally:
            frames.close()
            frame.release()
        return any_sent

    def _check_stopped(self) -> None:
        if self._stopped:
            raise PeerLost("data channel: sending was stopped")


class Receiver:
    """Destination's end (``channel.Incoming``). ``cut`` must wake a thread that is blocked on the wire."""

    def __init__(self, wire: Wire, images: Path, executor: Executor, cut: Callable[[], None], *, most: int) -> None:
        self._wire = wire
        self._images = images
        self._inbox = Inbox(images, most=most)
        self._executor = executor
        self._cut = cut
        self._buffer = memoryview(bytearray(CHUNK))

    @property
    def bytes(self) -> int:
        """Image bytes received up to now."""
        return self._inbox.bytes

    def on_dump(self, call: Callable[[], None]) -> None:
        self._inbox.dump_began = call

    async def run(self) -> End:
        """Receives to the verified end frame, in a thread."""
        return await in_thread(self._executor, self.work, self._cut)

    def work(self) -> End:
        """Blocks until the end frame. Raises PeerLost, and MoveFailed for damaged data, an abort, or no room."""
        forget_errors()
        try:
            self._wire.settimeout(None)  # criu may be silent for long; a dead peer is found by TCP, the deadline by the caller
            while (end := self._frame()) is None:
                pass
        except ConnectionError as error:
            raise PeerLost(f"data channel: images did not arrive: {error}") from error
        except OSError as error:
            raise MoveFailed(f"{self._images}: images cannot be kept here: {error}") from error
        finally:
            self._inbox.close()
        return end

    def _frame(self) -> End | None:
        header = bytearray(HEADER.size)
        self._read(memoryview(header))
        kind, number, length = parse_header(header, MAX_MESSAGE)
        if kind == DATA:
            self._inbox.allow(number, length)
            data = self._buffer[:length]
            self._read(data)
            self._inbox.keep(number, data)
            return None
        payload = bytearray(length)
        self._read(memoryview(payload))
        if kind == KNOWN:
            self._inbox.copy(number, payload)
            return None
        return self._inbox.take(decode(payload))

    def _read(self, view: memoryview) -> None:
        while view:
            try:
                count = self._wire.recv_into(view)
            except OSError as error:
                raise ConnectionError(str(error)) from error
            if count == 0:
                raise ConnectionError("the peer closed the connection")
            view = view[count:]
