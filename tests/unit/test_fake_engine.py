"""The fake engine passes the contract; its knobs do what they say."""

import socket
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from crds.network import FEATURE
from nodeagent.engine import Copy, Engine, PageWire
from nodeagent.errors import EngineFailed
from tests.engine_contract import DEADLINE, LONG, EngineContract, Heard, copy, moved, started
from tests.fakes.engine import AgentCrashed, FakeEngine, Knobs
from tests.fakes.world import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def engine(world: World) -> FakeEngine:
    return FakeEngine(world, "n1", Knobs(delay={"pages": 0.05}, features=[FEATURE, "post-copy", "pre-copy"]))


@pytest.fixture
def restarted(world: World) -> Callable[[], Awaitable[Engine]]:
    async def restart() -> Engine:
        return FakeEngine(world, "n1")

    return restart


@pytest.fixture
def images(tmp_path: Path) -> Callable[[], Path]:
    number = count()

    def fresh() -> Path:
        directory = tmp_path / f"images{next(number)}"
        directory.mkdir()
        return directory

    return fresh


@pytest.fixture
def heard(world: World) -> Heard:
    async def ask(which: Copy) -> bool:
        return world.heard(which)

    return ask


@pytest.fixture
def wires() -> Callable[[], Awaitable[tuple[PageWire, PageWire]]]:
    async def pair() -> tuple[PageWire, PageWire]:
        out, into = socket.socketpair()
        return PageWire(out), PageWire(into)

    return pair


class TestFake(EngineContract):
    """The contract."""

    torn_memory = 0


async def test_two_running_copies_are_counted(world: World, engine: FakeEngine, images: Callable[[], Path]) -> None:
    old = await started(engine, copy("two"), *LONG)
    assert world.most_running(old.copy.uid) == 1
    new = await moved(engine, old, images())
    assert world.running(old.copy.uid) == []
    await new.resume()
    assert world.most_running(old.copy.uid) == 1
    await old.resume()
    assert world.most_running(old.copy.uid) == 2


async def test_next_error_is_raised_once_and_changes_nothing(world: World, engine: FakeEngine, images: Callable[[], Path]) -> None:
    sandbox = await started(engine, copy("error"), *LONG)
    engine.knobs.errors["dump"].append(EngineFailed("no"))
    # the error is raised by the job running on, exactly as a failed criu dump leaves it
    with pytest.raises(EngineFailed, match="no"):
        await sandbox.dump(images(), deadline=DEADLINE)
    assert world.running(sandbox.copy.uid) == ["n1"]
    await sandbox.dump(images(), deadline=DEADLINE)


async def test_dump_overrun_runs_on(world: World, engine: FakeEngine, images: Callable[[], Path]) -> None:
    sandbox = await started(engine, copy("slow"), *LONG)
    engine.knobs.delay["dump"] = 5.0
    with pytest.raises(EngineFailed, match="longer"):
        await sandbox.dump(images(), deadline=0.05)
    assert world.running(sandbox.copy.uid) == ["n1"]


@pytest.mark.parametrize("point", ["dump", "dump.half", "dump.after"])
async def test_crash_leaves_what_a_dead_agent_leaves(
    world: World, engine: FakeEngine, images: Callable[[], Path], point: str
) -> None:
    sandbox = await started(engine, copy("crash"), *LONG)
    engine.knobs.crash_at.add(point)
    with pytest.raises(AgentCrashed):
        await sandbox.dump(images(), deadline=DEADLINE)
    with pytest.raises(AgentCrashed):
        await engine.leftovers()
    adopted = await FakeEngine(world, "n1").adopt(sandbox.copy)
    assert adopted is not None
    assert await adopted.frozen() == (point != "dump")


async def test_reboot_takes_everything(world: World, engine: FakeEngine) -> None:
    await started(engine, copy("reboot"), *LONG)
    world.reboot("n1")
    assert await FakeEngine(world, "n1").leftovers() == []
