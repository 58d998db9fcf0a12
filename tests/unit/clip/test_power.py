"""Power: drivers against fakes, and the switchboard that acts on requests."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clip.power.credentials import read_login
from clip.power.driver import PowerError
from clip.power.drivers import make_driver
from clip.power.ipmi import IpmiDriver
from clip.power.qmp import QmpDriver
from clip.power.redfish import RedfishDriver
from clip.power.switchboard import Switchboard
from clip.power.wol import WolDriver
from crds import keys
from crds.job import Job, JobPhase
from crds.load import Alive
from crds.meta import Metadata, Model
from crds.node import Node, NodeSpec
from crds.placement import Placement, Role
from crds.power import PowerAction, PowerDriver, PowerOutcome, PowerPhase, PowerRequest, PowerSpec, PowerState
from crds.report import JobReport, ReportPhase
from store.kv import Delete, Put
from store.memory import MemoryKV
from store.store import Store
from tests.fakes.qemu import FakeQemu
from tests.qmp_contract import switches

NOW = datetime(2026, 1, 1, tzinfo=UTC)


# --- drivers ---


async def test_qmp_keeps_the_contract(tmp_path: Path) -> None:
    async with FakeQemu(tmp_path / "q") as qemu:
        await switches(QmpDriver(str(qemu.path)))
        assert qemu.boots == 4  # on after off, and two resets


async def test_what_qemu_cannot_do_is_told(tmp_path: Path) -> None:
    driver = QmpDriver(str(tmp_path / "q"))
    with pytest.raises(PowerError, match="does the machine's process run"):
        await driver.on()
    async with FakeQemu(tmp_path / "q", refuses={"system_reset"}):
        with pytest.raises(PowerError, match="system_reset is not possible now"):
            await driver.reset()
    async with FakeQemu(tmp_path / "g", garbage=True):
        with pytest.raises(PowerError, match="does not speak QMP"):
            await QmpDriver(str(tmp_path / "g")).status()


class FakeSession:
    """pyghmi's Command, as far as it is used."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.answer: dict[str, Any] = {"powerstate": "on"}
        self.open = 0
        self.ipmi_session = self

    def logout(self) -> None:
        self.open -= 1

    def __call__(self) -> "FakeSession":
        self.open += 1
        return self

    def get_power(self) -> dict[str, Any]:
        return self.answer

    def set_power(self, word: str) -> dict[str, Any]:
        self.calls.append(("power", word))
        return self.answer

    def set_bootdev(self, word: str) -> dict[str, Any]:
        self.calls.append(("boot", word))
        return self.answer


async def test_ipmi_asks_the_controller_and_logs_out() -> None:
    session = FakeSession()
    driver = IpmiDriver("bmc", session)
    assert await driver.status() == PowerState.ON
    await driver.boot_from_network()
    await driver.reset()
    await driver.off()
    await driver.on()
    assert session.calls == [("boot", "network"), ("power", "boot"), ("power", "off"), ("power", "on")]
    session.answer = {"error": "insufficient privilege"}
    with pytest.raises(PowerError, match="ipmi at bmc: set_power: insufficient privilege"):
        await driver.on()
    assert session.open == 0


class FakeSystem:
    """sushy's System, as far as it is used."""

    def __init__(self, state: str) -> None:
        self.power_state = state
        self.calls: list[tuple[object, ...]] = []

    def reset_system(self, word: str) -> None:
        if word == "On" and self.power_state == "On":
            raise RuntimeError("409: already on")
        self.calls.append((word,))
        self.power_state = "Off" if word == "ForceOff" else "On"

    def set_system_boot_options(self, **options: str) -> None:
        self.calls.append(tuple(sorted(options.items())))


async def test_redfish_asks_for_what_the_state_allows() -> None:
    system = FakeSystem("Off")
    driver = RedfishDriver("bmc", lambda: system)
    await driver.boot_from_network()
    await driver.reset()
    await driver.on()
    assert await driver.status() == PowerState.ON
    await driver.reset()
    await driver.off()
    await driver.off()
    assert system.calls == [(("enabled", "Once"), ("target", "Pxe")), ("On",), ("ForceRestart",), ("ForceOff",)]


async def test_wake_on_lan_only_wakes() -> None:
    sent: list[tuple[str, str]] = []
    driver = WolDriver("52:54:00:00:00:01", "10.77.0.255", lambda mac, to: sent.append((mac, to)))
    await driver.on()
    assert sent == [("52:54:00:00:00:01", "10.77.0.255")]
    assert await driver.status() == PowerState.UNKNOWN
    with pytest.raises(PowerError, match="cannot switch off"):
        await driver.off()


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (None, "node/n1 has no power driver: set spec.power"),
        (PowerSpec(driver=PowerDriver.QMP), "spec.power.address is not set"),
        (PowerSpec(driver=PowerDriver.IPMI, address="bmc"), "spec.power.credentials is not set"),
        (PowerSpec(driver=PowerDriver.IPMI, address="bmc:x", credentials="bmc"), "not HOST or HOST:PORT"),
        (PowerSpec(driver=PowerDriver.REDFISH, address="bmc", credentials="none"), "No such file"),
        (PowerSpec(driver=PowerDriver.WOL), "wake-on-lan needs spec.mac"),
    ],
)
def test_a_driver_that_cannot_be_is_told(tmp_path: Path, spec: PowerSpec | None, error: str) -> None:
    with pytest.raises(PowerError, match=error):
        make_driver(Node(metadata=Metadata(name="n1"), spec=NodeSpec(power=spec)), tmp_path)


def test_credentials_are_for_root_alone_and_never_told(tmp_path: Path) -> None:
    file = tmp_path / "bmc"
    file.write_text('{"user": "mx", "password": "geheim"}')
    file.chmod(0o644)
    with pytest.raises(PowerError, match="chmod 600"):
        read_login(tmp_path, "bmc")
    file.chmod(0o600)
    login = read_login(tmp_path, "bmc")
    assert login.password == "geheim"
    assert "geheim" not in repr(login)
    file.write_text('{"user": "mx", "pass": "geheim"}')
    with pytest.raises(PowerError) as told:
        read_login(tmp_path, "bmc")
    assert "geheim" not in str(told.value)


# --- the switchboard ---


class Machine:
    """A driver with knobs: ``error``, ``hang``, ``die_at``."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.error = ""
        self.hold: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def _do(self, what: str) -> None:
        self.done.append(what)
        self.begun.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.error:
            raise PowerError(self.error)

    async def status(self) -> PowerState:
        return PowerState.ON

    async def on(self) -> None:
        await self._do("on")

    async def off(self) -> None:
        await self._do("off")

    async def reset(self) -> None:
        await self._do("reset")

    async def boot_from_network(self) -> None:
        self.done.append("network")


class Head:
    """A switchboard over a store in memory, with one node n1 and its machine."""

    def __init__(self) -> None:
        self.kv = MemoryKV()
        self.store = Store(self.kv, clock=lambda: NOW)
        self.machine = Machine()
        self.board = Switchboard(self.kv, lambda _: self.machine, lambda: NOW)

    async def start(self) -> "Head":
        await self.store.create(Node(metadata=Metadata(name="n1")))
        await self.alive("b1")
        return self

    async def alive(self, boot: str) -> None:
        await self.put(keys.alive("n1"), Alive(boot_id=boot, agent_version="1", address="a:1", since=NOW))

    async def put(self, key: str, value: Model) -> None:
        await self.kv.txn((), (Put(key, value.to_json()),))

    async def ask(self, action: PowerAction, number: str = "1", **more: Any) -> None:
        await self.put(keys.power_request("n1"), PowerRequest(id=number, action=action, requested_at=NOW, **more))

    async def outcome(self) -> PowerOutcome:
        kv = await self.kv.get(keys.power_outcome("n1"))
        assert kv is not None
        return PowerOutcome.model_validate_json(kv.value)

    async def handle(self) -> PowerOutcome:
        while await self.board.handle("n1"):
            pass
        return await self.outcome()

    async def job(self, role: Role = Role.RUN, phase: JobPhase = JobPhase.RUNNING) -> None:
        made = await self.store.create(Job.model_validate({"metadata": {"name": "w"}, "spec": {"command": ["x"]}}))
        await self.store.change_status(Job, "w", None, lambda found: setattr(found.status, "phase", phase))
        placement = Placement(role=role, uid=made.metadata.uid or "", epoch=1, spec=made.spec)
        await self.put(keys.placement("n1", "default", "w"), placement)


@pytest.fixture
async def head() -> Head:
    return await Head().start()


async def test_a_request_is_done_once(head: Head) -> None:
    await head.ask(PowerAction.RESET)
    assert (await head.handle()).phase == PowerPhase.DONE
    await head.handle()
    assert head.machine.done == ["network", "reset"]
    await head.ask(PowerAction.OFF, "2")
    assert (await head.handle()).id == "2"
    assert head.machine.done[2:] == ["off"]


async def test_a_reset_that_was_interrupted_is_not_done_again(head: Head) -> None:
    head.machine.hold = asyncio.Event()
    await head.ask(PowerAction.RESET)
    acting = asyncio.create_task(head.board.handle("n1"))
    await head.machine.begun.wait()
    acting.cancel()
    await asyncio.gather(acting, return_exceptions=True)
    assert (await head.outcome()).phase == PowerPhase.ACTING
    fresh = Switchboard(head.kv, lambda _: head.machine, lambda: NOW)
    await fresh.handle("n1")
    assert (await head.outcome()).phase == PowerPhase.UNKNOWN
    assert head.machine.done.count("reset") == 1


async def test_switching_on_that_was_interrupted_is_done_again(head: Head) -> None:
    await head.ask(PowerAction.ON)
    await head.put(keys.power_outcome("n1"), PowerOutcome(id="1", phase=PowerPhase.ACTING, time=NOW))
    assert (await head.handle()).phase == PowerPhase.DONE
    assert head.machine.done == ["network", "on"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"boot_id": "b0"}, "was restarted meanwhile"),
        ({"expires_at": NOW - timedelta(seconds=1)}, "came too late"),
    ],
)
async def test_what_a_request_relies_on_has_to_hold(head: Head, more: dict[str, Any], why: str) -> None:
    await head.ask(PowerAction.RESET, **more)
    found = await head.handle()
    assert found.phase == PowerPhase.REFUSED
    assert why in found.message
    assert head.machine.done == []


async def test_a_machine_with_jobs_is_not_switched_off(head: Head) -> None:
    await head.job()
    await head.ask(PowerAction.OFF, only_empty=True)
    found = await head.handle()
    assert (found.phase, found.message) == (
        PowerPhase.REFUSED,
        "jobs live on it: default/w: move them away first (mxctl drain n1)",
    )
    await head.ask(PowerAction.OFF, "2", only_empty=False)
    assert (await head.handle()).phase == PowerPhase.DONE


@pytest.mark.parametrize(("role", "phase"), [(Role.RUN, JobPhase.SUCCEEDED), (Role.DROP, JobPhase.RUNNING)])
async def test_what_is_over_is_in_nobody_s_way(head: Head, role: Role, phase: JobPhase) -> None:
    await head.job(role, phase)
    await head.ask(PowerAction.RESET, only_empty=True)
    assert (await head.handle()).phase == PowerPhase.DONE


async def test_a_copy_that_nobody_ordered_counts_too(head: Head) -> None:
    await head.put(keys.report("n1", "default", "w"), JobReport(uid="u", epoch=1, phase=ReportPhase.FROZEN, boot_id="b1"))
    await head.ask(PowerAction.RESET, only_empty=True)
    assert (await head.handle()).phase == PowerPhase.REFUSED


async def test_what_fails_is_told(head: Head) -> None:
    head.machine.error = "node/n1: no route"
    await head.ask(PowerAction.ON)
    found = await head.handle()
    assert (found.phase, found.message) == (PowerPhase.FAILED, "node/n1: no route")


async def test_it_serves_what_comes_and_what_was_there(head: Head) -> None:
    await head.ask(PowerAction.ON)
    serving = asyncio.create_task(head.board.run())
    try:
        async with asyncio.timeout(5):
            await until_done(head, "1")
            await head.ask(PowerAction.OFF, "2")
            await until_done(head, "2")
            await head.kv.txn((), (Delete(keys.power_request("n1")),))
            await head.ask(PowerAction.STATUS, "3")
            await until_done(head, "3")
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert head.machine.done == ["network", "on", "off"]


async def until_done(head: Head, number: str) -> None:
    async for _ in head.kv.watch(keys.POWER, revision=1):
        kv = await head.kv.get(keys.power_outcome("n1"))
        if kv is not None:
            found = PowerOutcome.model_validate_json(kv.value)
            if found.id == number and found.phase == PowerPhase.DONE:
                return
