"""Another image under six running jobs, and one that does not boot: real agents, real criu, nodes that are really restarted."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip.cache import Shelf
from clip.image import NodeImage
from crds.image import Image, Revision
from crds.meta import Metadata
from crds.node import Node
from lab.model import Places
from lab.ready import context_of
from store.context import connect
from store.objects import utcnow
from store.store import Store
from tests.system.commands import PROJECT, Terminal

pytestmark = pytest.mark.timeout(420)

LAB = "rollsys"
COUNT = "import time,itertools\nfor i in itertools.count(): print(i, flush=True); time.sleep(.05)"
NODES = ("n1", "n2", "n3")
JOBS = [f"w{number}" for number in range(6)]
GOOD_LAYER, BAD_LAYER = f"files-{LAB}-good", f"files-{LAB}-bad"
NO_AGENT = "#!/bin/sh\nexit 1\n"


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
        for layer in (GOOD_LAYER, BAD_LAYER):
            shutil.rmtree(Shelf.of(Places(LAB).state).directory / layer, ignore_errors=True)
        log.close()


class Head:
    """Does what clip does for images: revisions of layers on the shelf."""

    def __init__(self) -> None:
        self.places = Places(LAB)
        lab = self.places.load()
        self.layers = [lab.agent, lab.base]
        self.first = NodeImage(lab.base, lab.agent, self.places.state).digest
        self.revisions: list[Revision] = []

    def layer(self, name: str, files: dict[str, str]) -> str:
        """A small layer above the others."""

        def build(layer: Path, _lock: int) -> None:
            for path, text in files.items():
                file = layer / "root" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
                file.chmod(0o755)

        Shelf.of(self.places.state).ensure(name, build)
        return name

    def publish(self, digest: str, *above: str) -> None:
        """One more revision, which is current from now on."""
        number = len(self.revisions) + 1
        layers = [*above, *self.layers]
        self.revisions.append(
            Revision(number=number, digest=digest, layers=layers, boot="none", kernel="none", built=utcnow(), recipe=digest)
        )

        def change(image: Image) -> None:
            image.status.revisions, image.status.current = self.revisions, number

        async def write() -> None:
            kv = await connect(context_of(self.places))
            try:
                store = Store(kv)
                if number == 1:
                    await store.create(Image(metadata=Metadata(name="rolled")))
                    for name in NODES:
                        await store.change(Node, name, None, lambda node: setattr(node.spec, "image", "rolled"))
                await store.change_status(Image, "rolled", None, change)
            finally:
                await kv.close()

        asyncio.run(write())


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


def test_another_image_comes_under_six_jobs_and_one_that_does_not_boot_goes_again(terminal: Terminal) -> None:
    head = Head()
    head.publish(head.first)
    for number, job in enumerate(JOBS):
        terminal.mxctl("run", "--name", job, "--on", NODES[number % 3], "--", "python3", "-c", COUNT)
    for job in JOBS:
        terminal.mxctl("wait", f"job/{job}", "--for=condition=Running", "--timeout=60s")
    assert terminal.mxctl("rollout", "status").strip() == "every node runs what it should"

    head.publish("222222222222", head.layer(GOOD_LAYER, {"etc/mx-version": "2\n"}))
    terminal.mxctl("wait", "node/n1", "--for=condition=ImageDrift", "--timeout=20s")
    said = terminal.mxctl("rollout", "image", "rolled", "--name", "two", "--deadline", "90s", seconds=300)
    assert "rollout/two is complete: 3 of 3 nodes" in said
    assert images(terminal) == ["222222222222"] * 3
    for name in NODES:
        assert terminal.mxctl("lab", "exec", "--name", LAB, name, "--", "cat", "/etc/mx-version").strip() == "2"
    before = check_witnesses(terminal)

    head.publish("333333333333", head.layer(BAD_LAYER, {"usr/bin/mx-nodeagent": NO_AGENT}), GOOD_LAYER)
    stopped = terminal.run(f"{PROJECT}/.venv/bin/mxctl rollout image rolled --name three --deadline 25s", seconds=200)
    assert stopped.code == 1, stopped.out
    assert "not Ready within 25 s" in stopped.err
    terminal.mxctl("wait", *(f"node/{name}" for name in NODES), "--for=condition=Ready", "--timeout=30s")
    assert images(terminal) == ["222222222222"] * 3
    assert terminal.mxctl("get", "rollout", "three", "-o", "jsonpath={.status.phase}") == "Stopped"
    assert check_witnesses(terminal) > before
