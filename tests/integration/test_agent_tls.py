"""Moves over mutual TLS: they succeed between nodes of one authority, and fail with words otherwise."""

import datetime
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clip.authority import Authority
from nodeagent.credentials import prepare
from store.memory import MemoryKV
from tests.integration.agents import Cluster, Node, cluster_of, until
from tests.integration.moving import DESTINATION, SOURCE, check_moved, check_stayed


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "authority", "test")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Without nodes: each test gives them the certificates it is about."""
    kv = MemoryKV(clock=time.monotonic)
    async with cluster_of(tmp_path, kv, kv.client) as made:
        yield made


async def enrol(authority: Authority, directory: Path, node: str, days: float = 365) -> Path:
    """The directory of that node's agent, with all it needs."""
    await prepare(directory, node)
    (directory / "node.crt").write_bytes(authority.sign((directory / "node.csr").read_bytes(), node, days=days))
    (directory / "ca.crt").write_bytes((authority.directory / "ca.crt").read_bytes())
    return directory


async def test_a_job_moves_there_and_back(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    for name in (SOURCE, DESTINATION):
        await cluster.node(name, await enrol(authority, tmp_path / f"{name}-tls", name))
    uid = await cluster.running("w", SOURCE)
    assert await cluster.move("w", SOURCE, DESTINATION)
    await check_moved(cluster, uid)
    assert await cluster.move("w", DESTINATION, SOURCE)
    await cluster.only_on(uid, SOURCE)


@pytest.mark.parametrize(
    ("wrong", "days", "words"),
    [
        (SOURCE, -1.0, "does not accept our certificate, which has expired"),
        (DESTINATION, -1.0, "its certificate has expired"),
        (SOURCE, 365.0, "does not accept our certificate: not of its cluster's authority"),
        (DESTINATION, 365.0, "its certificate is not of this cluster's authority"),
    ],
)
async def test_who_cannot_prove_itself_moves_nothing(
    cluster: Cluster, authority: Authority, tmp_path: Path, wrong: str, days: float, words: str
) -> None:
    """At once, not at the deadline; the job goes on, and the report says why."""
    strange = authority if days < 0 else Authority.open(tmp_path / "strange", "test")
    for name in (SOURCE, DESTINATION):
        issuer = strange if name == wrong else authority
        directory = await enrol(issuer, tmp_path / f"{name}-tls", name, days if name == wrong else 365)
        if name == wrong == SOURCE:
            (directory / "ca.crt").write_bytes((authority.directory / "ca.crt").read_bytes())
        await cluster.node(name, directory)
    uid = await cluster.running("w", SOURCE)
    await check_says(cluster, uid, words)


async def test_a_destination_that_is_another_node(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    """Its certificate is good, but of n3."""
    await cluster.node(SOURCE, await enrol(authority, tmp_path / "n1-tls", SOURCE))
    await cluster.node(DESTINATION, await enrol(authority, tmp_path / "n3-tls", "n3"))
    uid = await cluster.running("w", SOURCE)
    await check_says(cluster, uid, "node n2 was expected at")


async def test_a_source_that_is_another_node(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    await cluster.node(SOURCE, await enrol(authority, tmp_path / "n3-tls", "n3"))
    await cluster.node(DESTINATION, await enrol(authority, tmp_path / "n2-tls", DESTINATION))
    uid = await cluster.running("w", SOURCE)
    await check_says(cluster, uid, "the job is to come from node n1, the certificate says mx:nodes/n3")


async def test_a_destination_without_tls(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    await cluster.node(SOURCE, await enrol(authority, tmp_path / "n1-tls", SOURCE))
    await cluster.node(DESTINATION)
    uid = await cluster.running("w", SOURCE)
    await check_says(cluster, uid, "does not speak TLS")


async def test_a_source_without_tls(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    await cluster.node(SOURCE)
    await cluster.node(DESTINATION, await enrol(authority, tmp_path / "n2-tls", DESTINATION))
    uid = await cluster.running("w", SOURCE)
    await check_says(cluster, uid, "one end speaks TLS, the other does not")


async def check_says(cluster: Cluster, uid: str, words: str) -> None:
    """The move ends long before its deadline, with these words at the source."""
    ordered = await cluster.order("w", SOURCE, DESTINATION, deadline=60)

    async def told() -> bool:
        report = await cluster.report(SOURCE, "w")
        return report is not None and report.move is not None and words in report.move.message

    await until(told, f"the source's report to say: {words}")
    assert datetime.datetime.now(datetime.UTC) < ordered.order.deadline
    assert await ordered.call_off()
    await check_stayed(cluster, uid)


async def test_jobs_run_while_there_is_no_certificate(cluster: Cluster, authority: Authority, tmp_path: Path) -> None:
    """A job is started without it, and moves as soon as it is there."""
    await prepare(tmp_path / "n1-tls", SOURCE)
    await cluster.node(SOURCE, tmp_path / "n1-tls")
    await cluster.node(DESTINATION, await enrol(authority, tmp_path / "n2-tls", DESTINATION))
    uid = await cluster.running("w", SOURCE)
    ordered = await cluster.order("w", SOURCE, DESTINATION)
    await enrol(authority, tmp_path / "n1-tls", SOURCE)
    assert await ordered.decided()
    await check_moved(cluster, uid)


async def test_the_agent_makes_its_key(cluster: Cluster, tmp_path: Path) -> None:
    node: Node = await cluster.node(SOURCE, tmp_path / "new")
    assert (tmp_path / "new/node.csr").exists()
    assert (tmp_path / "new/node.key").stat().st_mode & 0o777 == 0o600
    assert not node.died_of
