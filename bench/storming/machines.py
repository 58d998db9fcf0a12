"""The machines of a storm: many that ask for an address and what to boot, all at once, from one network card."""

import asyncio
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from bench.storming.dhcp import Kind, frame, read

FIRST_WAIT, WAITS = 4.0, 4  # seconds; doubled each time, as cards' ROMs do
_READ = 1 << 16
_BUFFER = 64 << 20
ALL_FRAMES = 3


@dataclass(frozen=True, slots=True)
class Bare:
    """A machine, and what it should get."""

    mac: str
    name: str
    address: str

    @property
    def raw(self) -> bytes:
        return bytes.fromhex(self.mac.replace(":", ""))


@dataclass
class Outcome:
    """Seconds of each machine that came through, how often somebody asked again, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    again: int = 0
    wrong: list[str] = field(default_factory=list)
    wall: float = 0.0


class Wire:
    """All machines' frames on one card. Made inside the network namespace."""

    def __init__(self, card: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_FRAMES))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((card, 0))
        self._socket.setblocking(False)
        self._waiting: dict[tuple[int, bytes, Kind], asyncio.Future[tuple[str, str, str]]] = {}
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _hear(self) -> None:
        while True:
            try:
                answer = read(self._socket.recv(_READ))
            except BlockingIOError:
                return
            waiting = self._waiting.get((answer.xid, answer.mac, answer.kind)) if answer else None
            if answer is not None and waiting is not None and not waiting.done():
                waiting.set_result((answer.address, answer.server, answer.file))

    async def ask(self, message: bytes, expected: tuple[int, bytes, Kind], outcome: Outcome) -> tuple[str, str, str]:
        """Address, server, file. Asks again when nobody answers; TimeoutError in the end."""
        wait = FIRST_WAIT
        for attempt in range(WAITS):
            outcome.again += attempt > 0
            future = self._waiting[expected] = asyncio.get_running_loop().create_future()
            await asyncio.get_running_loop().sock_sendall(self._socket, message)
            try:
                return await asyncio.wait_for(future, wait)
            except TimeoutError:
                wait *= 2
            finally:
                self._waiting.pop(expected, None)
        raise TimeoutError


async def all_lease(wire: Wire, machines: Sequence[Bare], *, ipxe: bool, program: str) -> Outcome:
    """Every machine gets its own address, and is told to load ``program``."""
    outcome = Outcome()
    begun = time.perf_counter()
    await asyncio.gather(*(_lease(wire, machine, number, ipxe, program, outcome) for number, machine in enumerate(machines)))
    outcome.wall = time.perf_counter() - begun
    return outcome


async def _lease(wire: Wire, machine: Bare, number: int, ipxe: bool, program: str, outcome: Outcome) -> None:
    xid, begun = 0x57000000 + number + (ipxe << 16), time.perf_counter()
    discover = frame(Kind.DISCOVER, machine.raw, xid, ipxe=ipxe)
    try:
        address, server, _ = await wire.ask(discover, (xid, machine.raw, Kind.OFFER), outcome)
        request = frame(Kind.REQUEST, machine.raw, xid, ipxe=ipxe, address=address, server=server)
        address, _, file = await wire.ask(request, (xid, machine.raw, Kind.ACK), outcome)
    except TimeoutError:
        outcome.wrong.append(f"{machine.name}: no answer to DHCP")
        return
    outcome.seconds.append(time.perf_counter() - begun)
    if address != machine.address or not file.startswith(program):
        outcome.wrong.append(f"{machine.name}: got {address} and {file!r}")


async def all_ask(base: str, machines: Sequence[Bare]) -> Outcome:
    """Every machine asks what to boot, over a connection of its own."""
    outcome = Outcome()
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        begun = time.perf_counter()
        await asyncio.gather(*(_ask(session, base, machine, outcome) for machine in machines))
        outcome.wall = time.perf_counter() - begun
    return outcome


async def _ask(session: aiohttp.ClientSession, base: str, machine: Bare, outcome: Outcome) -> None:
    begun = time.perf_counter()
    try:
        async with session.get(
            f"{base}/boot", params={"mac": machine.mac, "ip": machine.address, "modules": "0040,,,", "cores": "08,"}
        ) as answer:
            script = await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome.wrong.append(f"{machine.name}: {error!r}")
        return
    outcome.seconds.append(time.perf_counter() - begun)
    if f" ip={machine.address}::" not in script:
        outcome.wrong.append(f"{machine.name}: was told {script.splitlines()[:2]}")
