"""Labs on this machine, as root: they come up, do not disturb each other, and leave nothing behind whatever dies when."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import cluster, plan
from lab.errors import LabError, LabExists, NoSuchLab
from lab.model import Lab, Places, Service
from store import context
from tests.system.labs import lab_name
from tests.system.machine import Traces, inhabitants, namespaces, run, traces

pytestmark = pytest.mark.alone

A, B = NAMES = (lab_name("ta"), lab_name("tb"))
# Instead of an agent: it has a child, as an agent has shims.
IDLE = Service(name="idle", command=["sh", "-c", "sleep 100001 & exec sleep 100002"])
SERVICES = plan.Services((plan.ETCD,), lambda _: (IDLE,))


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """Takes all down at the end, whatever happened, and then nothing may be left."""
    if os.geteuid() != 0:
        pytest.fail("system tests need root: run sudo scripts/test system")
    monkeypatch.setenv("MXCONFIG", str(tmp_path / "config"))
    before = traces(*NAMES)
    assert (before.files, before.groups, before.netns, before.mounts) == ((), (), (), ())
    yield before
    for name in NAMES:
        cluster.down(name)
    assert traces(*NAMES) == before


def up(name: str, nodes: int = 1) -> Lab:
    return cluster.up(name, nodes, "0.1", "128Mi", services=SERVICES)


def on(name: str, node: str, *command: str) -> str:
    done = run(cluster.exec_command(name, node, command))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def all_namespaces(lab: Lab) -> set[str]:
    return {namespace for node in lab.nodes if node.init for namespace in namespaces(node.init.pid)}


def eventually(check: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_nodes_look_like_machines(clean: Traces) -> None:
    lab = cluster.up(A, 2, "0.2,0.1", "128Mi", services=SERVICES)
    assert on(A, "n1", "hostname") == "n1"
    assert "52:54:00:77:00:02" in on(A, "n2", "ip", "address", "show", "eth0")
    on(A, "n1", "ping", "-c1", "-W2", "n2")
    on(A, "n2", "ping", "-c1", "-W2", "head")
    on(A, "n1", "sh", "-c", "echo from n1 > /shared/note")
    assert on(A, "n2", "cat", "/shared/note") == "from n1"
    assert on(A, "n1", "cat", "/sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us") == "20000"
    assert on(A, "n2", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes") == str(128 * 2**20)
    assert on(A, "n1", "ps", "-o", "args=", "-p", "1") == "/usr/bin/python3 -ISE /usr/sbin/mx-init"
    assert "Looks good" in on(A, "n1", "criu", "check")
    assert traces(*NAMES).links == clean.links
    assert context.current().netns == f"mx-{A}"
    with pytest.raises(LabExists, match=f"lab {A} is there already"):
        up(A)
    spaces = all_namespaces(lab)
    assert inhabitants(spaces)
    assert cluster.down(A)
    assert inhabitants(spaces) == []
    assert traces(*NAMES) == clean
    assert not context.config_file().exists()
    assert not cluster.down(A)


def test_exec_passes_exit_code_and_input(clean: Traces) -> None:
    up(A)
    assert run(cluster.exec_command(A, "n1", ["sh", "-c", "exit 7"])).returncode == 7
    line = cluster.exec_command(A, "n1", ["tr", "a-z", "A-Z"])
    assert subprocess.run(line, input="words", capture_output=True, text=True, timeout=30, check=True).stdout == "WORDS"
    with pytest.raises(NoSuchLab, match="it has head, n1"):
        cluster.exec_command(A, "n9", ["true"])


def test_a_killed_service_comes_back_and_its_children_live_on(clean: Traces) -> None:
    up(A)
    assert on(A, "head", "etcdctl", "put", "/kept", "yes") == "OK"
    child = on(A, "n1", "pgrep", "-f", "sleep 100001$")
    on(A, "n1", "pkill", "-9", "-f", "sleep 100002$")
    on(A, "head", "pkill", "-9", "etcd")
    eventually(lambda: all(state.services and _starts(state) == 2 for state in cluster.status(A)))
    assert child in on(A, "n1", "pgrep", "-f", "sleep 100001$").split()
    eventually(lambda: run(cluster.exec_command(A, "head", ["etcdctl", "get", "/kept"])).stdout == "/kept\nyes\n")


def _starts(state: cluster.NodeState) -> int:
    return max((int(str(facts["starts"])) for facts in state.services.values() if facts["pid"]), default=0)


@pytest.mark.parametrize("hard", [False, True])
def test_a_node_goes_off_and_comes_back_with_its_disk(clean: Traces, hard: bool) -> None:
    lab = up(A)
    on(A, "n1", "sh", "-c", "touch /root/kept /run/lost; mkdir -p /sys/fs/cgroup/cpu/jobs/left")
    init = lab.node("n1").init
    assert init
    spaces = namespaces(init.pid)
    assert cluster.stop_node(A, "n1", hard=hard)
    assert inhabitants(spaces) == []
    assert not cluster.stop_node(A, "n1", hard=hard)
    assert [state.on for state in cluster.status(A)] == [True, False]
    with pytest.raises(LabError, match=f"node n1 of lab {A} is off; start it with mxctl lab start-node n1"):
        cluster.exec_command(A, "n1", ["true"])
    assert cluster.start_node(A, "n1")
    assert not cluster.start_node(A, "n1")
    assert on(A, "n1", "ls", "/root/kept") == "/root/kept"
    assert on(A, "n1", "sh", "-c", "ls /run/lost 2>&1 || true").endswith("No such file or directory")
    on(A, "n1", "ping", "-c1", "-W2", "head")


def test_two_labs_side_by_side(clean: Traces) -> None:
    up(A)
    up(B)
    on(A, "head", "etcdctl", "put", "/whose", A)
    on(B, "head", "etcdctl", "put", "/whose", B)
    on(A, "n1", "touch", "/shared/of-this-one")
    assert on(B, "n1", "ls", "/shared") == ""
    cluster.down(A)
    assert on(B, "head", "etcdctl", "get", "--print-value-only", "/whose") == B
    on(B, "n1", "ping", "-c1", "-W2", "head")
    assert context.current().name == f"lab-{B}"


DIE = """
import os, signal, sys
from tests.system.test_lab import SERVICES
from lab import cluster
def report(phase):
    if phase == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
cluster.up(sys.argv[2], 2, "0.1", "128Mi", services=SERVICES, report=report)
"""


@pytest.mark.parametrize("phase", ["connecting nodes", "starting nodes", "waiting for etcd", "etcd answers"])
def test_down_mends_an_up_that_was_killed_in_between(clean: Traces, phase: str) -> None:
    done = run([sys.executable, "-c", DIE, phase, A])
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(LabExists):
        up(A)
    assert cluster.down(A)
    assert traces(*NAMES) == clean
    up(A)


@pytest.mark.parametrize("milliseconds", range(450, 1450, 125))
def test_down_mends_an_up_that_was_killed_at_any_moment(clean: Traces, milliseconds: int) -> None:
    with subprocess.Popen([sys.executable, "-c", DIE, "never", A], stderr=subprocess.DEVNULL) as running:
        time.sleep(milliseconds / 1000)
        running.kill()
    cluster.down(A)
    assert traces(*NAMES) == clean


@pytest.mark.parametrize("milliseconds", [250, 300, 350, 400])
def test_a_down_that_was_killed_is_finished_by_the_next(clean: Traces, milliseconds: int) -> None:
    up(A, nodes=2)
    with subprocess.Popen([sys.executable, "-c", f"from lab import cluster; cluster.down({A!r})"]) as running:
        time.sleep(milliseconds / 1000)
        running.kill()
    cluster.down(A)
    assert traces(*NAMES) == clean
    assert not context.config_file().exists()


def test_down_after_first_processes_and_the_record_are_gone(clean: Traces) -> None:
    lab = up(A, nodes=2)
    spaces = all_namespaces(lab)
    first = lab.node("n1").init
    assert first
    os.kill(first.pid, signal.SIGKILL)
    Places(A).record.unlink()
    assert cluster.down(A)
    assert inhabitants(spaces) == []


def test_an_up_that_cannot_succeed_says_why_and_leaves_nothing(clean: Traces) -> None:
    broken = Service(name="nodeagent", command=["sh", "-c", "echo the reason; exit 3"])
    with pytest.raises(LabError, match=r"(?s)nodeagent on n1 ends again and again: .*the reason"):
        cluster.up(A, 1, "0.1", "128Mi", services=plan.Services((plan.ETCD,), lambda _: (broken,)))
    assert traces(*NAMES) == clean


def test_frozen_processes_do_not_keep_a_lab(clean: Traces) -> None:
    up(A)
    group = "/sys/fs/cgroup/freezer/jobs/f"
    freeze = (
        f"mkdir {group}; exec >/dev/null 2>&1; sleep 1000 & echo $! > {group}/cgroup.procs; echo FROZEN > {group}/freezer.state"
    )
    on(A, "n1", "sh", "-c", freeze)
    assert cluster.down(A)
