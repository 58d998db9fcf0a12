"""Does to a lab what a trial says, at the moment it says, and takes it back after a while."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from tests.system.faults.plan import Trial
from tests.system.faults.site import Site, send, service_of

LATE_SECONDS = 5.0  # for a moment that comes after the move was decided
CRIU_SECONDS = 5.0  # to wait for a criu that is about to begin
LITTLE_ROOM = 600 * 1024


@dataclass
class Harm:
    """One trial's fault."""

    site: Site
    trial: Trial
    tag: str
    source: str
    destination: str
    struck: str = ""
    """What was done; "" when the moment never came."""
    lasting: list["asyncio.Task[None]"] = field(default_factory=list)
    flipped: bool = False
    seen: list[str] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def at(self, node: str, moment: str, job: str) -> dict[str, int]:
        """The answer to an agent that is at ``moment``."""
        side = "source" if node == self.source else "destination"
        self.seen.append(f"{side}:{moment}")
        answer: dict[str, int] = {}
        if self.trial.flip is not None and not self.flipped and moment == "Connecting.after":
            self.flipped, answer = True, {"flip": self.trial.flip}
        if self.trial.refused and (side, moment) == ("destination", "Restoring.after"):
            self._last(self._end_restore())
        if not self.struck and (side, moment) == (self.trial.side, self.trial.moment):
            self.struck = self.trial.fault
            self.struck = self._strike()
            self.done.set()
        return answer

    async def over(self) -> None:
        """Waits until it has struck (the last moments may come after the decision) and all is taken back."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.done.wait(), LATE_SECONDS)
        for task in self.lasting:
            await task

    def _strike(self) -> str:
        word, _, who = self.trial.fault.partition(" ")
        if who.endswith("criu"):
            self._last(self._catch_criu(word, self.source if "source" in who else self.destination))
        elif self.trial.fault == "kill job":
            return self._kill_job()
        elif word in ("kill", "stop"):
            return self._signal(word, *service_of(who, self.source, self.destination))
        elif word in ("cut", "half-open"):
            self._cut(self.source if "source" in who else self.destination if who else None)
        elif word == "no":
            self.site.limit_room(self.destination, LITTLE_ROOM)
            self._last(self._make_room())
        elif word == "job":
            (self.site.hidden / self.tag / who).touch()
        return self.trial.fault

    def _signal(self, word: str, node: str, service: str) -> str:
        pid = self.site.daemon(node, service)
        if word == "kill":
            return f"kill {pid}" if send(pid, signal.SIGKILL) else f"{service} was not there"
        if pid is not None and send(pid, signal.SIGSTOP):
            self._last(self._go_on(pid))
        return f"stop {pid}"

    async def _go_on(self, pid: int) -> None:
        try:
            await asyncio.sleep(self.trial.seconds)
        finally:
            send(pid, signal.SIGCONT)

    def _kill_job(self) -> str:
        """The job's processes at the node where the moment is, or wherever they are."""
        here = self.source if self.trial.side == "source" else self.destination
        copies = self.site.copies(self.tag)
        chosen = next((key for key in copies if key[0] == here), next(iter(copies), None))
        killed = [pid for pid in copies.get(chosen, ()) if send(pid, signal.SIGKILL)] if chosen else []
        return f"killed {len(killed)} on {chosen[0] if chosen else 'no node'}"

    def _cut(self, deaf: str | None) -> None:
        """Both ways, or only the way to ``deaf``."""
        ways = [(self.source, self.destination), (self.destination, self.source)]
        chosen = [way for way in ways if deaf is None or way[1] == deaf]
        for sender, peer in chosen:
            self.site.deafen(sender, peer)
        self._last(self._mend(chosen))

    async def _mend(self, ways: list[tuple[str, str]]) -> None:
        try:
            await asyncio.sleep(self.trial.seconds)
        finally:
            for sender, peer in ways:
                self.site.heal(sender, peer)

    async def _make_room(self) -> None:
        try:
            await asyncio.sleep(self.trial.seconds)
        finally:
            self.site.limit_room(self.destination, None)

    async def _end_restore(self) -> None:
        """So that the destination refuses. The criu that fetches memory stays: it is needed when this one was missed."""
        found = await self._seen_criu(self.destination, b"restore")
        send(found, signal.SIGKILL)

    async def _catch_criu(self, word: str, node: str) -> None:
        """The first that begins on the node from now on."""
        found = await self._seen_criu(node)
        self.struck = f"{word} criu {found} on {node}" if found else f"no criu was seen on {node}"
        if word == "kill":
            send(found, signal.SIGKILL)
        elif send(found, signal.SIGSTOP) and found:
            self._last(self._go_on(found))

    async def _seen_criu(self, node: str, verb: bytes = b"") -> int | None:
        """None when none runs there within a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CRIU_SECONDS):
                while not (found := self.site.criu(node, verb)):  # noqa: ASYNC110 - another machine's processes wake nobody here
                    await asyncio.sleep(0.001)
                return found[0]
        return None

    def _last(self, work: Coroutine[Any, Any, None]) -> None:
        self.lasting.append(asyncio.ensure_future(work))


class Ear:
    """Listens for agents that are at a moment; passes them on to the harm of the trial under way."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.harm: Harm | None = None
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Ear":
        self._site.hidden.mkdir(exist_ok=True)
        path = self._site.hidden / "moments"
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._hear, path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # it may be dead by now: that is the point
            said = json.loads(await reader.readline() or b"{}")
            answer = await self.harm.at(said["node"], said["moment"], said["job"]) if said and self.harm else {}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()
