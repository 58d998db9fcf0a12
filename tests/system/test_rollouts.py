"""Another image under six running jobs, and one that does not boot: real agents, real criu, nodes that are really restarted."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.commands import PROJECT, Terminal
from tests.system.labs import lab_name

pytestmark = pytest.mark.timeout(900)

LAB = lab_name("rollsys")
COUNT = "import time,itertools\nfor i in itertools.count(): print(i, flush=True); time.sleep(.05)"
NODES = ("n1", "n2", "n3")
JOBS = [f"w{number}" for number in range(6)]
VERSION, MOTD = {"path": "/etc/mx-version"}, {"path": "/etc/motd", "content": "hello\n"}
NO_PYTHON = {"path": "/usr/bin/python3", "content": "#!/bin/sh\nexit 1\n", "mode": "0755"}
"""Nothing of ours starts with that."""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A lab of three nodes, with somebody who switches them."""
    terminal = Terminal(tmp_path / "config")
    terminal.mxctl("lab", "up", "--name", LAB, "--nodes", "3", "--cpus", "0.4,0.4,0.4")
    environment = {**os.environ, "MXCONFIG": str(tmp_path / "config")}
    log = (tmp_path / "power.log").open("w")
    power = subprocess.Popen(
        [str(PROJECT / ".venv/bin/mxctl"), "lab", "power", "--name", LAB], env=environment, cwd=PROJECT, stdout=log, stderr=log
    )
    try:
        yield terminal
    finally:
        power.send_signal(signal.SIGINT)
        power.wait(30)
        terminal.mxctl("lab", "down", "--name", LAB, ok=False)
        log.close()


class Head:
    """Asks for revisions as people do: a spec, mxctl image build."""

    def __init__(self, terminal: Terminal, directory: Path) -> None:
        self.terminal = terminal
        self.file = directory / "image.yaml"

    def build(self, *files: dict[str, str]) -> str:
        """The digest of the revision that is current then."""
        self.apply("Image", "rolled", {"kernel": "linux-image-cloud-amd64", "files": files})
        said = self.terminal.mxctl("image", "build", "rolled", seconds=900)
        return re.findall(r"digest (\w{12})", said)[0]

    def apply(self, kind: str, name: str, spec: dict[str, object]) -> None:
        self.file.write_text(json.dumps({"apiVersion": "mx/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}))
        self.terminal.mxctl("apply", "-f", str(self.file))


def give_image(terminal: Terminal, head: Head) -> None:
    """The nodes are to run it, and are restarted for that while they are empty."""
    for name in NODES:
        head.apply("Node", name, {"image": "rolled"})
    terminal.mxctl("wait", *(f"node/{name}" for name in NODES), "--for=condition=ImageDrift", "--timeout=120s")
    resets = [f"{PROJECT}/.venv/bin/mxctl power reset {name} --timeout 120s &" for name in NODES]
    terminal.run("\n".join([*resets, "wait"]), seconds=150)
    terminal.mxctl("wait", *(f"node/{name}" for name in NODES), "--for=condition=ImageDrift=False", "--timeout=120s")


def drift(terminal: Terminal, node: str) -> str:
    conditions = json.loads(terminal.mxctl("get", "node", node, "-o", "json"))["status"]["conditions"]
    return next(str(condition["message"]) for condition in conditions if condition["type"] == "ImageDrift")


def numbers(terminal: Terminal, job: str) -> list[int]:
    return [int(line) for line in terminal.mxctl("logs", job).split()]


def check_witnesses(terminal: Terminal) -> int:
    """No job was killed, no count lost or made twice; how far they are together."""
    total = 0
    for job in JOBS:
        assert terminal.mxctl("get", "job", job, "-o", "jsonpath={.status.phase}") == "Running", job
        found = numbers(terminal, job)
        assert found == list(range(len(found))), f"{job}: a number is missing or came twice"
        total += len(found)
    return total


def images(terminal: Terminal) -> list[str]:
    return [terminal.mxctl("get", "node", name, "-o", "jsonpath={.status.facts.image}") for name in NODES]


def test_another_image_comes_under_six_jobs_and_one_that_does_not_boot_goes_again(terminal: Terminal, tmp_path: Path) -> None:
    head = Head(terminal, tmp_path)
    first = head.build(VERSION | {"content": "1\n"})
    give_image(terminal, head)
    assert images(terminal) == [first] * 3
    for number, job in enumerate(JOBS):
        terminal.mxctl("run", "--name", job, "--on", NODES[number % 3], "--", "python3", "-c", COUNT)
    for job in JOBS:
        terminal.mxctl("wait", f"job/{job}", "--for=condition=Running", "--timeout=120s")
    assert head.build(VERSION | {"content": "1\n"}) == first, "nothing changed: the same digest"
    assert terminal.mxctl("rollout", "status").strip() == "every node runs what it should"

    second = head.build(VERSION | {"content": "2\n"}, MOTD)
    terminal.mxctl("wait", "node/n1", "--for=condition=ImageDrift", "--timeout=120s")
    assert f"rolled {first} -> rolled {second} (file /etc/motd added, file /etc/mx-version changed)" in drift(terminal, "n1")
    assert terminal.mxctl("image", "diff", "rolled:1", "rolled:2") == "file /etc/motd added\nfile /etc/mx-version changed\n"
    refused = terminal.run(f"{PROJECT}/.venv/bin/mxctl image rm rolled:1")
    assert refused.code == 1 and "revision 1 is in use by n1, n2, n3;" in refused.err
    said = terminal.mxctl("rollout", "image", "rolled", "--name", "two", "--deadline", "180s", seconds=600)
    assert "rollout/two is complete: 3 of 3 nodes" in said
    assert images(terminal) == [second] * 3
    for name in NODES:
        assert terminal.mxctl("lab", "exec", "--name", LAB, name, "--", "cat", "/etc/mx-version").strip() == "2"
    assert "image/rolled:1 removed with agent-" not in terminal.mxctl("image", "rm", "rolled:1")
    before = check_witnesses(terminal)

    head.build(VERSION | {"content": "3\n"}, NO_PYTHON)
    stopped = terminal.run(f"{PROJECT}/.venv/bin/mxctl rollout image rolled --name three --deadline 35s", seconds=300)
    assert stopped.code == 1, stopped.out
    assert "not Ready within 35 s" in stopped.err
    terminal.mxctl("wait", *(f"node/{name}" for name in NODES), "--for=condition=Ready", "--timeout=120s")
    assert images(terminal) == [second] * 3
    assert terminal.mxctl("get", "rollout", "three", "-o", "jsonpath={.status.phase}") == "Stopped"
    assert check_witnesses(terminal) > before
