"""The real engine on real nodes: namespaces, control groups, criu 4.2.1."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from nodeagent.engine import Engine
from tests.engine_contract import EngineContract
from tests.system.testnode import RemoteEngine, TestNode


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestNode]:
    assert os.geteuid() == 0, "system tests need root"
    directory = tmp_path_factory.mktemp("node")
    shared = tmp_path_factory.mktemp("shared")
    node = TestNode("n1", directory, shared)
    try:
        node.boot()
        yield node
    finally:
        node.down()
        node.shut()
        shutil.rmtree(directory)


@pytest.fixture
async def connect(node: TestNode) -> AsyncIterator[Callable[[], Awaitable[RemoteEngine]]]:
    """Starts agents on the node; at the end of the test nothing of its copies is left."""
    engines: list[RemoteEngine] = []

    async def start() -> RemoteEngine:
        engines.append(await RemoteEngine(node).connect())
        return engines[-1]

    yield start
    last = engines[-1] if engines and engines[-1].process.returncode is None else await start()
    for copy in await last.leftovers():
        await last.forget(copy)
    for engine in engines:
        await engine.close()


@pytest.fixture
async def engine(connect: Callable[[], Awaitable[RemoteEngine]]) -> RemoteEngine:
    return await connect()


@pytest.fixture
def restarted(connect: Callable[[], Awaitable[RemoteEngine]], engine: RemoteEngine) -> Callable[[], Awaitable[Engine]]:
    async def restart() -> Engine:
        await engine.crash()
        return await connect()

    return restart


@pytest.fixture
def images(node: TestNode) -> Iterator[Callable[[], Path]]:
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


class TestNamespaces(EngineContract):
    """The contract, with real criu."""
