"""A person's conversation with a job, wherever it is: finds its node, connects to the agent, comes back after a move.

Nothing is lost or doubled by a lost connection; what is typed meanwhile is kept. See nodeagent/stdio for how that is done.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from crds import keys
from crds.job import Job
from crds.load import Alive
from crds.organisations import NODES
from mxctl.core.jobs import ended, job_key, same_job
from mxctl.core.keyboard import BLOCK, DetachKeys, Keyboard, say, show, window
from mxctl.core.session import Session
from mxctl.core.watching import Watched, watching
from nodeagent.channel import Channel
from nodeagent.credentials import Credentials, Files
from nodeagent.errors import AgentError, PeerLost
from nodeagent.frames import Open, Ready, Refused
from nodeagent.stdio.client import Client, Exited, Missed, Printed, Renewed
from nodeagent.stdio.frames import PURPOSE, BadFrame
from nodeagent.tcp import Dialer
from store.errors import StoreError

DIAL_SECONDS = 5.0
STARTING_SECONDS = 15.0
"""Until an agent has answered; it may have to start something first."""
SILENCE = 15.0
"""Seconds in which an agent must take what we send."""
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds between attempts to come back; the last one again and again."""
PATIENCE = 3.0
"""Seconds after which the person is told that, and why, there is no connection."""
FAREWELL = 2.0
"""Seconds for the last words to an agent, and for the job's end to be known after its program's."""
STOPPED = 128
MOST_SIGNALS = 3
"""So many Ctrl-C the job may overhear; with the next we leave it alone."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The program ended with this code, and all it printed was shown."""

    code: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The job ended or was deleted (``job`` None) without telling us; what it printed last may be missing."""

    job: Job | None


@dataclass(frozen=True, slots=True)
class Detached:
    """We left, the job goes on. ``code`` is what the command ends with."""

    code: int = 0


@dataclass(frozen=True, slots=True)
class Broken:
    """The program is over, though the job is not: why, and what the command ends with."""

    reason: str
    code: int


Outcome = Ended | Gone | Detached | Broken


class Talk:
    """One conversation. ``detach_keys`` empty: nothing detaches. ``typing``: standard input goes to the job."""

    def __init__(self, session: Session, job: Job, client: Client, *, typing: bool, detach_keys: bytes = b"") -> None:
        self._session, self._job, self._client = session, job, client
        self._typing = typing
        self._keys = DetachKeys(detach_keys)
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._printed: asyncio.Queue[Printed | Exited] = asyncio.Queue()
        self._news = asyncio.Event()
        """Something is to be sent."""
        self._room = asyncio.Event()
        """More input may be fed."""
        self._signals = 0
        self._told_exit = False
        self._connected = False

    async def run(self) -> Outcome:
        """Until the job ends or the person leaves. Raises Failure, StoreError."""
        async with asyncio.TaskGroup() as group:
            with self._hearing_signals(), Keyboard() as keyboard:
                tasks = [group.create_task(self._stay_connected()), group.create_task(self._show())]
                if self._typing:
                    tasks.append(group.create_task(self._type(keyboard)))
                outcome = await self._outcome
                if isinstance(outcome, Detached):
                    await self._leave()
                for task in tasks:
                    task.cancel()
        return outcome

    async def _leave(self) -> None:
        """What was typed goes on its way first; then nothing is kept for us."""
        self._news.set()
        await self._flushed()
        self._client.bye()
        self._news.set()
        await self._flushed()

    def _decide(self, outcome: Outcome) -> None:
        """The first counts; but once the exit is told, it is, although we may find nobody any more when we take our leave."""
        if not self._outcome.done() and not (self._told_exit and isinstance(outcome, Broken)):
            self._outcome.set_result(outcome)

    # --- the person's end ---

    async def _type(self, keyboard: Keyboard) -> None:
        while True:
            while not self._client.room:
                self._room.clear()
                await self._room.wait()
            typed = await keyboard.read(min(BLOCK, self._client.room))
            data, leave = self._keys.feed(typed)
            self._client.feed(data)
            if not typed:
                self._client.end_input()
            self._news.set()
            if leave:
                self._decide(Detached())
            if leave or not typed:
                return

    async def _show(self) -> None:
        while True:
            event = await self._printed.get()
            if isinstance(event, Exited):
                self._client.bye()
                self._news.set()
                await self._flushed()
                self._decide(Ended(event.code))
                return
            try:
                await show(event.stream, event.data)
            except BrokenPipeError:  # as a program on this machine would hear
                self._client.signal(signal.SIGPIPE)
                self._decide(Detached(STOPPED + signal.SIGPIPE))
                return
            self._client.shown(event.stream, len(event.data))
            self._printed.task_done()
            self._news.set()

    async def _flushed(self) -> None:
        """Until what we said last is on its way; not for long."""
        end = time.monotonic() + FAREWELL
        while self._connected and self._news.is_set() and time.monotonic() < end:  # noqa: ASYNC110 - waits for the event to be cleared
            await asyncio.sleep(0.005)

    @contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGINT: self._pass_on,
            signal.SIGTERM: self._pass_on,
            signal.SIGHUP: lambda number: self._decide(Detached(STOPPED + number)),
            signal.SIGWINCH: self._resize,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler, number)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _pass_on(self, number: int) -> None:
        """To the job, as docker does; with a terminal Ctrl-C is a key and not a signal, so then somebody wants *us* to end."""
        self._signals += 1
        if self._client.window or self._signals > MOST_SIGNALS or not self._connected:
            self._decide(Detached(STOPPED + number))
        self._client.signal(number)
        self._news.set()

    def _resize(self, _number: int) -> None:
        if self._client.window:
            self._client.resize(*window())
            self._news.set()

    # --- the job's end ---

    async def _stay_connected(self) -> None:
        """Connects, and again whenever the connection is lost, until the job has ended."""
        with ThreadPoolExecutor(1) as streams:
            dialer = Dialer(self._credentials(), streams, silence=SILENCE)
            async with watching(self._session, job_key(self._job)) as watched:
                while await self._exists(watched):
                    async with self._connection(watched, dialer) as channel:
                        if channel is not None:
                            await self._talk(channel)
                            self._connected = False

    def _credentials(self) -> Credentials | None:
        files = self._session.context.files
        return Credentials(Files(*files)) if files else None

    async def _exists(self, watched: Watched) -> bool:
        now = same_job(watched.informer, self._job)
        if now is not None and not ended(now):
            return True
        if not self._told_exit:
            await self._printed.join()
            self._decide(Gone(now))
        return False

    @asynccontextmanager
    async def _connection(self, watched: Watched, dialer: Dialer) -> AsyncIterator[Channel | None]:
        """The next connection; None when the job ended before there was one."""
        channel = await self._reach(watched, dialer)
        try:
            yield channel
        finally:
            if channel is not None:
                channel.close()

    async def _reach(self, watched: Watched, dialer: Dialer) -> Channel | None:
        began, told = time.monotonic(), False
        for attempt in range(1 << 60):
            watched.forget()
            now = same_job(watched.informer, self._job)
            if now is None or ended(now):
                return None
            try:
                channel = await self._open(now, dialer)
            except (AgentError, StoreError, OSError) as error:
                if not told and time.monotonic() - began > PATIENCE:
                    told = True
                    say(f"[{self._job.label}: no connection at the moment: {error}; waiting]")
            else:
                if told:
                    say(f"[{self._job.label}: connected again, on {now.status.node}]")
                return channel
            await _moment(watched, PAUSES[min(attempt, len(PAUSES) - 1)])
        raise AssertionError("unreachable")

    async def _open(self, now: Job, dialer: Dialer) -> Channel:
        """One attempt. Raises PeerLost and other AgentErrors, StoreError."""
        node = now.status.node
        if node is None:
            raise PeerLost(f"it is {now.status.phase}")
        found = await self._session.kv.get(keys.alive(node))
        if found is None:
            raise PeerLost(f"node {node} is silent")
        address = Alive.model_validate_json(found.value).address
        channel = await dialer.dial(address, organisation=NODES, node=node, timeout=DIAL_SECONDS)
        try:
            await channel.send(self._wish(now), timeout=DIAL_SECONDS)
            answer = await channel.receive(timeout=STARTING_SECONDS)
            if isinstance(answer, Refused):
                if answer.exit_code is not None:
                    self._decide(Broken(answer.reason, answer.exit_code))
                raise PeerLost(answer.reason)
            if not isinstance(answer, Ready):
                raise PeerLost(f"node {node} answered {answer.kind}")
        except BaseException:
            channel.close()
            raise
        return channel

    def _wish(self, now: Job) -> Open:
        """What the agent is asked for."""
        return Open(purpose=PURPOSE, body={"namespace": now.namespace, "name": now.name, "uid": now.metadata.uid})

    async def _talk(self, channel: Channel) -> None:
        """Until the connection is lost."""
        self._client.begin()
        self._news.set()
        sending = asyncio.create_task(self._send(channel))
        hearing = asyncio.create_task(self._hear(channel))
        try:
            await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, hearing):
                task.cancel()
            await asyncio.wait({sending, hearing})

    async def _send(self, channel: Channel) -> None:
        try:
            while True:
                if data := self._client.outgoing():
                    await channel.write(data, timeout=SILENCE)
                    continue
                self._news.clear()
                await self._news.wait()
        except (AgentError, OSError):
            return

    async def _hear(self, channel: Channel) -> None:
        try:
            while data := await channel.read(BLOCK, timeout=None):
                for event in self._client.receive(data):
                    self._note(event)
                self._connected = self._client.welcome
                self._room.set()
                self._news.set()
        except (AgentError, OSError, BadFrame):
            return

    def _note(self, event: object) -> None:
        if isinstance(event, Printed | Exited):
            self._told_exit = self._told_exit or isinstance(event, Exited)
            self._printed.put_nowait(event)
        elif isinstance(event, Missed):
            say(f"[{self._job.label}: {event.count} bytes were printed meanwhile; see mxctl logs {self._job.name}]")
        elif isinstance(event, Renewed):
            say(f"[{self._job.label}: it was started anew, or taken back to a checkpoint]")


async def _moment(watched: Watched, seconds: float) -> None:
    """Until something happens to the job, but not longer."""
    try:
        async with asyncio.timeout(seconds):
            await watched.changes()
    except TimeoutError:
        return
