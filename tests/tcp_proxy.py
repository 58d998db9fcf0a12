"""A TCP proxy that fails on demand: the network between a client and a real server, for tests."""

import asyncio

CHUNK = 1 << 16


class _Link:
    """One client's connection. ``flow`` cleared means that nothing passes and nobody is told."""

    def __init__(self, task: "asyncio.Task[None]", flowing: bool) -> None:
        self.task = task
        self.flow = asyncio.Event()
        if flowing:
            self.flow.set()


class TcpProxy:
    """Forwards to ``backend`` ("address:port"). Runs in the test's event loop."""

    def __init__(self, backend: str) -> None:
        host, _, port = backend.rpartition(":")
        self.endpoint = ""
        self.accepted = 0
        self._backend = (host, int(port))
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._frozen = False
        self._down = False
        self._deaf = False
        self._budgets: list[int] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint = "{}:{}".format(*self._server.sockets[0].getsockname())

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Breaks all connections; new ones work."""
        tasks = {link.task for link in self._links}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def go_down(self) -> None:
        """Breaks all connections and hangs up on new ones, until ``come_up``."""
        self._down = True
        await self.cut()

    def come_up(self) -> None:
        self._down = False

    def drop_silently(self) -> None:
        """The connections of now carry nothing any more, and nobody is told; new ones work."""
        for link in self._links:
            link.flow.clear()

    def freeze(self) -> None:
        """Like ``drop_silently``, for new connections too, until ``thaw``."""
        self._frozen = True
        self.drop_silently()

    def thaw(self) -> None:
        self._frozen = False
        for link in self._links:
            link.flow.set()

    async def lose_answers(self) -> None:
        """Requests get through, answers do not, until ``find_answers``."""
        self._deaf = True

    async def find_answers(self) -> None:
        """Answers get through again, on new connections: the old ones miss bytes."""
        self._deaf = False
        await self.cut()

    def cut_after(self, *answered: int) -> None:
        """Breaks a connection once so many more bytes of answers have passed; the next one after the next number."""
        self._budgets = list(answered)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(task, not self._frozen)
        self._links.add(link)
        self.accepted += 1
        try:
            if not self._down:
                await self._forward(link, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # one of the two ends is gone, or the test cut the line: hanging up is all there is to do
        finally:
            self._links.discard(link)
            writer.transport.abort()

    async def _forward(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._backend)
        pumps = {
            asyncio.create_task(self._pump(link, reader, far_writer, answers=False)),
            asyncio.create_task(self._pump(link, far_reader, writer, answers=True)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            far_writer.transport.abort()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(CHUNK):
            await link.flow.wait()
            if answers and self._deaf:
                continue
            if answers and self._spent(len(data)):
                return
            writer.write(data)
            await writer.drain()

    def _spent(self, answered: int) -> bool:
        """Whether this connection's number of bytes has passed."""
        if not self._budgets:
            return False
        self._budgets[0] -= answered
        if self._budgets[0] > 0:
            return False
        self._budgets.pop(0)
        return True
