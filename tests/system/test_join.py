"""``mxctl join`` and ``leave`` on a machine with Debian and nothing of MX: it becomes a node, works as one, and is clean again."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip.authority import serial_of
from lab import cluster, network
from lab.model import HEAD_ADDRESS, LabNode, Places
from tests.system.commands import PROJECT, Terminal
from tests.system.labs import lab_name

NAME = lab_name("tjoin")
pytestmark = pytest.mark.timeout(300)
COUNTER = "import itertools, time\nfor i in itertools.count(): print(i, flush=True); time.sleep(0.05)"
MXCTL = """#!/bin/sh
PYTHONPATH=/opt/mx:/usr/lib/mx/deps PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m mxctl "$@"
"""
EVERYTHING = (
    "find / -xdev ! -path '/opt/*' ! -path '/tmp/*' ! -name '.mx*' -printf '%p\\n' | sort; cut -d' ' -f5 /proc/self/mountinfo"
)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    if os.geteuid() != 0:
        pytest.fail("system tests need root: run sudo scripts/test system")
    terminal = Terminal(tmp_path_factory.mktemp("config") / "config")
    try:
        terminal.mxctl("lab", "up", "--name", NAME, "--nodes", "1", "--plain", "1", "--cpus", "0.6")
        install(machine())
        yield terminal
    finally:
        terminal.mxctl("lab", "down", "--name", NAME)


def machine() -> LabNode:
    return Places(NAME).load().node("p1")


def install(node: LabNode) -> None:
    """mxctl, as a package of ours would bring it."""
    assert node.init is not None
    root = Path(f"/proc/{node.init.pid}/root")
    for package in ("crds", "store", "nodeagent", "mxctl"):
        shutil.copytree(PROJECT / package, root / "opt/mx" / package, ignore=shutil.ignore_patterns("__pycache__"))
    import click

    shutil.copytree(Path(click.__file__).parent, root / "opt/mx/click", ignore=shutil.ignore_patterns("__pycache__"))
    program = root / "opt/mx/mxctl.sh"
    program.write_text(MXCTL)
    program.chmod(0o755)


def on_machine(*command: str, seconds: float = 120, ok: bool = True) -> str:
    """Runs it on the plain machine."""
    line = cluster.exec_command(NAME, "p1", command)
    done = subprocess.run(line, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 or not ok, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def mxctl_there(*words: str, ok: bool = True) -> str:
    return on_machine("/opt/mx/mxctl.sh", *words, ok=ok)


def until(terminal: Terminal, *words: str, says: str, seconds: float = 60) -> str:
    """The output of mxctl once it contains that."""
    end = time.monotonic() + seconds
    while says not in (said := terminal.mxctl(*words, ok=False)):
        assert time.monotonic() < end, f"{says!r} never came: {said}"
        time.sleep(0.2)
    return said


def invitation(terminal: Terminal, *options: str) -> list[str]:
    end = time.monotonic() + 30
    while True:  # the desk may be opening
        said = terminal.mxctl("token", "create", *options, ok=False)
        if said:
            return said.split()[1:]
        assert time.monotonic() < end, "mx-join never answered"
        time.sleep(0.2)


def test_a_running_machine_joins_works_and_leaves(terminal: Terminal) -> None:
    before = on_machine("sh", "-c", EVERYTHING)
    words = invitation(terminal, "--node", "n9")
    assert "has its certificate" in (said := mxctl_there(*words)) and "node/n9 joined" in said
    until(terminal, "get", "node", "n9", says="Ready")
    terminal.mxctl("run", "--name", "w", "--on", "n1", "--", "python3", "-c", COUNTER)
    until(terminal, "get", "job", "w", says="Running")
    for target in ("n9", "n1", "n9"):
        terminal.mxctl("migrate", "w", target, "--wait", "--timeout", "60s")
    stolen = (on_machine("cat", "/var/lib/mx/agent/tls/node.crt"), on_machine("cat", "/var/lib/mx/agent/tls/node.key"))
    terminal.mxctl("migrate", "w", "n1", "--wait", "--timeout", "60s")
    assert "node/n9 left" in mxctl_there("leave")
    assert on_machine("sh", "-c", EVERYTHING).splitlines() == before.splitlines()
    assert "n9" not in terminal.mxctl("get", "nodes")
    refused_everywhere(terminal, *stolen)
    mxctl_there(*invitation(terminal, "--node", "n9"))
    until(terminal, "get", "node", "n9", says="Ready")
    refused_everywhere(terminal, *stolen)
    assert "Ready" in terminal.mxctl("get", "node", "n9")
    differs_there(terminal)
    assert "node/n9 left" in mxctl_there("leave")
    numbers = [int(line) for line in terminal.mxctl("logs", "w").split()]
    assert numbers == list(range(len(numbers))) and len(numbers) > 20
    terminal.mxctl("delete", "job", "w")


def differs_there(terminal: Terminal) -> None:
    """A program that is another one on a node keeps its jobs from being moved there, and there only."""
    on_machine("sh", "-c", "printf x >> /usr/bin/sleep")
    terminal.mxctl("run", "--name", "s", "--on", "n1", "--", "sleep", "600")
    until(terminal, "can-migrate", "s", "n9", says="file /usr/bin/sleep differs on n9")
    terminal.mxctl("migrate", "s", "n9", "--wait", "--timeout", "60s", ok=False)
    assert "file /usr/bin/sleep differs on n9" in terminal.mxctl("get", "migrations", "-o", "yaml")
    assert "n1" in terminal.mxctl("get", "job", "s")
    until(terminal, "can-migrate", "w", "n9", says="yes")
    terminal.mxctl("delete", "job", "s")


def refused_everywhere(terminal: Terminal, certificate: str, key: str) -> None:
    """Who kept the certificate of a removed node gets nothing by it, not even when the name was given again."""
    serial, _ = serial_of(certificate.encode())
    assert serial in on_head(terminal, "etcdctl", "get", "--prefix", "/mx/public/revoked/")
    thief = Places(NAME).shared / "thief"
    thief.mkdir(exist_ok=True)
    (thief / "t.crt").write_text(certificate)
    (thief / "t.key").write_text(key)
    own = ("--cert", str(thief / "t.crt"), "--key", str(thief / "t.key"), "--cacert", str(Places(NAME).authority / "ca.crt"))
    said = in_network("curl", "-sS", *own, "-d", '{"csr": "x"}', f"https://{HEAD_ADDRESS}:8443/renew")
    assert "this certificate was taken back" in said
    in_network("curl", "-sS", *own, "-d", "{}", f"https://{HEAD_ADDRESS}:8443/leave")  # who has the name now stays, see below
    assert '"token"' not in in_network("curl", "-sS", *own, "-d", '{"node": "n9"}', f"https://{HEAD_ADDRESS}:8443/tokens")
    steal = ("env", "ETCDCTL_CERT=/shared/thief/t.crt", "ETCDCTL_KEY=/shared/thief/t.key")
    assert "n9" not in on_head(terminal, *steal, "etcdctl", "--command-timeout=5s", "get", "/mx/nodes/n9/alive", ok=False)


def on_head(terminal: Terminal, *command: str, ok: bool = True) -> str:
    return terminal.mxctl("lab", "exec", "--name", NAME, "head", "--", *command, ok=ok)


def in_network(*command: str) -> str:
    line = ["ip", "netns", "exec", network.NAMED.joinpath(Places(NAME).netns).name, *command]
    return subprocess.run(line, capture_output=True, text=True, timeout=30, check=True).stdout


def test_who_is_not_invited_stays_outside(terminal: Terminal) -> None:
    head, _, token, _, fingerprint = invitation(terminal, "--node", "n8")[1:]
    wrong = mxctl_there("join", head, "--token", "0" * 32, "--ca", fingerprint, ok=False)
    assert "the token is not known" in wrong
    false = mxctl_there("join", head, "--token", token, "--ca", "ab" * 32, ok=False)
    assert "is not of the cluster we were invited to" in false
    assert "n8" not in terminal.mxctl("get", "nodes")
    assert "no node: nothing to leave" in mxctl_there("leave", ok=False)
