"""The stream: growing files arrive whole; damaged, short, surplus and hostile ones are noticed; both ends can be stopped."""

import asyncio
import errno
import os
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nodeagent.ahead import AHEAD
from nodeagent.errors import MoveFailed, PeerLost
from nodeagent.frames import (
    CHUNK,
    DATA,
    HEADER,
    KNOWN,
    PLACE,
    Abort,
    End,
    File,
    FileSum,
    Message,
    Ready,
    encode,
    images_size,
)
from nodeagent.space import reserve
from nodeagent.stream import Receiver, Sender

PLENTY = 1 << 30
POOL = ThreadPoolExecutor(2)


def sender_of(sock: socket.socket, images: Path, silence: float = 10) -> Sender:
    return Sender(sock, images, POOL, lambda: sock.shutdown(socket.SHUT_RDWR), silence=silence)


def receiver_of(sock: socket.socket, images: Path, most: int = PLENTY) -> Receiver:
    return Receiver(sock, images, POOL, lambda: sock.shutdown(socket.SHUT_RDWR), most=most)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def end_of(files: list[FileSum]) -> End:
    return End(files=files, last_pid=1, frozen_for=0, cpu_seconds=0, started_at=None)


def test_files_that_grow_arrive_whole(
    pair: tuple[socket.socket, socket.socket], here: Path, there: Path, pool: ThreadPoolExecutor
) -> None:
    """Pages are sent while they are written; small images, and what is added at the last moment, follow. Logs stay."""
    sender, receiver = sender_of(pair[0], here), receiver_of(pair[1], there)
    sending, receiving = pool.submit(sender.work), pool.submit(receiver.work)
    piece = bytes(range(256)) * 1000
    with (here / "pages-1.img").open("wb", buffering=0) as one, (here / "pages-2.img").open("wb", buffering=0) as two:
        for _ in range(10):
            one.write(piece)
            two.write(piece[::-1])
        wait_for(lambda: (there / "pages-2.img").exists() and (there / "pages-2.img").stat().st_size == 10 * len(piece))
        assert not sending.done()
        one.write(b"last")
    (here / "core-1.img").write_bytes(b"core")
    (here / "empty.img").write_bytes(b"")
    (here / "dump.log").write_text("secret")
    sender.dumped()
    files = sending.result(10)
    pair[0].sendall(encode(end_of(files)))
    assert receiving.result(10).last_pid == 1
    came = {path.name: path.read_bytes() for path in there.iterdir()}
    expected = {
        "pages-1.img": piece * 10 + b"last",
        "pages-2.img": piece[::-1] * 10,
        "core-1.img": b"core",
        "empty.img": b"",
    }
    assert came.keys() == expected.keys()
    assert [name for name in came if came[name] != expected[name]] == []
    assert sender.bytes == receiver.bytes == 20 * len(piece) + 8


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = threading.Event()
    for _ in range(5000):
        if condition():
            return
        deadline.wait(0.002)
    raise AssertionError("it never came true")


def data(number: int, content: bytes) -> bytes:
    return HEADER.pack(DATA, number, len(content)) + content


def receive(pair: tuple[socket.socket, socket.socket], there: Path, *frames: bytes | Message, most: int = PLENTY) -> End:
    """What the receiver makes of these frames."""
    raw = b"".join(frame if isinstance(frame, bytes) else encode(frame) for frame in frames)
    writing = threading.Thread(target=pair[0].sendall, args=(raw,), daemon=True)
    writing.start()
    try:
        return receiver_of(pair[1], there, most).work()
    finally:
        pair[1].close()
        writing.join(10)


A = File(number=0, name="a.img")


def sum_of(content: bytes, name: str = "a.img") -> FileSum:
    return FileSum(name=name, length=len(content), crc32=zlib.crc32(content))


def test_what_is_whole_is_taken(pair: tuple[socket.socket, socket.socket], there: Path) -> None:
    assert receive(pair, there, A, data(0, b"he"), data(0, b"llo"), end_of([sum_of(b"hello")])).files == [sum_of(b"hello")]
    assert (there / "a.img").read_bytes() == b"hello"


def known(number: int, offset: int, length: int) -> bytes:
    return HEADER.pack(KNOWN, number, PLACE.size) + PLACE.pack(offset, length)


AHEAD_FILE = File(number=1, name=AHEAD)


def test_what_went_ahead_is_only_named(
    pair: tuple[socket.socket, socket.socket], here: Path, there: Path, pool: ThreadPoolExecutor
) -> None:
    """Two pages were written and some came since; the dump still arrives as it is."""
    pages = [number.to_bytes(4, "big") * 1024 for number in range(2000)]
    changed = [*pages[:700], b"w" * 4096, *pages[701:1500], *(b"%04d" % n * 1024 for n in range(30)), *pages[1500:], b"tail"]
    sender, receiver = sender_of(pair[0], here), receiver_of(pair[1], there)
    sending, receiving = pool.submit(sender.work), pool.submit(receiver.work)
    (here / AHEAD).write_bytes(b"".join(pages))
    wait_for(lambda: sender.bytes == len(b"".join(pages)))
    asyncio.run(sender.compare())
    asyncio.run(reserve(there, 1 << 20))
    with (here / "pages-1.img").open("wb") as file:
        for page in changed:
            file.write(page)
    (here / "core-1.img").write_bytes(b"core")
    sender.dumped()
    files = sending.result(10)
    pair[0].sendall(encode(end_of(files)))
    receiving.result(10)
    assert (there / "pages-1.img").read_bytes() == b"".join(changed)
    assert {path.name for path in there.iterdir()} == {"pages-1.img", "core-1.img"}, "what came ahead became the image"
    assert images_size(files) == len(b"".join(changed)) + 4


def test_a_send_that_failed_keeps_nothing_mapped(here: Path, pool: ThreadPoolExecutor) -> None:
    """The error is remembered; a mapping remembered with it would keep the memory of a whole job."""

    class Broken:
        sent = 0

        def settimeout(self, seconds: float | None) -> None: ...

        def recv_into(self, buffer: memoryview) -> int:
            raise NotImplementedError

        def sendall(self, data: memoryview) -> None:
            self.sent += len(data)
            if self.sent > 3 << 20:
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    sender = Sender(Broken(), here, pool, lambda: None, silence=5)
    (here / AHEAD).write_bytes(os.urandom(1 << 20))
    (here / "pages-1.img").write_bytes(os.urandom(8 << 20))
    asyncio.run(sender.compare())
    assert str(here) in Path("/proc/self/maps").read_text()
    with pytest.raises(PeerLost, match="took no more") as error:
        sender.work()
    assert str(here) not in Path("/proc/self/maps").read_text(), error


def test_what_is_named_is_copied_from_what_came_ahead(pair: tuple[socket.socket, socket.socket], there: Path) -> None:
    sums = [sum_of(b"-hello-", AHEAD), sum_of(b"hello")]
    receive(pair, there, AHEAD_FILE, data(1, b"-hello-"), A, known(0, 1, 5), end_of(sums))
    assert (there / "a.img").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([A, known(0, 0, 1)], "never came ahead"),
        ([AHEAD_FILE, data(1, b"hello"), A, known(0, 3, 3)], "3 bytes at 3 were named, of 5"),
        ([AHEAD_FILE, data(1, b"hello"), known(1, 0, 5)], "were named"),
        ([AHEAD_FILE, data(1, b"hellO"), A, known(0, 0, 5), end_of([sum_of(b"hello", AHEAD), sum_of(b"hello")])], "damaged"),
        ([known(0, 0, 1)], "never named"),
        ([AHEAD_FILE, A, HEADER.pack(KNOWN, 0, PLACE.size + 1)], "not allowed"),
    ],
)
def test_what_cannot_be_named_is_refused(
    pair: tuple[socket.socket, socket.socket], there: Path, frames: list[bytes | Message], message: str
) -> None:
    with pytest.raises(MoveFailed, match=message):
        receive(pair, there, *frames)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([A, data(0, b"hellO"), end_of([sum_of(b"hello")])], "damaged on its way"),
        ([A, data(0, b"hell"), end_of([sum_of(b"hello")])], "4 bytes here, 5 at the source"),
        ([end_of([sum_of(b"hello")])], "did not arrive"),
        ([A, data(0, b"hello"), end_of([])], "not announced at the end"),
        ([A, A], "named twice"),
        ([A, File(number=1, name="a.img")], "cannot be kept"),
        ([data(5, b"x")], "never named"),
        ([Ready()], "ready while images were expected"),
        ([A, Abort(reason="no more")], "the source gave up: no more"),
        ([struct.pack(">cHI", DATA, 0, CHUNK + 1)], "not allowed"),
        ([b"GET / HTTP/1.1\r\n"], "not allowed"),
    ],
)
def test_what_is_wrong_is_refused(
    pair: tuple[socket.socket, socket.socket], there: Path, frames: list[bytes | Message], message: str
) -> None:
    with pytest.raises(MoveFailed, match=message):
        receive(pair, there, *frames)


def test_more_than_there_is_room_for_is_refused(pair: tuple[socket.socket, socket.socket], there: Path) -> None:
    with pytest.raises(MoveFailed, match="larger than the 9 bytes"):
        receive(pair, there, A, data(0, b"12345"), data(0, b"67890"), most=9)


def test_a_link_in_the_way_is_not_followed(pair: tuple[socket.socket, socket.socket], there: Path, tmp_path: Path) -> None:
    (there / "a.img").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MoveFailed, match="cannot be kept"):
        receive(pair, there, A)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("length", [0, 3, 30, 60])
def test_a_stream_that_breaks_off_is_a_lost_peer(pair: tuple[socket.socket, socket.socket], there: Path, length: int) -> None:
    whole = encode(A) + data(0, b"hello" * 10)
    pair[0].sendall(whole[:length])
    pair[0].close()
    with pytest.raises(PeerLost):
        receiver_of(pair[1], there).work()


def test_a_sender_whose_peer_hangs_up_ends(pair: tuple[socket.socket, socket.socket], here: Path) -> None:
    (here / "pages-1.img").write_bytes(b"x" * 4096)
    pair[1].close()
    with pytest.raises(PeerLost):
        sender_of(pair[0], here).work()


def test_a_sender_whose_peer_reads_nothing_ends(pair: tuple[socket.socket, socket.socket], here: Path) -> None:
    (here / "pages-1.img").write_bytes(b"x" * (8 << 20))
    with pytest.raises(PeerLost):
        sender_of(pair[0], here, 0.05).work()


def test_a_sender_that_ends_early_leaves_the_connection_usable(
    pair: tuple[socket.socket, socket.socket], here: Path, there: Path, pool: ThreadPoolExecutor
) -> None:
    (here / "pages-1.img").write_bytes(b"x" * 100_000)
    sender = sender_of(pair[0], here)
    sending = pool.submit(sender.work)
    receiving = pool.submit(receiver_of(pair[1], there).work)
    wait_for(lambda: sender.bytes == 100_000)
    sender.end_early()
    with pytest.raises(PeerLost, match="stopped"):
        sending.result(10)
    pair[0].sendall(encode(Abort(reason="dump failed")))
    with pytest.raises(MoveFailed, match="dump failed"):
        receiving.result(10)
