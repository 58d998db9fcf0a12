"""A destination loses its power when it has taken a job and before it could let it run: the frozen copy at the source goes on.

The agents are those of tests/system/faults: they say at each step where they are, so the power goes at exactly that moment.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cluster, plan
from lab.model import Places, Service
from tests.system.commands import Terminal
from tests.system.faults.site import SERVICES
from tests.system.labs import lab_name

pytestmark = pytest.mark.timeout(300)

LAB = lab_name("taken")
LEASE = "5"
PATIENCE = 90.0
WITNESS = "import time,itertools\nfor i in itertools.count(): print(i, flush=True); time.sleep(.02)"
JOB = """
apiVersion: mx/v1
kind: Job
metadata: {{name: {name}}}
spec:
  command: [python3, -c, {script}]
  placement: {{node: n1}}
  restart: {{policy: FromCheckpoint}}
"""


def services(node: str) -> tuple[Service, ...]:
    [agent] = SERVICES.agent(node)
    guard = plan.agent_service(node)[1]
    return (Service(name=agent.name, command=[*agent.command, "--lease", LEASE]), guard)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    if os.geteuid() != 0:
        pytest.fail("system tests need root: run sudo scripts/test system")
    config = tmp_path_factory.mktemp("taken") / "config"
    patch = pytest.MonkeyPatch()
    patch.setenv("MXCONFIG", str(config))
    try:
        cluster.up(LAB, 2, "0.4", "256Mi", services=plan.Services(SERVICES.head, services))
        yield Terminal(config)
    finally:
        cluster.down(LAB)
        patch.undo()


def run(terminal: Terminal, job: str, file: Path) -> None:
    file.write_text(JOB.format(name=job, script=json.dumps(WITNESS)))
    terminal.mxctl("apply", "-f", str(file))
    terminal.mxctl("wait", f"job/{job}", "--for=condition=Running", "--timeout=30s")


def numbers(job: str) -> list[int]:
    """What the witness has written: 0, 1, 2, …, or the test fails."""
    [log] = Places(LAB).shared.glob(f".mx/jobs/default/{job}-*/output.log")
    text = log.read_text()
    found = [int(line) for line in text[: text.rfind("\n") + 1].split()]
    assert found == list(range(len(found))), f"{job}: a number is missing or came twice: {found[-50:]}"
    return found


async def power_goes_at(moment: str, node: str) -> None:
    """Returns when the node is off. Whoever is at another moment is told at once to go on."""
    path = Places(LAB).shared / "faults/moments"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    there = asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = json.loads(await reader.readline() or b"{}")
        if (said.get("moment"), said.get("node")) == (moment, node):
            there.set()  # it is never answered
        else:
            writer.write(b"{}\n")
            await writer.drain()
        writer.close() if not there.is_set() else None

    async with await asyncio.start_unix_server(hear, path), asyncio.timeout(PATIENCE):
        await there.wait()
        await asyncio.to_thread(cluster.stop_node, LAB, node, hard=True)
    path.unlink()


async def goes_on(job: str, after: int) -> None:
    """Waits for numbers beyond that many."""
    async with asyncio.timeout(PATIENCE):
        while len(numbers(job)) <= after:  # noqa: ASYNC110 - a file on another machine wakes nobody
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("mode", ["stop", "post-copy"])
async def test_it_goes_on_where_it_stands_frozen(terminal: Terminal, mode: str, tmp_path: Path) -> None:
    job = f"w-{mode}"
    run(terminal, job, tmp_path / "job.yaml")
    await goes_on(job, 10)
    going = asyncio.create_task(power_goes_at("arrive.claimed", "n2"))
    await asyncio.to_thread(terminal.mxctl, "migrate", job, "n2", "--mode", mode)
    await going
    frozen = len(numbers(job))
    await goes_on(job, frozen + 20)
    found = json.loads(terminal.mxctl("get", "job", job, "-o", "json"))["status"]
    assert (found["node"], found["restarts"]) == ("n1", 1)
    moves = json.loads(terminal.mxctl("get", "migrations", "-o", "json"))["items"]
    [message] = [each["status"]["message"] for each in moves if each["spec"]["job"] == job]
    assert "the job goes on at node/n1 as it was when it was frozen" in message
    cluster.start_node(LAB, "n2")
    terminal.mxctl("wait", "node/n2", "--for=condition=Ready", "--timeout=60s")
    terminal.mxctl("migrate", job, "n2", "--wait")  # nothing stale is in the way
    await goes_on(job, len(numbers(job)) + 20)
    terminal.mxctl("delete", "job", job)
