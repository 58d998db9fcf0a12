"""``mxctl head init`` on a Debian machine with nothing of MX: its units' own command lines, with no more rights than they name,
make a head that mxctl finds well. No systemd runs there, so we start them as it would."""

import contextlib
import os
import platform
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip import head as head_layer
from clip import image
from clip.cache import Shelf
from clip.images import layer_owner
from crds import keys
from lab import cluster, network, node, plan
from lab import machine as virtual
from lab.model import HEAD, HEAD_ADDRESS, Boot, Lab, LabMachine, LabNode, Places, Power
from tests.system.commands import PROJECT
from tests.system.labs import lab_name

NAME = lab_name("thead")
pytestmark = pytest.mark.timeout(900)
MXCTL = "PYTHONPATH=/opt/mx:/usr/lib/mx/deps PYTHONDONTWRITEBYTECODE=1 MXCONFIG=/root/mx exec /usr/bin/python3 -m mxctl"
UNITS = "/etc/systemd/system"
CLUSTER = "{apiVersion: mx/v1, kind: Cluster, metadata: {name: rack}, spec: {network: {cidr: 10.77.0.0/24}}}\n"
SECONDS = 60.0


@pytest.fixture(scope="module")
def machine() -> Iterator[Path]:
    """Its root, as we see it; the machine is on."""
    if os.geteuid() != 0:
        pytest.fail("system tests need root: run sudo scripts/test system")
    places = Places(NAME)
    built = image.ensure()
    shelf = Shelf.of(places.state)
    programs = head_layer.ensure(shelf, platform.machine())
    # the head layer above the base: its /etc/passwd knows dnsmasq's user, as on any machine where that package was installed
    boot = Boot(layers=[programs, built.base], image="none", assigned="")
    one = LabNode(name=HEAD, address=HEAD_ADDRESS, boot=boot, power=Power.ON)
    record = Lab(name=NAME, base=built.base, agent=built.agent, head=programs, config_file="/nonexistent", nodes=[one])
    places.save(record)
    try:
        for layer in boot.layers:
            shelf.hold(layer, f"lab-{NAME}")
        places.shared.mkdir(mode=0o1777)
        network.create_bridge(places)
        one.init = node.power_on(places, record, one)
        places.save(record)
        root = Path(f"/proc/{one.init.pid}/root")
        install(root)
        yield root
    finally:
        cluster.down(NAME)
        for layer in shelf.held(layer_owner(NAME)):
            shelf.release(layer, layer_owner(NAME))


def install(root: Path) -> None:
    """mxctl, as a package of ours would bring it, and what Debian's packages would."""
    import click

    for package in ("crds", "store", "nodeagent", "reconciler", "clip", "lab", "mxctl"):
        shutil.copytree(PROJECT / package, root / "opt/mx" / package, ignore=shutil.ignore_patterns("__pycache__"))
    for library in (click,):
        source = Path(library.__file__).parent
        shutil.copytree(source, root / "opt/mx" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "constraints.txt"):  # what a clone has beside its packages; images are built from it
        shutil.copy(PROJECT / file, root / "opt/mx")
    shutil.copy("/usr/bin/mmdebstrap", root / "usr/bin/mmdebstrap")
    (root / "usr/lib/mx/deps").chmod(0o755)  # installed by pip as root alone reads it


def there(*command: str, ok: bool = True) -> str:
    """Runs it on the machine."""
    line = cluster.exec_command(NAME, HEAD, command)
    done = subprocess.run(line, capture_output=True, text=True, timeout=420, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 or not ok, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def mxctl(*words: str, ok: bool = True) -> str:
    return there("sh", "-c", f"{MXCTL} {shlex.join(words)}", ok=ok)


def section(text: str, name: str) -> list[str]:
    """All values of a unit's setting."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def start(root: Path, unit: Path) -> "subprocess.Popen[bytes]":
    """As systemd would: credentials, user, capabilities, what has to end first."""
    text = unit.read_text()
    credentials = f"/run/credentials/{unit.name}"
    dynamic = section(text, "DynamicUser") == ["yes"]
    commands = [section(text, "ExecStartPre"), section(text, "ExecStart")]
    lines = [line.replace("$$", "$").replace("%d", credentials) for command in commands for line in command]
    prepare = [f"mkdir -p {credentials}"]
    prepare += [
        f"cp {path} {credentials}/{name}" for name, _, path in (it.partition(":") for it in section(text, "LoadCredential"))
    ]
    prepare += [f"mkdir -p -m 700 /var/lib/{name}" for name in section(text, "StateDirectory")]
    if dynamic:
        prepare += [f"chown -R 61234:61234 {credentials} {' '.join('/var/lib/' + d for d in section(text, 'StateDirectory'))}"]
    rights = ["setpriv", "--no-new-privs", *(("--reuid=61234", "--regid=61234", "--clear-groups") if dynamic else ())]
    for allowed in section(text, "CapabilityBoundingSet"):
        names = [name.removeprefix("CAP_").lower() for name in allowed.split()]
        rights.append(f"--bounding-set={','.join(['-all', *(f'+{name}' for name in names)])}")
    script = " && ".join([*prepare, *lines[:-1], f"exec {shlex.join(rights)} {lines[-1]}"])
    log = (root / f"var/log/mx/{unit.stem}.log").open("wb")
    with log:
        return subprocess.Popen(
            cluster.exec_command(NAME, HEAD, ["sh", "-c", script]), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def until(says: str, *words: str, seconds: float = SECONDS) -> str:
    """The output of mxctl once it contains that."""
    end = time.monotonic() + seconds
    while says not in (said := mxctl(*words, ok=False)):
        assert time.monotonic() < end, f"{says!r} never came: {said}\n{logs()}"
        time.sleep(0.3)
    return said


def logs() -> str:
    return there("sh", "-c", "tail -n 15 /var/log/mx/*.log", ok=False)


@pytest.fixture(scope="module")
def running(machine: Path) -> Iterator[str]:
    """All units run; what the last head init said."""
    mxctl("head", "init", "--address", HEAD_ADDRESS, "--cluster", NAME, ok=False)
    with contextlib.ExitStack() as stack:
        for unit in sorted((machine / UNITS.lstrip("/")).glob("mx-*.service")):
            process = start(machine, unit)
            stack.callback(process.wait)
            stack.callback(process.kill)
        end = time.monotonic() + SECONDS
        while "secured etcd" not in (said := mxctl("head", "init", ok=False)):
            assert time.monotonic() < end, f"{said}\n{logs()}"
        yield said


def test_what_it_would_do_and_what_it_did(machine: Path) -> None:
    refused = mxctl("head", "init", "--address", "10.1.1.1", ok=False)
    assert refused.startswith("Error: address 10.1.1.1 is not on this machine, which has 10.77.0.1 on br0")
    said = mxctl("head", "init", "--address", HEAD_ADDRESS, "--cluster", NAME, "--dry-run")
    assert "would write /etc/mx/head.yaml" in said and not (machine / "etc/mx/head.yaml").exists()
    said = mxctl("head", "init", "--address", HEAD_ADDRESS, "--cluster", NAME, ok=False)
    assert "wrote /etc/systemd/system/mx-etcd.service" in said
    assert f"etcd at {HEAD_ADDRESS}:2379 does not answer: start the units" in said
    units = [f"{UNITS}/{unit.name}" for unit in (machine / UNITS.lstrip("/")).glob("mx-*.service")]
    assert len(units) == 6
    complaints = there("systemd-analyze", "verify", *units, ok=False)
    assert "mx-" not in complaints, complaints


def test_its_units_make_a_head_that_is_well(running: str) -> None:
    assert f'context "{NAME}" is current' in running
    assert mxctl("head", "init").strip() == "nothing differs"
    assert "No resources found" in mxctl("get", "nodes")
    apply(CLUSTER)
    said = until("OK    head, nfs: answers", "doctor")
    assert "FAIL" not in said, f"{said}\n{logs()}"
    for part in ("clip", "join", "dnsmasq"):
        assert f"OK    head, {part}: answers" in said
    refuse_strangers()


def apply(text: str) -> None:
    there("sh", "-c", f"echo {shlex.quote(text)} > /root/set.yaml")
    mxctl("apply", "-f", "/root/set.yaml")


def refuse_strangers() -> None:
    """Whoever shows no certificate gets nothing of etcd; who shows the administrator's does."""
    ask = f"etcdctl --command-timeout=5s get --prefix {keys.OBJECTS} --keys-only"
    assert "rack" in there("sh", "-c", ask)
    assert "rack" not in there("sh", "-c", f"unset ETCDCTL_CERT ETCDCTL_KEY; {ask}", ok=False)


@pytest.mark.soak
def test_a_bare_machine_boots_from_it(machine: Path, running: str) -> None:
    """As docs/provisioning.md says it: image, node, power; and one more that nobody declared."""
    words = ", ".join(f'"{word}"' for word in plan.MACHINE_ARGUMENTS.split())
    apply(CLUSTER.replace("spec: {", f"spec: {{kernelArguments: [{words}], "))
    apply(
        "{apiVersion: mx/v1, kind: Image, metadata: {name: plain}, spec: {kernel: linux-image-cloud-amd64}}\n---\n"
        "{apiVersion: mx/v1, kind: Node, metadata: {name: n1}, "
        "spec: {mac: 52:54:00:77:00:01, address: 10.77.0.11, image: plain}}\n"
    )
    until("Complete", "get", "image", "plain", seconds=600)
    switch_on("n1", "52:54:00:77:00:01", declared=True)
    switch_on("u1", "52:54:00:77:00:81", declared=False)
    until("Discovered", "get", "nodes", seconds=300)
    mxctl("approve", "node", "52:54:00:77:00:81", "--name", "n7")
    for name in ("n1", "n7"):
        mxctl("wait", f"node/{name}", "--for=condition=Ready", "--timeout=300s")
    said = mxctl("doctor", "--quiet", ok=False)
    assert "FAIL" not in said, said


def switch_on(name: str, mac: str, *, declared: bool) -> None:
    """A bare virtual machine on the head's network."""
    places = Places(NAME)
    record = places.load()
    one = LabNode(name=name, address="", mac=mac, memory=1 << 30, machine=LabMachine(declared=declared), power=Power.ON)
    record.nodes.append(one)
    places.save(record)
    one.init = virtual.power_on(places, record, one)
    places.save(record)
