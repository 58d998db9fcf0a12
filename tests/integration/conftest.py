"""Two real agents over a store in memory; tests that need others make their own ``cluster``."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store.memory import MemoryKV
from tests.integration.agents import Cluster, Node, cluster_of
from tests.integration.moving import DESTINATION, SOURCE


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    kv = MemoryKV(clock=time.monotonic)
    async with cluster_of(tmp_path, kv, kv.client, SOURCE, DESTINATION) as made:
        yield made


@pytest.fixture
def source(cluster: Cluster) -> Node:
    return cluster.nodes[SOURCE]


@pytest.fixture
def destination(cluster: Cluster) -> Node:
    return cluster.nodes[DESTINATION]
