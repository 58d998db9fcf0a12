"""When the load is told: with every renewal, by itself only when it changed and something ran."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from crds import keys
from crds.load import Alive, LoadVector
from nodeagent.beat import Beat
from nodeagent.fence import Fence
from nodeagent.heartbeat import Heartbeat
from nodeagent.load import Watched, make_vector
from nodeagent.telling import Telling
from store.kv import Put
from store.memory import MemoryKV
from tests.fakes.engine import FakeEngine
from tests.fakes.world import World


class EndedError(Exception):
    """The test has seen enough."""


class Turns(Beat):
    """So many turns without waiting; ``meanwhile`` is called with the number of each."""

    def __init__(self, count: int, meanwhile: Callable[[int], None]) -> None:
        super().__init__("n1")
        self._count, self._meanwhile, self._turn = count, meanwhile, 0

    async def sleep(self, seconds: float) -> None:
        if self._turn == self._count:
            raise EndedError
        self._meanwhile(self._turn)
        self._turn += 1


class Source:
    """A node whose memory in use is said by the test."""

    def __init__(self) -> None:
        self.used, self.still, self.asked = 0, 0.0, 0

    async def run(self, watched: object, beat: Beat) -> None: ...

    def still_for(self) -> float:
        return self.still

    def vector(self, watched: Iterable[Watched]) -> LoadVector:
        self.asked += 1
        return make_vector({}, cpu_capacity=1, memory_capacity=1000, memory_used=self.used, memory_pressure=0)


@pytest.mark.parametrize(("still", "asked"), [(0.0, 5), (100.0, 1)])
async def test_while_no_job_runs_only_renewals_tell(tmp_path: Path, still: float, asked: int) -> None:
    kv, source = MemoryKV(), Source()
    heartbeat = Heartbeat(kv, "n1", lambda: Alive(boot_id="b", agent_version="1", address="a:1"), ttl=15)
    fence = Fence(tmp_path, FakeEngine(World(), "n1"), ttl=15)
    telling = Telling("n1", heartbeat, source, lambda: (), fence)
    heartbeat.standing.set()

    def meanwhile(turn: int) -> None:
        source.still = still if turn else 0.0
        if turn == 0:
            heartbeat.beside()  # a renewal: from now on something was told

    with pytest.raises(EndedError):
        await telling.run(kv, Turns(5, meanwhile), 1.0)
    assert source.asked == asked + 1
    source.used = 500
    [put] = heartbeat.beside()
    assert isinstance(put, Put)
    assert put.key == keys.load("n1")
    assert LoadVector.model_validate_json(put.value).memory_used == 500
