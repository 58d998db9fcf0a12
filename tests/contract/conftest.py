"""One set of tests, two stores: every test that takes ``backend`` runs on memory and on real etcd.

A backend is a server and ``kv``, the client under test, whose line to the server can be made to fail. ``other`` is a second client
whose line is always good.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import pytest

from store.etcd import EtcdKV
from store.etcd_channel import KeepAlive
from store.kv import KV, Batch
from store.memory import MemoryKV
from tests.etcd_server import EtcdServer
from tests.tcp_proxy import TcpProxy

TIMEOUT = 1.0  # seconds a call may take
PAGE = 3  # keys a page, so that every list test pages
PATIENCE = 20.0  # seconds until a test says that something never came
_numbers = itertools.count()


class Backend(Protocol):
    kv: KV
    other: KV

    async def cut(self) -> None:
        """Breaks kv's connection; it may connect again at once."""

    async def go_down(self) -> None:
        """kv can reach nobody, and knows."""

    async def come_up(self) -> None: ...

    async def stall(self) -> None:
        """kv can reach nobody, and is not told."""

    async def resume(self) -> None: ...

    async def lose_answer(self) -> None:
        """kv's next transaction is carried out, but its answer does not come."""

    async def restart(self) -> None:
        """The server dies and comes back."""

    async def compact(self, revision: int) -> None: ...

    async def pass_time(self, seconds: float) -> None: ...


class Memory:
    def __init__(self) -> None:
        self.server = MemoryKV(timeout=TIMEOUT)
        self.kv, self.other = self.server.client(), self.server.client()

    async def cut(self) -> None:
        self.kv.drop_watches()

    async def go_down(self) -> None:
        self.kv.down = True

    async def come_up(self) -> None:
        self.kv.down = False

    async def stall(self) -> None:
        self.kv.delay = 2 * TIMEOUT

    async def resume(self) -> None:
        self.kv.delay = 0

    async def lose_answer(self) -> None:
        self.kv.fail_next("txn", applied=True)

    async def restart(self) -> None:
        self.kv.drop_watches()
        self.other.drop_watches()

    async def compact(self, revision: int) -> None:
        await self.other.compact(revision)

    async def pass_time(self, seconds: float) -> None:
        self.server.advance(seconds)

    async def close(self) -> None:
        await self.kv.close()


class Etcd:
    def __init__(self, server: EtcdServer) -> None:
        self.server = server
        self.proxy = TcpProxy(server.endpoint)
        self.kv: EtcdKV
        self.other: EtcdKV

    async def start(self) -> None:
        await self.proxy.start()
        self.kv = connect(self.proxy.endpoint)
        self.other = connect(self.server.endpoint)

    async def cut(self) -> None:
        await self.proxy.cut()

    async def go_down(self) -> None:
        await self.proxy.go_down()

    async def come_up(self) -> None:
        self.proxy.come_up()

    async def stall(self) -> None:
        self.proxy.freeze()

    async def resume(self) -> None:
        self.proxy.thaw()

    async def lose_answer(self) -> None:
        await self.kv.status()  # connected, so that only the answer is missing
        await self.proxy.lose_answers()

        async def find() -> None:
            await asyncio.sleep(TIMEOUT)
            await self.proxy.find_answers()

        self._finding = asyncio.create_task(find())

    async def restart(self) -> None:
        self.server.restart()

    async def compact(self, revision: int) -> None:
        await self.other.compact(revision)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self.kv.close()
        await self.other.close()
        await self.proxy.stop()


def connect(endpoint: str, **options: float) -> EtcdKV:
    """Notices a dead peer within 2 s and asks for progress every 0.3 s, to keep the tests short."""
    keep_alive = KeepAlive(idle=1.0, patience=1.0)
    return EtcdKV.connect([endpoint], timeout=TIMEOUT, page=PAGE, progress=0.3, keep_alive=keep_alive)


class Reader:
    """Reads a watch in a task of its own and remembers everything it saw."""

    def __init__(self, kv: KV, prefix: str, revision: int) -> None:
        self.batches: list[Batch] = []
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._run(kv, prefix, revision))

    @property
    def seen(self) -> list[tuple[str, bytes | None]]:
        """(last part of the key, value or None for a deletion), in order."""
        changes = [change for batch in self.batches for change in batch.changes]
        return [(c.kv.key.rpartition("/")[2], None if c.deleted else c.kv.value) for c in changes]

    @property
    def revision(self) -> int:
        return self.batches[-1].revision if self.batches else 0

    async def until(self, count: int) -> list[tuple[str, bytes | None]]:
        """What was seen once that were ``count`` changes."""
        await self._wait(lambda: len(self.seen) >= count)
        return self.seen

    async def until_revision(self, revision: int) -> None:
        await self._wait(lambda: self.revision >= revision)

    async def _wait(self, happened: "Condition") -> None:
        async def news() -> None:
            async with self._news:
                await self._news.wait_for(lambda: happened() or self._task.done())

        await asyncio.wait_for(news(), PATIENCE)
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self, kv: KV, prefix: str, revision: int) -> None:
        try:
            async for batch in kv.watch(prefix, revision=revision):
                async with self._news:
                    self.batches.append(batch)
                    self._news.notify_all()
        finally:
            async with self._news:
                self._news.notify_all()


class Condition(Protocol):
    def __call__(self) -> bool: ...


async def eventually(happened: "AsyncCondition", seconds: float = PATIENCE) -> None:
    """Asks until it is so."""
    async with asyncio.timeout(seconds):
        while not await happened():  # noqa: ASYNC110 - a server elsewhere sets no Event
            await asyncio.sleep(0.02)


class AsyncCondition(Protocol):
    async def __call__(self) -> bool: ...


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@pytest.fixture
async def etcd(etcd_server: EtcdServer) -> AsyncIterator[Etcd]:
    backend = Etcd(etcd_server)
    await backend.start()
    yield backend
    await backend.close()


@pytest.fixture(params=["memory", "etcd"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Memory | Etcd]:
    if request.param == "memory":
        memory = Memory()
        yield memory
        await memory.close()
        return
    etcd = Etcd(request.getfixturevalue("etcd_server"))
    await etcd.start()
    yield etcd
    await etcd.close()


@pytest.fixture
def prefix() -> str:
    """Keys of this test alone: the tests share one etcd."""
    return f"/t/{next(_numbers)}/"
