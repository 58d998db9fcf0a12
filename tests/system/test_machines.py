"""Real machines: bare ones, emulated, that boot over the network from a lab's own head. No fake anywhere.

The everyday test boots one. What is marked soak is all that CLiP promises of machines: two that are declared and one that is not,
moves between them in every way, faults of machines in the middle of moves, and services that are killed while machines boot.
"""

import json
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip.authority import serial_of
from lab import network, node, qmp
from lab.model import HEAD, Lab, Places
from tests.system.commands import PROJECT, Terminal
from tests.system.labs import lab_name

pytestmark = pytest.mark.timeout(1800)

COUNT = """\
import sys, time, itertools
kept = bytearray(int(sys.argv[1]) << 20)
for i in itertools.count(): print(i, flush=True); time.sleep(.1)
"""
BUILD_SECONDS = 900  # with layers that are not there yet, from a slow mirror
SECONDS = 400  # for emulated machines on a busy host
MODES = ("stop", "pre-copy", "post-copy")


def until(holds: Callable[[], bool], what: str, seconds: float = SECONDS, tell: Callable[[], str] = str) -> None:
    """``tell`` adds what is known when it did not come to that."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}\n{tell()}"
        time.sleep(1)  # each look is a command, which takes from the machines' processors


class Rack:
    """A lab of machines, and what a person sees of it."""

    def __init__(self, terminal: Terminal, name: str) -> None:
        self.mxctl, self.name, self.places = terminal.mxctl, name, Places(name)

    @property
    def lab(self) -> Lab:
        return self.places.load()

    def phase(self, what: str) -> str:
        """Second column of ``mxctl get nodes`` or, for a job, of ``get jobs``."""
        table = self.mxctl("get", "jobs" if what.startswith("w") else "nodes")
        return next((line.split()[1] for line in table.splitlines() if line.split()[:1] == [what]), "")

    def where(self, job: str) -> str:
        return next(line.split()[2] for line in self.mxctl("get", "jobs").splitlines() if line.split()[:1] == [job])

    def ready(self, name: str) -> None:
        until(lambda: self.phase(name) == "Ready", f"{name} is Ready", tell=lambda: self.console(name))

    def running(self, job: str) -> None:
        until(
            lambda: self.phase(job) == "Running",
            f"job {job} runs",
            tell=lambda: self.mxctl("describe", "job", job) + self.mxctl("get", "migrations", "-o", "yaml"),
        )

    def boot_id(self, name: str) -> str:
        """Another one after each boot."""
        found: str = json.loads(self.mxctl("get", "node", name, "-o", "json"))["status"]["facts"]["bootId"]
        return found

    def console(self, name: str) -> str:
        return self.mxctl("lab", "console", "--name", self.name, name, ok=False)[-1500:]

    def starts(self) -> dict[str, int]:
        """How often each service of the head was started."""
        return {name: int(str(state["starts"])) for name, state in node.services(self.lab.node(HEAD)).items()}

    def kill(self, service: str) -> None:
        """SIGKILL to one of the head's services, which is started again."""
        before = self.starts()[service]
        pid = str(node.services(self.lab.node(HEAD))[service]["pid"])
        subprocess.run(node.command_line(self.name, self.lab.node(HEAD), ["kill", "-9", pid]), check=True, timeout=30)
        until(lambda: self.starts()[service] > before, f"{service} was started again", 60)

    def count(self, job: str, on: str, megabytes: int = 24) -> None:
        self.mxctl("run", "--name", job, "--on", on, "--", "python3", "-c", COUNT, str(megabytes))
        until(lambda: len(self.numbers(job)) > 5, f"{job} counts")

    def numbers(self, job: str) -> list[int]:
        """What it counted; fails when a number is missing, came twice or at the wrong place: then it was lost, or ran twice."""
        logs = list(self.places.shared.glob(f".mx/jobs/default/{job}-*/output.log"))
        text = logs[0].read_text() if logs else ""
        found = [int(line) for line in text[: text.rfind("\n") + 1].split()]
        assert found == list(range(len(found))), f"{job}: not every number once: {found[-50:]}"
        return found

    def goes_on(self, job: str) -> None:
        wanted = len(self.numbers(job)) + 10
        until(lambda: len(self.numbers(job)) >= wanted, f"{job} counts on")

    def move(self, job: str, mode: str, *, ok: bool = True) -> str:
        to = "n2" if self.where(job) == "n1" else "n1"
        return self.mxctl("migrate", job, to, "--mode", mode, "--wait", "--timeout", "5m", ok=ok, seconds=SECONDS)

    def frozen(self, said: str) -> int:
        """Milliseconds, from what a move said."""
        found = re.search(r"frozen for (\d+)", said)
        assert found, said
        return int(found[1])


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    return Terminal(tmp_path_factory.mktemp("mx") / "config")


def up(terminal: Terminal, name: str, *options: str) -> Rack:
    terminal.mxctl("lab", "up", "--name", name, *options, seconds=BUILD_SECONDS)
    return Rack(terminal, name)


# --- every day ---


def test_a_bare_machine_becomes_a_node_and_runs_jobs_while_the_head_loses_its_services(terminal: Terminal) -> None:
    try:
        rack = up(terminal, lab_name("machone"), "--machines", "1")
        assert rack.phase("n1") == "Ready"
        described = rack.mxctl("describe", "node", "n1")
        assert all(f"    {stage}: " in described for stage in ("dhcp", "ipxe", "kernel", "root", "agent")), described
        rack.mxctl("run", "--name", "wname", "--", "sh", "-c", "uname -nr; cat /proc/cmdline; test -e /etc/mx/machine")
        rack.count("wcount", "n1")
        until(lambda: rack.phase("wname") == "Succeeded", "a job runs to its end on it")
        [log] = rack.places.shared.glob(".mx/jobs/default/wname-*/output.log")
        assert log.read_text().startswith("n1 ") and "mx.layers=" in log.read_text()
        for service in ("nfs", "clip"):
            rack.kill(service)
            rack.goes_on("wcount")
        assert rack.phase("n1") == "Ready"
        remove(rack, "n1")
    finally:
        terminal.mxctl("lab", "down", "--name", lab_name("machone"), ok=False)


def remove(rack: Rack, name: str) -> None:
    """Its certificate is refused afterwards, whoever kept it, and its address is not served."""
    address, clip = rack.lab.node(name).address, rack.places.clip
    rack.mxctl("run", "--name", "wthief", "--on", name, "--", "sh", "-c", "cp /run/mx/tls/node.crt /run/mx/tls/node.key /shared/")
    until(lambda: rack.phase("wthief") == "Succeeded", "a job reads what its node proves itself with")
    on_head = ("lab", "exec", "--name", rack.name, HEAD, "--")
    stolen = ("env", "ETCDCTL_CERT=/shared/node.crt", "ETCDCTL_KEY=/shared/node.key", "etcdctl", "--command-timeout=10s", "get")
    assert address in rack.mxctl(*on_head, *stolen, f"/mx/nodes/{name}/alive")
    rack.mxctl("delete", "job", "wcount", "wname", "wthief")
    rack.mxctl("delete", "node", name)
    serial, _ = serial_of((rack.places.shared / "node.crt").read_bytes())
    assert serial in rack.mxctl(*on_head, "etcdctl", "get", "--prefix", "/mx/public/revoked/")
    assert serial not in rack.mxctl(*on_head, *stolen, "--prefix", "/mx/public/revoked/", ok=False)
    until(lambda: address not in (clip / "ganesha.conf").read_text(), "no files are served to its address")
    until(lambda: not list((clip / "hosts.d").iterdir()), "its address is not given out")


# --- all of it ---


@pytest.fixture(scope="module")
def rack(terminal: Terminal) -> Iterator[Rack]:
    """Two machines and one that nobody declared."""
    try:
        yield up(terminal, lab_name("machall"), "--machines", "2", "--undeclared", "1")
    finally:
        terminal.mxctl("lab", "down", "--name", lab_name("machall"), ok=False)


@pytest.fixture
def job(rack: Rack) -> Iterator[str]:
    """A job that counts, on n1."""
    for name in ("n1", "n2"):
        rack.ready(name)
    name = f"w{random.getrandbits(24):06x}"
    rack.count(name, "n1")
    yield name
    rack.mxctl("delete", "job", name, ok=False)


@pytest.mark.soak
def test_machines_come_up_by_themselves_and_one_more_when_it_is_approved(rack: Rack) -> None:
    image = re.search(r"image: (\S+)", rack.mxctl("get", "node", "n1", "-o", "yaml"))
    assert image
    rack.mxctl("apply", "-f", str(PROJECT / "examples/cluster.yaml"))
    rack.mxctl("delete", "balancepolicy", "spread")  # nothing is to move but what these tests move
    starts = rack.starts()
    [unknown] = [each for each in rack.lab.workers if each.machine and not each.machine.declared]
    until(lambda: rack.phase(unknown.mac) == "Discovered", "the third is seen")
    rack.mxctl("approve", "node", unknown.mac, "--name", "n5", "--image", image[1])
    rack.ready("n5")
    assert rack.starts() == starts, "something had to be started again for it"
    assert {rack.phase(name) for name in ("n1", "n2", "n5")} == {"Ready"}


@pytest.mark.soak
@pytest.mark.parametrize("mode", MODES)
def test_a_job_moves_between_machines_and_back(rack: Rack, job: str, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        told = rack.move(job, mode)
        rack.goes_on(job)
        with capsys.disabled():
            print(f"\n{told.strip().splitlines()[-1]}")
        assert rack.frozen(told) > 0
    assert rack.where(job) == "n1"


def cut(rack: Rack, name: str, pause: float) -> None:
    """Its plug is pulled for a while."""
    tap = ["ip", "-n", rack.places.netns, "link", "set", f"v-{name}"]
    network.cut(rack.places, name)
    time.sleep(pause)
    subprocess.run([*tap, "up"], check=True, timeout=30)


def pause(rack: Rack, name: str, seconds: float) -> None:
    """The whole machine stands still for a while, its clock too."""
    socket = rack.places.node(name) / "machine/qmp.sock"
    qmp.execute(socket, "stop")
    time.sleep(seconds)
    qmp.execute(socket, "cont")


FAULTS: dict[str, Callable[[Rack], None]] = {
    "the source's network is away": lambda rack: cut(rack, "n1", 3),
    "the destination's network is away": lambda rack: cut(rack, "n2", 3),
    "the source is not heard until it is missed": lambda rack: cut(rack, "n1", 40),
    "the destination stands still": lambda rack: pause(rack, "n2", 5),
    "the destination stands still until it is missed": lambda rack: pause(rack, "n2", 40),
    "the file server is started again": lambda rack: rack.kill("nfs"),
    "the reconciler is started again": lambda rack: rack.kill("reconciler"),
    "etcd is started again": lambda rack: rack.kill("etcd"),
}


@pytest.mark.soak
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_machine_in_the_middle_of_a_move(rack: Rack, job: str, fault: str, mode: str) -> None:
    """Wherever the job is afterwards: it lives, once, and has left no number out."""
    rack.mxctl("migrate", job, "n2", "--mode", mode)
    time.sleep(random.uniform(0, 8))  # anywhere in it: what has to hold then holds always
    FAULTS[fault](rack)
    for name in ("n1", "n2"):
        rack.ready(name)
    rack.running(job)
    rack.goes_on(job)


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["stop", "pre-copy"])
def test_the_destination_loses_its_power_in_the_middle_of_a_move(rack: Rack, mode: str) -> None:
    """Long before anything could have been committed: much memory goes ahead while the job runs."""
    for name in ("n1", "n2"):
        rack.ready(name)
    job = f"w{random.getrandbits(24):06x}"
    rack.count(job, "n1", megabytes=160)
    try:
        rack.mxctl("migrate", job, "n2", "--mode", mode)
        qmp.execute(rack.places.node("n2") / "machine/qmp.sock", "quit")
        rack.mxctl("lab", "stop-node", "--name", rack.name, "n2", "--hard")
        moves = ("get", "migrations", "--no-headers")
        until(
            lambda: any(f" {job} " in line and "Failed" in line for line in rack.mxctl(*moves).splitlines()), "the move has failed"
        )
        rack.running(job)
        rack.goes_on(job)
        assert rack.where(job) == "n1"
        rack.mxctl("lab", "start-node", "--name", rack.name, "n2", seconds=SECONDS)
    finally:
        rack.mxctl("delete", "job", job, ok=False)


STARTED, FIRMWARE, TOLD = "", "iPXE", "mx: n2 boots"
KERNEL, ROOT = "has started its first process", "mx: n2 runs"
"""What a machine says on its console, in this order: just switched on, asks for its address, knows what to boot, …"""
KILLS = (
    ("dnsmasq", STARTED),
    ("dnsmasq", FIRMWARE),
    ("clip", FIRMWARE),
    ("clip", TOLD),
    ("clip", ROOT),
    ("nfs", FIRMWARE),
    ("nfs", KERNEL),
    ("nfs", ROOT),
    ("reconciler", STARTED),
    ("reconciler", ROOT),
)
"""What is killed when, a boot each."""


@pytest.mark.soak
def test_services_that_are_killed_in_ten_boots_delay_them_and_lose_none(
    rack: Rack, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job on n1 goes on all the time: its node's files are on the same server."""
    seconds = {("nothing", STARTED): reboot(rack, "n2", STARTED, lambda: None)}
    for service, moment in KILLS:
        seconds[service, moment] = reboot(rack, "n2", moment, lambda: kill_twice(rack, service))  # noqa: B023 - called at once
        rack.goes_on(job)
        with capsys.disabled():
            print(f"\n{service} killed at {moment or 'power-on'!r}: Ready after {seconds[service, moment]:.0f} s")
    assert rack.phase("n1") == "Ready"
    with capsys.disabled():
        print(f"\nundisturbed: Ready after {seconds['nothing', STARTED]:.0f} s")


def kill_twice(rack: Rack, service: str) -> None:
    """Once more as soon as it is there again."""
    rack.kill(service)
    rack.kill(service)


def reboot(rack: Rack, name: str, moment: str, strike: Callable[[], None]) -> float:
    """Resets the machine, strikes when its console says ``moment``, and waits until it is Ready anew; seconds it took."""
    boot, console = rack.boot_id(name), rack.places.node(name) / "machine/console.log"
    said = console.stat().st_size
    qmp.execute(rack.places.node(name) / "machine/qmp.sock", "system_reset")
    began = time.monotonic()
    until(lambda: moment in console.read_bytes()[said:].decode(errors="replace"), f"{name} says {moment!r}")
    strike()
    until(lambda: rack.boot_id(name) != boot, f"{name} comes up anew", tell=lambda: rack.console(name))
    rack.ready(name)
    return time.monotonic() - began


@pytest.mark.soak
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_both_kinds_of_firmware_boot(terminal: Terminal, firmware: str) -> None:
    name = f"mach{firmware}"
    try:
        rack = up(terminal, name, "--machines", "1", "--firmware", firmware)
        assert f"firmware: {firmware}" in rack.mxctl("get", "node", "n1", "-o", "yaml")
    finally:
        terminal.mxctl("lab", "down", "--name", name, ok=False)


@pytest.mark.soak
def test_jobs_move_between_machines_that_systemd_starts(
    terminal: Terminal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "image.yaml"
    kind = {"apiVersion": "mx/v1", "kind": "Image", "metadata": {"name": "sysd"}}
    file.write_text(json.dumps({**kind, "spec": {"kernel": "linux-image-cloud-amd64", "init": "systemd"}}))
    try:
        rack = up(terminal, lab_name("machsysd"), "--machines", "2")
        rack.mxctl("apply", "-f", str(file))
        rack.mxctl("image", "build", "sysd", seconds=BUILD_SECONDS)
        for name in ("n1", "n2"):
            node = {"apiVersion": "mx/v1", "kind": "Node", "metadata": {"name": name}, "spec": {"image": "sysd"}}
            file.write_text(json.dumps(node))
            rack.mxctl("apply", "-f", str(file))
        rack.mxctl("rollout", "image", "sysd", "--max-unavailable", "2", "--deadline", f"{SECONDS}s", seconds=3 * SECONDS)
        rack.mxctl("run", "--name", "wline", "--on", "n1", "--", "cat", "/proc/cmdline")
        until(lambda: rack.phase("wline") == "Succeeded", "a job runs to its end")
        assert "mx.init=systemd" in rack.mxctl("logs", "wline")
        rack.count("wcount", "n1")
        for _ in range(2):
            told = rack.move("wcount", "stop")
            rack.goes_on("wcount")
            with capsys.disabled():
                print(f"\n{told.strip().splitlines()[-1]}")
    finally:
        terminal.mxctl("lab", "down", "--name", lab_name("machsysd"), ok=False)
