"""Aged time-sharing: young jobs go first, nobody starves, and little is written."""

from pathlib import Path

import pytest

from crds.timesharing import OLD, YOUNG, weight
from nodeagent.cgroups import Cgroups
from nodeagent.engine import Copy
from nodeagent.errors import EngineFailed
from nodeagent.weighing import PLAIN, Weighed, Weighing, group_weight


class Share:
    """A sandbox of which only the weight matters."""

    def __init__(self, error: str = "") -> None:
        self.weights: list[int] = []
        self.error = error

    async def weigh(self, weight: int) -> None:
        if self.error:
            raise EngineFailed(self.error)
        self.weights.append(weight)


def job(
    share: Share, attained: float = 0.0, *, name: str = "a", tasks: float = 1.0, aged: bool = True, rests: bool = False
) -> Weighed:
    return Weighed(Copy("default", name, "u", 1), share, aged, attained, tasks, rests)  # type: ignore[arg-type]


def test_young_ones_go_first_and_old_ones_keep_a_share() -> None:
    assert weight(0) == 2.0 and weight(0) / weight(1e9) == (YOUNG + OLD) / YOUNG
    assert weight(10) > weight(20) > weight(60) == weight(600)
    assert group_weight(3.0, 2.0) == 2 * group_weight(1.5, 1.0) == 1000, "a job is as old as each of its tasks"
    assert 1 <= group_weight(1e9, 0.0) <= group_weight(0.0, 1e6) <= 10_000


async def test_little_is_written() -> None:
    old, young, weighing = Share(), Share(), Weighing()
    for tenth in range(3000):
        await weighing.weigh([job(old, 100.0 + tenth / 10), job(young, tenth / 10, name="b")])
    assert len(old.weights) == 1 and 30 < len(young.weights) < 60
    assert young.weights[0] > 100 * old.weights[0] and young.weights[-1] <= 1.1 * old.weights[0]


async def test_a_lone_job_is_let_alone_until_another_competes() -> None:
    share, other, weighing = Share(), Share(), Weighing()
    await weighing.weigh([job(share, 0.0), job(other, name="b", rests=True)])
    for second in range(50):
        await weighing.weigh([job(share, float(second)), job(other, name="b", rests=True)])
    assert len(share.weights) == 1
    await weighing.weigh([job(share, 50.0), job(other, name="b")])
    assert len(share.weights) == 2


async def test_fair_again_when_the_policy_says_so_or_an_earlier_agent_had_weighed() -> None:
    share, weighing = Share(), Weighing()
    await weighing.weigh([job(share, 3.0)])
    await weighing.weigh([job(share, 3.0, aged=False)])
    await weighing.weigh([job(share, 4.0, aged=False)])
    assert share.weights == [group_weight(3.0, 1.0), PLAIN]
    await Weighing().weigh([job(share, 3.0, aged=False)])
    assert share.weights[2:] == [PLAIN]


async def test_what_the_kernel_refuses_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    weighing = Weighing()
    for second in range(20):
        await weighing.weigh([job(Share("no cpu.weight"), float(second)), job(Share("no cpu.weight"), name="b")])
    assert [record.message for record in caplog.records] == ["no cpu.weight"]


@pytest.mark.parametrize(
    ("hierarchy", "file", "plain", "least"), [("unified", "cpu.weight", "100", "1"), ("cpu", "cpu.shares", "1024", "10")]
)
def test_the_kernels_files(tmp_path: Path, hierarchy: str, file: str, plain: str, least: str) -> None:
    root = tmp_path if hierarchy == "unified" else tmp_path / hierarchy
    root.mkdir(exist_ok=True)
    (root / "cgroup.procs").write_text("")
    if hierarchy == "unified":
        (root / "cgroup.controllers").write_text("cpu")
    group = Cgroups(tmp_path).group(Copy("default", "a", "u", 1))
    group.paths[hierarchy].mkdir(parents=True)
    group.weigh(PLAIN)
    assert (group.paths[hierarchy] / file).read_text() == plain
    group.weigh(1)
    assert (group.paths[hierarchy] / file).read_text() == least
