"""What preflight foretells, and what real criu then does: no false "can move", no false "cannot".

Each case is a piece of Python that a job begins with before it counts. The harmless ones are many in one job.
"""

import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from nodeagent.engine import Engine
from nodeagent.errors import EngineFailed
from tests.engine_contract import DEADLINE, code, copy, started
from tests.system import road as roads
from tests.system.road import Road
from tests.system.testnode import RemoteEngine, TestNode
from tests.system.witness import Witness

C = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*arguments)
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result
"""
COUNT = "import itertools, time\nfor i in itertools.count(): print(i, flush=True); time.sleep(0.02)\n"
ALL = "kept = []\nfor code in {codes!r}:\n    scope = {{}}; exec(code, scope); kept.append(scope)\n"

HARMLESS = {
    "files": {
        "read": "f = open('/usr/lib/os-release')",
        "deleted": "import os\nf = open('/shared/g', 'wb'); f.write(b'x' * 500000); f.flush(); os.unlink('/shared/g')",
        "deleted elsewhere": "import os\nf = open('/var/tmp/g', 'w'); f.write('x'); f.flush(); os.unlink('/var/tmp/g')",
        "sparse": "import os\nf = open('/tmp/s', 'wb'); f.truncate(2 << 30); f.write(b'x'); f.flush(); os.unlink('/tmp/s')",
        "hard link": "import os\nf = open('/shared/h1', 'w'); f.flush(); os.link('/shared/h1', '/shared/h2'); os.unlink('/shared/h1')",
        "proc": "f = open('/proc/self/status'); g = open('/proc/meminfo')",
        "sys": "f = open('/sys/kernel/mm/transparent_hugepage/enabled')",
        "directory": "import os\nf = os.open('/usr/lib', os.O_RDONLY); g = os.open('/etc/passwd', os.O_PATH)",
        "fifo": "import os\nos.mkfifo('/tmp/f'); f = os.open('/tmp/f', os.O_RDWR)",
        "mapped": "import mmap\nf = open('/shared/mf', 'wb+'); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[0] = 1",
        "zero": "import mmap\nf = open('/dev/zero', 'rb+'); m = mmap.mmap(f.fileno(), 8192); g = open('/dev/full', 'w')",
        "shm": "from multiprocessing import shared_memory as s\nx = s.SharedMemory(create=True, size=4096)",
        "mqueue-free": "import os\nf = os.memfd_create('x'); os.write(f, b'abc')",
    },
    "sockets": {
        "packet": "import socket\ns = socket.socket(17, 3, 0)",
        "raw": "import socket\ns = socket.socket(2, 3, 1)",
        "udp": "import socket\ns = socket.socket(2, 2); s.bind(('', 0)); s.connect(('127.0.0.1', 9))",
        "netlink": "import socket\ns = socket.socket(16, 3, 0); s.bind((0, 0))",
        "listening": "import socket\ns = socket.create_server(('', 0)); t = socket.create_server(('::', 0), family=socket.AF_INET6)",
        "half closed": "import socket\ns = socket.create_server(('127.0.0.1', 0))\n"
        "c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.close()",
        "unix": "import socket\ns = socket.socket(socket.AF_UNIX); s.bind('/tmp/my.sock'); s.listen()",
        "abstract": "import socket\ns = socket.socket(socket.AF_UNIX); s.bind('\\0abc'); s.listen()",
        "datagrams": "import socket\na = socket.socket(socket.AF_UNIX, 2); a.bind('/tmp/a.sock')\n"
        "b = socket.socket(socket.AF_UNIX, 2); b.connect('/tmp/a.sock'); b.send(b'hi')",
        "lonely": "import socket\na, b = socket.socketpair(); b.close()",
        "pending": "import socket\ns = socket.socket(socket.AF_UNIX); s.bind('/tmp/p.sock'); s.listen()\n"
        "c = socket.socket(socket.AF_UNIX); c.connect('/tmp/p.sock')",
    },
    "processes": {
        "pidfd": "import os, time\np = os.fork()\nif p == 0: time.sleep(10000)\nf = os.pidfd_open(p)",
        "zombie": "import os\np = os.fork()\nif p == 0: os._exit(0)\n",
        "inotify": C + "f = libc.inotify_init(); libc.inotify_add_watch(f, b'/etc', 0xfff)",
        "fanotify": C + "f = call(300, 0, 0)",
        "timers": C + "t = ctypes.c_void_p(); assert libc.timer_create(1, None, ctypes.byref(t)) == 0",
        "epoll": "import select, os\na, b = os.pipe(); e = select.epoll(); e.register(a); c = os.dup(a); os.close(a)",
        "descriptors": C + "e = os.eventfd(3); assert libc.timerfd_create(1, 0) >= 0",
        "aio": C + "c = ctypes.c_ulong(); call(206, 8, ctypes.byref(c))",
        "terminal": "import pty\na, b = pty.openpty()",
        "group": "import os, time\nif os.fork() == 0:\n    os.setpgid(0, 0)\n    if os.fork() == 0: time.sleep(10000)\n    os._exit(0)",
        "own tables": C + "import threading, time\ndef w():\n    assert libc.unshare(0x600) == 0; time.sleep(10000)\n"
        "threading.Thread(target=w, daemon=True).start()",
    },
    "locks": {
        "flock": "import fcntl\nf = open('/shared/lock1', 'w'); fcntl.flock(f, fcntl.LOCK_EX)",
        "posix": "import fcntl\nf = open('/shared/lock2', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)",
        "shared": "import fcntl\nf = open('/shared/lock3', 'w+'); fcntl.lockf(f, fcntl.LOCK_SH)",
        "region": "import fcntl\nf = open('/shared/lock4', 'w'); fcntl.lockf(f, fcntl.LOCK_EX, 10, 5); fcntl.lockf(f, fcntl.LOCK_EX, 7, 90)",
        "open file": "import fcntl, struct\nf = open('/shared/lock5', 'w'); fcntl.fcntl(f, 37, struct.pack('hhqqi4x', 1, 0, 0, 0, 0))",
        "inherited": "import fcntl, os, time\nf = open('/shared/lock6', 'w'); fcntl.flock(f, fcntl.LOCK_EX)\nif os.fork() == 0: time.sleep(10000)",
    },
    "system v": {
        "memory": C + "i = libc.shmget(0, 4096, 0o1600); libc.shmat.restype = ctypes.c_void_p; assert libc.shmat(i, None, 0) > 0",
        "others": C + "assert min(libc.shmget(77, 4096, 0o1600), libc.semget(78, 3, 0o1600), libc.msgget(79, 0o1600)) >= 0",
    },
    "own namespaces": {"net, ipc, uts": C + "assert libc.unshare(0x40000000) == 0 and libc.unshare(0xc000000) == 0"},
    "seccomp": {
        "filter": C + "class F(ctypes.Structure): _fields_ = [('n', ctypes.c_ushort), ('f', ctypes.c_void_p)]\n"
        "code = (ctypes.c_uint64 * 1)(0x7fff000000000006); p = F(1, ctypes.addressof(code))\n"
        "assert libc.prctl(22, 2, ctypes.byref(p), 0, 0) == 0"
    },
    "locked memory": {"all": C + "assert libc.mlockall(1) == 0"},
    "another root": {"usr": "import os\nos.chroot('/usr')"},
}
STAYS = {
    "io_uring": ("IoUring", C + "call(425, 4, ctypes.create_string_buffer(120))"),
    "perf": (
        "UnsupportedDescriptor",
        C + "b = ctypes.create_string_buffer(128); b[0:5] = bytes([1, 0, 0, 0, 128]); call(298, b, 0, -1, -1, 0)",
    ),
    "bpf": ("UnsupportedDescriptor", C + "a = (ctypes.c_uint32 * 16)(2, 4, 8, 4); call(321, 0, a, 64)"),
    "message queue": ("UnsupportedDescriptor", C + "assert libc.mq_open(b'/q', 0o102, 0o600, None) >= 0"),
    "device": ("DeviceFile", "f = open('/dev/net/tun', 'rb+', buffering=0)"),
    "traced": (
        "Traced",
        C + "import time\np = os.fork()\nif p == 0: time.sleep(10000)\nassert libc.ptrace(0x4206, p, None, None) == 0",
    ),
    "local file": ("NodeLocalFile", "f = open('/var/tmp/mine', 'w'); f.write('abc'); f.flush()"),
    "run file": ("NodeLocalFile", "f = open('/run/mine', 'w'); f.write('abc'); f.flush()"),
    "local mapping": (
        "NodeLocalFile",
        "import mmap\nf = open('/var/tmp/mf', 'wb+'); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[0] = 1; f.close()",
    ),
    "local directory": ("NodeLocalFile", "import os\nos.makedirs('/var/tmp/d', exist_ok=True); os.chdir('/var/tmp/d')"),
    "local link": (
        "NodeLocalFile",
        "import os\nf = open('/var/tmp/h1', 'w'); f.flush(); os.link('/var/tmp/h1', '/var/tmp/h2'); os.unlink('/var/tmp/h1')",
    ),
    "mounts": ("OwnNamespace", C + "assert libc.unshare(0x20000) == 0"),
    "user": ("OwnNamespace", C + "assert libc.unshare(0x10000000) == 0"),
    "pids": ("OwnNamespace", C + "import time\nassert libc.unshare(0x20000000) == 0\nif os.fork() == 0: time.sleep(10000)"),
    "child's ipc": ("OwnNamespace", C + "import time\nif os.fork() == 0:\n    libc.unshare(0x8000000); time.sleep(10000)"),
    "daemon": (
        "OrphanedSession",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(10000)\n    os._exit(0)",
    ),
    "big deleted": (
        "BigDeletedFile",
        "import os\nf = open('/shared/big', 'wb'); os.posix_fallocate(f.fileno(), 0, 520 << 20); os.unlink('/shared/big')",
    ),
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore that waits for ever does so for seconds only."""
    monkeypatch.setattr(roads, "DEADLINE", 5.0)


@pytest.mark.parametrize("kind", HARMLESS)
async def test_what_nothing_keeps_moves_there_and_back(road: Road, node: TestNode, kind: str) -> None:
    program = ALL.format(codes=list(HARMLESS[kind].values())) + COUNT
    witness = Witness(node, copy(f"harmless-{kind.replace(' ', '-')}"), "python3", "-c", program)
    sandbox = await witness.start(road.engine)
    await witness.goes_on()
    for _ in range(2):
        assert await sandbox.obstacles(thorough=True) == []
        sandbox = await road.move(sandbox)
        await witness.goes_on()


@pytest.mark.parametrize("kind", STAYS)
async def test_what_something_keeps_does_not_move(road: Road, node: TestNode, kind: str, short: None) -> None:
    reason, begin = STAYS[kind]
    witness = Witness(
        node, copy(f"stays-{kind.replace(' ', '-').replace(chr(39), '').replace('_', '-')}"), "python3", "-c", begin + "\n" + COUNT
    )
    sandbox = await witness.start(road.engine)
    await witness.goes_on()
    assert {each.reason for each in await sandbox.obstacles(thorough=True)} == {reason}
    with pytest.raises(EngineFailed):
        await road.move(sandbox)
    await sandbox.resume()
    await witness.goes_on()


LISTENER = "import socket, time\ns = socket.create_server(('10.99.0.1', 7777))\nprint(1, flush=True)\ntime.sleep(1000)"
OF_THE_NODE = {
    "connection": ("ExternalConnection", "import socket\nc = socket.create_connection(('10.99.0.1', 7777))"),
    "listener": ("NodeAddress", "import socket\ns = socket.create_server(('10.99.0.1', 7778))"),
    "datagrams": ("NodeAddress", "import socket\ns = socket.socket(2, 2); s.bind(('10.99.0.1', 7779))"),
}


@pytest.fixture
def address(node: TestNode) -> Iterator[None]:
    """One that only the first node has; somebody listens there."""
    node.run("ip", "address", "add", "10.99.0.1/32", "dev", "lo")
    command = node.command("python3", "-c", LISTENER)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as outside:
        try:
            assert outside.stdout is not None and outside.stdout.readline() == b"1\n"
            yield
        finally:
            node.run("pkill", "-f", "create_server[(]..10.99.0.1., 7777")
            node.run("ip", "address", "del", "10.99.0.1/32", "dev", "lo")


@pytest.mark.parametrize("kind", OF_THE_NODE)
async def test_what_belongs_to_the_nodes_network_does_not_move(road: Road, node: TestNode, kind: str, address: None) -> None:
    reason, begin = OF_THE_NODE[kind]
    witness = Witness(node, copy(f"net-{kind}"), "python3", "-c", begin + "\n" + COUNT)
    sandbox = await witness.start(road.engine)
    await witness.goes_on()
    assert [each.reason for each in await sandbox.obstacles(thorough=True)] == [reason]
    with pytest.raises(EngineFailed):
        await road.move(sandbox)
    await sandbox.resume()
    await witness.goes_on()


PROBE = """
import fcntl, sys
for kind, path in {"flock": "/shared/lock1", "lockf": "/shared/lock2"}.items():
    with open(path, "r+") as file:
        try: getattr(fcntl, kind)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError: continue
        sys.exit(f"{path} is free")
"""


async def probe(road: Road, number: int) -> int:
    """0 when another job finds all locks taken."""
    sandbox = await started(road.engine, copy(f"probe-{number}"), "python3", "-c", PROBE)
    return await code(sandbox)


async def test_locks_are_held_after_a_move_and_after_one_that_failed(
    road: Road, node: TestNode, images: Callable[[], Path]
) -> None:
    take = [HARMLESS["locks"][name] for name in ("flock", "posix")]
    witness = Witness(node, copy("holder"), "python3", "-c", ALL.format(codes=take) + COUNT)
    sandbox = await witness.start(road.engine)
    await witness.goes_on()
    assert await probe(road, 1) == 0
    await sandbox.dump(images(), deadline=DEADLINE)
    assert await probe(road, 2) == 1, "a frozen copy keeps them from its successor"
    await sandbox.resume()
    await witness.goes_on()
    assert await probe(road, 3) == 0
    sandbox = await road.move(sandbox)
    await witness.goes_on()
    assert await probe(road, 4) == 0


async def test_an_agent_that_dies_while_the_locks_are_let_go_gives_them_back(
    engine: RemoteEngine, restarted: Callable[[], Awaitable[Engine]], node: TestNode, images: Callable[[], Path]
) -> None:
    witness = Witness(node, copy("orphan"), "python3", "-c", HARMLESS["locks"]["posix"] + "\n" + COUNT)
    sandbox = await witness.start(engine)
    await witness.goes_on()
    await sandbox.dump(images(), deadline=DEADLINE)
    again = await restarted()
    found = await again.adopt(sandbox.copy)
    assert found is not None
    await found.resume()
    await witness.goes_on()
    free = await started(again, copy("probe-5"), "python3", "-c", PROBE.replace('"flock": "/shared/lock1", ', ""))
    assert await code(free) == 0
