"""Jobs of many shapes move between two nodes, there and back, with real criu; not one number of what they count is lost."""

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from crds.job import JobSpec
from nodeagent.engine import Sandbox
from nodeagent.errors import EngineFailed
from tests.engine_contract import DEADLINE, ENV, Images, copy
from tests.system.road import Road
from tests.system.testnode import TestNode
from tests.system.witness import COUNTER, Witness, eventually

PIPELINE = ("bash", "-c", 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done | while read -r x; do echo "$x"; done')
DAEMON = ("bash", "-c", "(setsid bash -c 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done' &) ; while :; do sleep 1; done")
THREADS = """
import itertools, threading, time
turn, lock = itertools.count(), threading.Lock()
def work():
    while True:
        with lock: print(next(turn), flush=True)
        time.sleep(0.02)
for _ in range(8): threading.Thread(target=work).start()
"""
SOCKETS = """
import itertools, os, socket, time
listener = socket.create_server(("127.0.0.1", 7311))
if os.fork() == 0:
    with socket.create_connection(("127.0.0.1", 7311)) as out:
        for i in itertools.count():
            out.sendall(b"%d\\n" % i); time.sleep(0.01)
connection, _ = listener.accept()
for line in connection.makefile(): print(line, end="", flush=True)
"""
FILES = """
import itertools, mmap, multiprocessing.shared_memory as shm, os, tempfile, time
gone = tempfile.TemporaryFile(); gone.write(b"x" * 100000); gone.flush()
shared = shm.SharedMemory(create=True, size=8)
anonymous = mmap.mmap(-1, 4096)
if os.fork() == 0:
    while True: anonymous[0] = (anonymous[0] + 1) % 256; time.sleep(0.01)
for i in itertools.count():
    shared.buf[:8] = i.to_bytes(8, "big")
    print(int.from_bytes(shared.buf[:8], "big"), flush=True)
    gone.seek(0); assert len(gone.read()) == 100000
    before = anonymous[0]
    while anonymous[0] == before: time.sleep(0.001)
"""
LATE_PIDS = """
import itertools, os, pathlib, time
last = int(pathlib.Path("/proc/sys/kernel/pid_max").read_text()) - 10
pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(last))
for _ in range(20):
    if os.fork() == 0: time.sleep(1000)
for i in itertools.count(): print(i, flush=True); time.sleep(0.01)
"""
SPINNING_C = r"""
#include <stdio.h>
#include <time.h>
int main(void) {
    for (unsigned long i = 0;; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        do clock_gettime(CLOCK_MONOTONIC, &b);
        while ((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec < 5000000L);
        printf("%lu\n", i);
        fflush(stdout);
    }
}
"""
JOBS = {
    "python": COUNTER,
    "pipeline": PIPELINE,
    "daemon": DAEMON,
    "threads": ("python3", "-c", THREADS),
    "sockets": ("python3", "-c", SOCKETS),
    "files": ("python3", "-c", FILES),
    "late-pids": ("python3", "-c", LATE_PIDS),
    "c": ("/shared/spin",),
}


@pytest.fixture(scope="session")
def program(sandbox_nodes: tuple[TestNode, TestNode]) -> Path:
    """A C program on the shared file system; scripts/setup installs the compiler."""
    source = sandbox_nodes[0].shared / "spin.c"
    source.write_text(SPINNING_C)
    target = source.with_suffix("")
    subprocess.run(["cc", "-O1", "-static", "-o", str(target), str(source)], check=True, timeout=60)
    return target


@pytest.mark.parametrize("shape", JOBS)
async def test_there_and_back(road: Road, node: TestNode, program: Path, shape: str) -> None:
    witness = Witness(node, copy(f"move-{shape}"), *JOBS[shape])
    sandbox = await witness.start(road.engine)
    await witness.goes_on()
    processes = (await sandbox.usage()).processes
    for _ in range(2):
        sandbox = await road.move(sandbox)
        await witness.goes_on(20)
    assert (await sandbox.usage()).processes in (processes, processes + 1), "a shell's sleep may come and go"


@pytest.mark.parametrize("shape", JOBS)
async def test_after_a_dump_that_led_to_nothing_it_goes_on(
    road: Road, node: TestNode, program: Path, images: Images, shape: str
) -> None:
    """As after a refusal. Connections are the ones in danger: criu leaves them in a state in which nothing can be read."""
    witness = Witness(node, copy(f"stay-{shape}"), *JOBS[shape])
    sandbox = await witness.start(road.engine)
    await witness.goes_on()
    for _ in range(2):
        await sandbox.dump(images(), deadline=DEADLINE)
        await sandbox.resume()
        await witness.goes_on(20)


@pytest.mark.parametrize("shape", ["python", "pipeline", "threads", "sockets", "files", "c"])
async def test_there_and_back_before_its_memory(road: Road, node: TestNode, program: Path, shape: str) -> None:
    witness = Witness(node, copy(f"lazy-{shape}"), *JOBS[shape])
    sandbox: Any = await witness.start(road.engine)
    await witness.goes_on()
    for _ in range(2):
        sandbox = await road.move_lazily(sandbox)
        await witness.goes_on(20)
    print({"shape": shape, **{name: round(value, 1) for name, value in road.figures.items()}})


async def test_a_source_whose_criu_dies_stands_still_until_it_is_told(road: Road, node: TestNode) -> None:
    """By ptrace alone it would run on beside the copy that was made of it."""
    witness = Witness(node, copy("unheld"))
    sandbox: Any = await witness.start(road.engine)
    await witness.goes_on()
    images = node.path("/run/mx/images-unheld")
    images.mkdir(parents=True)
    out, _ = await road.engine.wires()
    await sandbox.serve(images, out, deadline=DEADLINE)
    before = witness.numbers()
    node.run("pkill", "-KILL", "-x", "criu")
    await sandbox.streamed()
    await asyncio.sleep(0.3)
    assert await sandbox.frozen()
    assert witness.numbers() == before
    await sandbox.resume()
    await witness.goes_on()
    shutil.rmtree(images)


async def test_daemon_started_after_a_move_moves_too(road: Road, node: TestNode) -> None:
    """It has lost its parent: unless the restored first process still is a subreaper, it would not be in the tree criu dumps."""
    script = "until [ -e /tmp/go ]; do sleep 0.02; done; " + DAEMON[2]
    witness = Witness(node, copy("later"), "bash", "-c", script)
    sandbox = await road.move(await witness.start(road.engine))
    (witness.log.parent / "tmp/go").touch()
    await witness.goes_on(10)
    for _ in range(2):
        sandbox = await road.move(sandbox)
        await witness.goes_on(20)


async def test_stopped_child_stays_stopped(road: Road, node: TestNode) -> None:
    script = (
        "import os, signal, time, itertools\n"
        "child = os.fork()\n"
        "if child == 0:\n    while True: time.sleep(0.01)\n"
        "os.kill(child, signal.SIGSTOP)\n"
        "for i in itertools.count():\n"
        "    assert open(f'/proc/{child}/stat').read().rpartition(')')[2].split()[0] == 'T' or i < 5\n"
        "    print(i, flush=True); time.sleep(0.01)\n"
    )
    witness = Witness(node, copy("stopped"), "python3", "-c", script)
    sandbox = await witness.start(road.engine)
    await witness.goes_on(10)
    for _ in range(2):
        sandbox = await road.move(sandbox)
        await witness.goes_on(20)


async def test_exit_code_arrives_where_it_ends(road: Road) -> None:
    sandbox: Sandbox = await road.engine.create(copy("ends"))
    await sandbox.start(JobSpec(command=["sh", "-c", "sleep 0.5; exit 42"], workdir="/"), ENV)
    sandbox = await road.move(sandbox)
    assert (await sandbox.wait_exit()).code == 42


async def test_job_that_cannot_be_dumped_runs_on(road: Road, node: TestNode) -> None:
    """criu knows neither io_uring nor vsock; at least one of the two exists on every kernel it runs on."""
    script = (
        "import ctypes, itertools, socket, time\n"
        "ring = ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(256))\n"
        "if ring < 0: vsock = socket.socket(socket.AF_VSOCK)\n"
        "for i in itertools.count(): print(i, flush=True); time.sleep(0.005)\n"
    )
    witness = Witness(node, copy("undumpable"), "python3", "-c", script)
    sandbox = await witness.start(road.engine)
    await witness.goes_on()
    with pytest.raises(EngineFailed, match=r"criu dump ended with 1: the job uses io_uring, .*: Error \(criu/\w"):
        await road.move(sandbox)
    assert not await sandbox.frozen()
    await witness.goes_on()


async def test_job_that_cannot_be_restored_runs_on_at_home(road: Road, node: TestNode) -> None:
    """A unix socket that leads out of the tree is dumped, but its other end is not there on another node."""
    script = (
        "import itertools, os, socket, time\n"
        "if os.path.exists('/shared/outside'): os.unlink('/shared/outside')\n"
        "listener = socket.socket(socket.AF_UNIX); listener.bind('/shared/outside'); listener.listen()\n"
        "print(0, flush=True); peer, _ = listener.accept()\n"
        "for i in itertools.count(1): print(i, flush=True); time.sleep(0.005)\n"
    )
    call = "import socket, time; s = socket.socket(socket.AF_UNIX); s.connect('/shared/outside'); time.sleep(60)"
    witness = Witness(node, copy("outside"), "python3", "-c", script)
    sandbox = await witness.start(road.engine)
    await eventually(lambda: bool(witness.numbers()))
    caller = await road.engine.create(copy("caller"))
    await caller.start(JobSpec(command=["python3", "-c", call], workdir="/"), ENV)
    await witness.goes_on(10)
    with pytest.raises(EngineFailed, match=r"criu \w+ ended with"):
        await road.move(sandbox)
    await sandbox.resume()
    await witness.goes_on(10)


@pytest.mark.parametrize("megabytes", [0, 200])
async def test_freeze_figures(road: Road, node: TestNode, megabytes: int) -> None:
    """Prints what a move costs; the limit is generous, as the machine may be busy."""
    script = (
        f"import numpy, time, itertools\na = numpy.random.default_rng(1).random({megabytes} * 2**17 + 1)\ns = a.sum()\n"
        "for i in itertools.count():\n    assert i % 50 or a.sum() == s\n    print(i, flush=True); time.sleep(0.002)\n"
    )
    if not megabytes:
        script = COUNTER[2]
    witness = Witness(node, copy(f"figures{megabytes}"), "python3", "-c", script)
    sandbox = await witness.start(road.engine)
    await witness.goes_on(50)
    for _ in range(3):
        sandbox = await road.move(sandbox)
        await witness.goes_on(60)
        print({"numpy_megabytes": megabytes, **{name: round(value, 1) for name, value in road.figures.items()}})
    assert road.figures["dump_ms"] + road.figures["restore_ms"] < 10_000
