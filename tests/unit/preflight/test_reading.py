"""The picture is true: it is taken here of this very process and its children."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from nodeagent.preflight import Preflight
from nodeagent.preflight.scene import Mapping, Scene, parse_maps, read_process
from nodeagent.preflight.tables import ask_peers, parse_peer, read_address, read_sockets

PROC = Path("/proc")


def me() -> int:
    return os.getpid()


def test_open_files_are_seen() -> None:
    with tempfile.NamedTemporaryFile() as file:
        read = read_process(me(), PROC)
        assert read is not None
        [held] = [each for each in read.descriptors if each.number == file.fileno()]
        assert (held.target, held.writable, held.deleted, held.links) == (file.name, True, False, 1)
        Path(file.name).unlink()
        read = read_process(me(), PROC)
        assert read is not None
        [held] = [each for each in read.descriptors if each.number == file.fileno()]
        assert (held.path, held.deleted, held.links) == (file.name, True, 0)
        Path(file.name).touch()


def test_a_process_that_is_gone_is_left_out() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert read_process(child.pid, PROC) is None, "a zombie"
    child.wait()
    assert read_process(child.pid, PROC) is None


def test_peers_of_unix_sockets() -> None:
    with socket.socketpair()[0] as lonely, socket.socket(socket.AF_UNIX) as fresh:
        near, far = socket.socketpair()
        with near, far:
            numbers = [os.fstat(each.fileno()).st_ino for each in (near, far, fresh, lonely)]
            assert ask_peers(numbers) == {numbers[0]: numbers[1], numbers[1]: numbers[0], numbers[2]: 0, numbers[3]: 0}
            found = read_sockets(me(), {*numbers}, PROC, own=False)
            assert (found[numbers[0]].peer, found[numbers[2]].family) == (numbers[1], "unix")
        with pytest.raises(OSError):
            parse_peer(b"\x24\0\0\0\2\0\0\0" + b"\0" * 8 + (-1).to_bytes(4, "little", signed=True) + b"\0" * 16)


def test_inet_sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        inode = os.fstat(server.fileno()).st_ino
        found = read_sockets(me(), {inode}, PROC, own=False)[inode]
        assert (found.family, found.state, found.local) == ("tcp", "0A", f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.skipif(sys.byteorder == "big", reason="the texts are those of little machines")
@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F:1F90", "127.0.0.1:8080"),
        ("00000000000000000000000001000000:0050", "[::1]:80"),
        ("0000000000000000FFFF00000B004D0A:0016", "10.77.0.11:22"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert read_address(text) == address


def test_maps() -> None:
    text = (
        "7f00-7f01 r--p 00034000 00:29 1472695                    /usr/lib/my libs/a.so\n"
        "7f01-7f02 rw-p 00036000 00:29 1472695                    /usr/lib/my libs/a.so\n"
        "7f03-7f04 rw-s 00000000 00:0e 1   anon_inode:[io_uring]\n"
        "7f04-7f05 rw-p 00000000 00:00 0 \n"
        "7ffd-7ffe rw-p 00000000 00:00 0                          [stack]\n"
    )
    assert list(parse_maps(text)) == [Mapping("/usr/lib/my libs/a.so", "00:29"), Mapping("anon_inode:[io_uring]", "00:0e", True)]


OPENER = "import sys; files = []\nfor line in sys.stdin: files.append(open('/dev/null')); print(len(files), flush=True)"


def test_an_old_answer_holds_until_a_descriptor_comes() -> None:
    preflight, reads = Preflight(shared=Path("/")), []
    original = preflight.read

    def read(pids: Iterable[int], shim: int) -> Scene:
        reads.append(shim)
        return original(pids, shim)

    preflight.read = read  # type: ignore[method-assign]
    with subprocess.Popen(
        [sys.executable, "-c", OPENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        assert job.stdin is not None and job.stdout is not None

        def open_one() -> None:
            print(file=job.stdin, flush=True)
            job.stdout.readline()  # type: ignore[union-attr]

        open_one()
        assert preflight.look([job.pid], job.pid, thorough=False) == [] and len(reads) == 1
        assert preflight.look([job.pid], job.pid, thorough=False) == [] and len(reads) == 1
        open_one()
        assert preflight.look([job.pid], job.pid, thorough=False) == [] and len(reads) == 2
        assert preflight.look([job.pid], job.pid, thorough=True) == [] and len(reads) == 3
        job.stdin.close()
