"""The reconciler as a process on real etcd: it leads, falls, comes back, and nothing it meets on the way stops it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from crds import keys
from crds.job import Job, JobPhase, JobSpec
from crds.load import Alive
from crds.meta import Metadata, find_condition
from crds.node import Node
from crds.placement import Placement
from crds.report import JobReport, ReportPhase
from store.election import leader
from store.errors import StoreError
from store.etcd import EtcdKV
from store.kv import Delete, Put
from store.store import Store
from tests.etcd_server import EtcdServer

PATIENCE = 20.0  # seconds; twice what an ordinary machine needs
ROOT = Path(__file__).parents[2]


class Reconciler:
    """One process. Its log is shown when a test fails."""

    def __init__(self, endpoint: str, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            command = [sys.executable, "-m", "reconciler", "--endpoints", endpoint]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        if self.lives:
            self.signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(timeout=10)


class Bench:
    """etcd, reconcilers, and a store to look through."""

    def __init__(self, server: EtcdServer, directory: Path) -> None:
        self.server = server
        self.kv = EtcdKV.connect([server.endpoint])
        self.store = Store(self.kv)
        self.reconcilers: list[Reconciler] = []
        self._directory = directory

    def start(self) -> Reconciler:
        reconciler = Reconciler(self.server.endpoint, self._directory / f"reconciler-{len(self.reconcilers)}.log")
        self.reconcilers.append(reconciler)
        return reconciler

    async def node(self, name: str) -> None:
        """A declared node whose heartbeat is there."""
        alive = Alive(boot_id="b", agent_version="1", address=f"{name}:7950", cpu=1, memory=2**30, since=datetime.now(UTC))
        await self.kv.txn([], [Put(keys.alive(name), alive.to_json())])
        await self.store.create(Node(metadata=Metadata(name=name)))

    async def job(self, name: str) -> None:
        await self.store.create(Job(metadata=Metadata(name=name), spec=JobSpec(command=["true"])))

    async def placed(self, name: str) -> bool:
        job = await self.store.get(Job, name)
        return job.status.node is not None

    async def leads(self, reconciler: Reconciler) -> bool:
        return (await leader(self.kv) or "").endswith(f"/{reconciler.pid}")

    async def placements(self) -> list[Placement]:
        return [Placement.model_validate_json(kv.value) for kv in (await self.kv.list(keys.PLACEMENTS)).items]


async def until(what: Callable[[], Awaitable[bool]], patience: float = PATIENCE) -> None:
    """Waits for a condition; outages of the store on the way are part of the test."""
    end = time.monotonic() + patience
    while True:
        try:
            if await what():
                return
        except StoreError as error:
            if time.monotonic() > end:
                raise AssertionError(f"not within {patience} s: the store does not answer") from error
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience} s")
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    server = EtcdServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest_asyncio.fixture
async def bench(etcd: EtcdServer, tmp_path: Path) -> AsyncIterator[Bench]:
    found = Bench(etcd, tmp_path)
    try:
        yield found
    finally:
        for reconciler in found.reconcilers:
            reconciler.end()
            print(reconciler.log.read_text())
        for kv in (await found.kv.list("/mx/")).items:
            await found.kv.txn([], [Delete(kv.key)])
        await found.kv.close()


async def test_a_job_is_placed_and_its_report_mirrored(bench: Bench) -> None:
    bench.start()
    await bench.node("n1")
    await bench.job("w")
    await until(lambda: bench.placed("w"))
    placement = (await bench.placements())[0]
    report = JobReport(uid=placement.uid, epoch=1, phase=ReportPhase.RUNNING, boot_id="b", started_at=datetime.now(UTC))
    await bench.kv.txn([], [Put(keys.report("n1", "default", "w"), report.to_json())])

    async def runs() -> bool:
        return (await bench.store.get(Job, "w")).status.phase == JobPhase.RUNNING

    await until(runs)


async def test_when_the_leader_is_killed_another_takes_over(bench: Bench) -> None:
    first = bench.start()
    await until(lambda: bench.leads(first))
    second = bench.start()
    await bench.node("n1")
    await bench.job("a")
    await until(lambda: bench.placed("a"))
    assert await bench.leads(first)
    first.signal(signal.SIGKILL)
    await bench.job("b")
    await until(lambda: bench.leads(second))
    await until(lambda: bench.placed("b"))
    assert [placement.epoch for placement in await bench.placements()] == [1, 1]


async def test_a_leader_that_was_paused_does_no_harm_when_it_wakes_up(bench: Bench) -> None:
    first = bench.start()
    await until(lambda: bench.leads(first))
    second = bench.start()
    await bench.node("n1")
    await bench.job("a")
    await until(lambda: bench.placed("a"))
    first.signal(signal.SIGSTOP)
    await until(lambda: bench.leads(second))
    for number in range(10):
        await bench.job(f"b{number}")
    first.signal(signal.SIGCONT)
    for number in range(10):
        await until(lambda name=f"b{number}": bench.placed(name))  # type: ignore[misc]
    await until(lambda: _says(first, "does not lead any more"))
    assert await bench.leads(second) and first.lives
    assert [placement.epoch for placement in await bench.placements()] == [1] * 11


async def test_killed_and_started_again_it_goes_on_within_ten_seconds(bench: Bench) -> None:
    first = bench.start()
    await bench.node("n1")
    await bench.job("a")
    await until(lambda: bench.placed("a"))
    first.signal(signal.SIGKILL)
    await bench.job("b")
    bench.start()
    await until(lambda: bench.placed("b"), patience=10)


async def test_told_to_end_it_resigns_at_once(bench: Bench) -> None:
    first = bench.start()
    await until(lambda: bench.leads(first))
    first.signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.process.wait, 10) == 0
    assert await leader(bench.kv) is None


async def test_it_outlives_a_restart_of_etcd_and_an_outage_longer_than_its_lease(bench: Bench) -> None:
    first = bench.start()
    await bench.node("n1")
    await bench.job("a")
    await until(lambda: bench.placed("a"))
    bench.server.restart()
    await until(lambda: _created(bench, "b"))
    await until(lambda: bench.placed("b"))
    bench.server.kill()
    await until(lambda: _says(first, "will campaign again"))
    bench.server.start()
    await until(lambda: _created(bench, "c"))
    await until(lambda: bench.placed("c"))
    assert first.lives
    assert [placement.epoch for placement in await bench.placements()] == [1, 1, 1]


async def test_started_before_etcd_it_waits_for_it(bench: Bench) -> None:
    bench.server.kill()
    first = bench.start()
    await until(lambda: _says(first, "will start over"))
    bench.server.start()
    await until(lambda: bench.leads(first))


async def test_broken_values_do_not_stop_it(bench: Bench) -> None:
    first = bench.start()
    await bench.node("n1")
    bad = keys.object_key(Job, "bad", "default")
    for key in (bad, keys.alive("n2"), keys.placement("n2", "default", "x"), keys.report("n1", "default", "y"), "/mx/kinds/odd"):
        await bench.kv.txn([], [Put(key, b'{"apiVersion":"mx/v1","kind":"Job","metadata":{"name":"bad"},"spec":{}}')])
    await bench.job("w")
    await until(lambda: bench.placed("w"))

    async def is_marked() -> bool:
        kv = await bench.kv.get(bad)
        return kv is not None and b'"Valid"' in kv.value

    await until(is_marked)
    events = await bench.kv.list(f"{keys.EVENTS}default/job.bad/")
    assert any(b'"Invalid"' in kv.value for kv in events.items)
    scheduled = find_condition((await bench.store.get(Job, "w")).status.conditions, "Scheduled")
    assert scheduled is not None and scheduled.status == "True" and first.lives


def test_without_endpoints_it_says_what_is_missing() -> None:
    command = [sys.executable, "-m", "reconciler", "--endpoints", ","]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2 and "names no endpoint" in done.stderr


async def _created(bench: Bench, name: str) -> bool:
    """True once the job is there, by whichever attempt."""
    if await bench.kv.get(keys.object_key(Job, name, "default")) is None:
        await bench.job(name)
    return True


async def _says(reconciler: Reconciler, text: str) -> bool:
    return text in reconciler.log.read_text()
