"""Nodes without network or agent for the tests of sandboxes, and agents on them."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from nodeagent import links
from nodeagent.engine import Copy, Engine
from nodeagent.shim.netlink import FORWARDING
from tests.engine_contract import Heard
from tests.system.road import Road
from tests.system.testnode import RemoteEngine, TestNode

Connect = Callable[..., Awaitable[RemoteEngine]]


@pytest.fixture(scope="session")
def sandbox_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestNode, TestNode]]:
    """Two nodes that share a directory."""
    assert os.geteuid() == 0, "tests of sandboxes need root; run scripts/test as root"
    shared = tmp_path_factory.mktemp("shared")
    shared.chmod(0o1777)  # as in a lab: jobs may be of any user
    nodes = tuple(TestNode(name, tmp_path_factory.mktemp(name), shared) for name in ("n1", "n2"))
    try:
        for node in nodes:
            node.boot()
        yield nodes[0], nodes[1]
    finally:
        for node in nodes:
            node.down()
            shutil.rmtree(node.directory)
        nodes[0].shut()
        shutil.rmtree(shared)


@pytest.fixture
def node(sandbox_nodes: tuple[TestNode, TestNode]) -> TestNode:
    """The first node."""
    return sandbox_nodes[0]


@pytest.fixture
async def connect(sandbox_nodes: tuple[TestNode, TestNode]) -> AsyncIterator[Connect]:
    """Starts agents, on the first node unless told otherwise; at the end of the test no copy of theirs is left."""
    engines: list[RemoteEngine] = []

    async def start(node: TestNode = sandbox_nodes[0]) -> RemoteEngine:
        engines.append(await RemoteEngine(node).connect())
        return engines[-1]

    yield start
    living = {engine.node: engine for engine in engines if engine.process.returncode is None}
    for engine in [living.get(node) or await start(node) for node in {engine.node for engine in engines}]:
        for copy in await engine.leftovers():
            await engine.forget(copy)
    for engine in engines:
        await engine.close()


@pytest.fixture
async def engine(connect: Connect) -> RemoteEngine:
    """An agent's engine on the first node."""
    return await connect()


@pytest.fixture
async def road(sandbox_nodes: tuple[TestNode, TestNode], connect: Connect) -> Road:
    """From the first node to the second and back."""
    return Road([(node, await connect(node)) for node in sandbox_nodes])


@pytest.fixture
def restarted(connect: Connect, engine: RemoteEngine) -> Callable[[], Awaitable[Engine]]:
    """Kills the agent and starts another."""

    async def restart() -> Engine:
        await engine.crash()
        return await connect()

    return restart


@pytest.fixture
def images(node: TestNode) -> Iterator[Callable[[], Path]]:
    """Makes directories on the first node's tmpfs."""
    number = count()
    made: list[Path] = []

    def fresh() -> Path:
        directory = node.path(f"/run/mx/images/{next(number)}")
        directory.mkdir(parents=True)
        made.append(directory)
        return directory

    yield fresh
    for directory in made:
        shutil.rmtree(directory)


@pytest.fixture
def heard(node: TestNode) -> Heard:
    """Whether its port lets through what comes and goes. What that means for packets is seen in test_networks.py."""

    async def ask(which: Copy) -> bool:
        port = links.port_of(which)
        if not node.path(f"/sys/class/net/{port}").exists():
            return False
        state = int(node.path(f"/sys/class/net/{port}/brport/state").read_text())
        return state == FORWARDING

    return ask


@pytest.fixture
def wires(engine: RemoteEngine) -> Callable[[], Awaitable[tuple[object, object]]]:
    """Makes both ends of a wire, on the first node."""
    return engine.wires
