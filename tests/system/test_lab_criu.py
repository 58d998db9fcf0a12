"""The ground everything stands on: real criu takes a process from one node of a lab to another, with the images in /shared."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cluster, plan
from lab.model import Places
from store import context
from tests.system.labs import lab_name
from tests.system.machine import run

NAME = lab_name("tc")
JOB = """
import os, time
with open("/shared/out", "a", buffering=1) as out:
    for number in range(10**6):
        print(number, os.getpid(), os.uname().nodename, file=out)
        time.sleep(0.01)
"""
# Pid 1 of the job's namespaces, on each node.
SHIM = "mount --make-rprivate / && mount -t proc proc /proc && echo $$ > /run/ready && exec sleep 100000"
# Opens its files inside, or criu does not find their mounts.
START = "cd /; setsid python3 /shared/job.py </dev/null >/dev/null 2>&1 & echo $!"
DUMP = "--leave-stopped --file-locks --link-remap --ghost-limit 512M --tcp-established --network-lock nftables -o d.log"
RESTORE = "--leave-stopped --manage-cgroups=ignore --file-locks --link-remap --tcp-established --network-lock nftables -o r.log"
HIERARCHIES = ("cpu", "memory", "freezer", "unified")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.fail("system tests need root: run sudo scripts/test system")
    monkeypatch.setenv("MXCONFIG", str(tmp_path / "config"))
    nothing = plan.Services((), lambda _: ())
    try:
        cluster.up(NAME, 2, "0.3", "512Mi", services=nothing)
        yield Places(NAME).shared
    finally:
        cluster.down(NAME)
        assert not context.config_file().exists()


def on(node: str, script: str) -> str:
    done = run(cluster.exec_command(NAME, node, ["bash", "-c", script]))
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def start_shim(node: str) -> str:
    """Its number, as the node sees it."""
    shim = f"unshare --mount --pid --ipc --uts --fork bash -c '{SHIM}'"
    on(node, f"{shim} </dev/null >/dev/null 2>&1 & while ! [ -e /run/ready ]; do :; done")
    return on(node, "pgrep -x sleep")


def inside(node: str, shim: str, command: str) -> str:
    """Runs in the shim's namespaces, in a group of the node's jobs."""
    join = "".join(f"mkdir -p /sys/fs/cgroup/{h}/jobs/j; echo $$ > /sys/fs/cgroup/{h}/jobs/j/cgroup.procs; " for h in HIERARCHIES)
    return on(node, f"{join} exec nsenter -t {shim} -m -p -n -u -i -- bash -c '{command}'")


def last_line(path: Path) -> list[str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return lines[-1].split() if lines else ["-1", "0", ""]


def wait_for_progress(path: Path) -> list[str]:
    before, deadline = last_line(path), time.monotonic() + 10
    while last_line(path) == before:
        assert time.monotonic() < deadline, f"no progress after {before}"
        time.sleep(0.02)
    return last_line(path)


def test_a_process_moves_between_two_nodes(shared: Path) -> None:
    (shared / "job.py").write_text(JOB)
    (shared / "images").mkdir()
    source, target = start_shim("n1"), start_shim("n2")
    job = inside("n1", source, START)
    wait_for_progress(shared / "out")

    inside("n1", source, f"criu dump -t {job} -D /shared/images {DUMP}")
    inside("n2", target, "echo 5000 > /proc/sys/kernel/ns_last_pid")
    inside("n2", target, f"criu restore -d -D /shared/images {RESTORE}")
    stopped_at = last_line(shared / "out")
    inside("n1", source, f"kill -9 {job}")
    inside("n2", target, f"kill -CONT {job}")

    assert wait_for_progress(shared / "out") != stopped_at
    lines = [line.split() for line in (shared / "out").read_text().splitlines()]
    assert [int(number) for number, *_ in lines] == list(range(len(lines)))  # nothing lost, nothing twice
    assert {pid for _, pid, _ in lines} == {job}
    assert lines[-1][2] == "n2"
    for hierarchy in HIERARCHIES:
        assert on("n2", f"cat /sys/fs/cgroup/{hierarchy}/jobs/j/cgroup.procs")
