"""The deadline: what moves it, who acts when it has passed, and on an invented tree what the guard does then."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent import guard
from nodeagent.beat import Beat
from nodeagent.fence import Fence
from nodeagent.freezer import Freezer
from store.errors import Unavailable
from tests.fakes.engine import FakeEngine
from tests.fakes.world import World

TTL = 15.0


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(tmp_path: Path, clock: Clock) -> Fence:
    return Fence(tmp_path, FakeEngine(World(), "n1"), ttl=TTL, clock=clock)


def test_before_the_first_session_nothing_has_passed_and_nothing_may_run(tmp_path: Path, clock: Clock) -> None:
    fence = made(tmp_path, clock)
    assert not fence.passed
    with pytest.raises(Unavailable):
        fence.check()


@pytest.mark.parametrize(("stopped_for", "passes"), [(10.0, False), (10.9, False), (11.1, True), (60.0, True)])
def test_how_long_an_agent_may_stand_still(tmp_path: Path, clock: Clock, stopped_for: float, passes: bool) -> None:
    """At the worst moment: just before its next renewal."""
    fence = made(tmp_path, clock)
    sent = clock.now
    fence.hold(sent + TTL)
    clock.now = sent + TTL / 6 + stopped_for
    assert fence.passed == passes


def test_the_deadline_outlives_the_agent(tmp_path: Path, clock: Clock) -> None:
    made(tmp_path, clock).hold(clock.now + TTL)
    again = made(tmp_path, clock)
    assert not again.passed
    clock.now += TTL - 1.5
    assert again.passed
    with pytest.raises(Unavailable):
        again.check()
    again.hold(clock.now + TTL)
    again.check()


def test_no_promise_without_a_guard(tmp_path: Path, clock: Clock) -> None:
    assert made(tmp_path, clock).promise is None
    guard.write_whole(str(tmp_path / guard.PROCESS), f"{os.getpid()} {guard.start_time(os.getpid())}\n")
    assert made(tmp_path, clock).promise == TTL
    guard.write_whole(str(tmp_path / guard.PROCESS), f"{os.getpid()} 1\n")
    assert "has ended" in made(tmp_path, clock).unguarded
    guard.write_whole(str(tmp_path / guard.PROCESS), "nonsense\n")
    assert "cannot be read" in made(tmp_path, clock).unguarded


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_a_stopped_guard_is_none(tmp_path: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    guard.write_whole(str(tmp_path / guard.PROCESS), f"{sleeper.pid} {guard.start_time(sleeper.pid)}\n")
    assert guard.absent(str(tmp_path)) == ""
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    assert f"kill -CONT {sleeper.pid}" in guard.absent(str(tmp_path))


# --- the guard, on invented trees ---


def tree(root: Path, *, hybrid: bool, v1: bool = True, v2: bool = True) -> Freezer:
    """Control group trees, as files."""
    if hybrid:
        for name, wanted in (("freezer", v1), ("unified", v2)):
            if wanted:
                (root / name / "jobs").mkdir(parents=True)
                (root / name / "cgroup.procs").touch()
    else:
        (root / "jobs").mkdir(parents=True)
        (root / "cgroup.controllers").touch()
        (root / "cgroup.procs").touch()
    return Freezer(str(root))


def group(root: Path, run: Path, name: str, pid: str = "", policy: str = "", kind: str = "v2", parent: str = "jobs") -> Path:
    directory = root / parent / f"default_{name}_1"
    directory.mkdir(parents=True)
    files = {"v2": ("cgroup.freeze", "cgroup.kill"), "v1": ("freezer.state",)}[kind]
    for file in files:
        (directory / file).write_text({"cgroup.freeze": "0", "cgroup.kill": "", "freezer.state": "THAWED"}[file])
    (directory / "cgroup.procs").write_text(f"{pid}\n" if pid else "")
    copy = run / "copies" / f"default_{name}_1_uid-{name}"
    copy.mkdir(parents=True, exist_ok=True)
    if policy:
        guard.write_policy(str(copy), policy)
    return directory


def test_pure_v2(tmp_path: Path) -> None:
    root, run = tmp_path / "cgroup", tmp_path / "run"
    freezer = tree(root, hybrid=False)
    plain, killed = group(root, run, "plain", "7"), group(root, run, "killed", "7", guard.KILL)
    kept, empty = group(root, run, "kept", "7", guard.KEEP), group(root, run, "empty", "", guard.KILL)
    odd = group(root, run, "odd", "7", "nonsense")
    (root / "jobs/stranger").mkdir()
    (root / "jobs/stranger/cgroup.freeze").write_text("0")
    done = guard.fence(str(run), freezer)
    assert done == ["default_killed_1: killed", "default_odd_1: frozen", "default_plain_1: frozen", "stranger: frozen"]
    assert (plain / "cgroup.freeze").read_text() == "1"
    assert (odd / "cgroup.freeze").read_text() == "1", "a policy that cannot be read is the careful one"
    assert (killed / "cgroup.kill").read_text() == "1"
    assert (kept / "cgroup.freeze").read_text() == (empty / "cgroup.freeze").read_text() == "0"
    assert guard.was_killed(str(run / "copies/default_killed_1_uid-killed"))
    assert not guard.was_killed(str(run / "copies/default_plain_1_uid-plain"))
    (killed / "cgroup.procs").write_text("")
    assert guard.fence(str(run), freezer) == [], "what was done is not done again"
    freezer.thaw("default_plain_1")
    assert not freezer.frozen("default_plain_1")


def test_hybrid_takes_the_v2_tree(tmp_path: Path) -> None:
    root, run = tmp_path / "cgroup", tmp_path / "run"
    freezer = tree(root, hybrid=True)
    new = group(root, run, "w", "7", parent="unified/jobs")
    old = group(root, run, "w", "7", kind="v1", parent="freezer/jobs")
    guard.fence(str(run), freezer)
    assert (new / "cgroup.freeze").read_text() == "1"
    assert (old / "freezer.state").read_text() == "THAWED"


def test_v1_alone(tmp_path: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    root, run = tmp_path / "cgroup", tmp_path / "run"
    freezer = tree(root, hybrid=True, v2=False)
    plain = group(root, run, "plain", "7", kind="v1", parent="freezer/jobs")
    killed = group(root, run, "killed", str(sleeper.pid), guard.KILL, kind="v1", parent="freezer/jobs")
    assert guard.fence(str(run), freezer) == ["default_killed_1: killed", "default_plain_1: frozen"]
    assert (plain / "freezer.state").read_text().startswith("FROZEN")
    assert (killed / "freezer.state").read_text().startswith("THAWED"), "a frozen process cannot die"
    assert sleeper.wait(10) == -signal.SIGKILL
    assert freezer.frozen("default_plain_1")


def test_no_tree_at_all(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    freezer = Freezer(str(tmp_path))
    assert not freezer.works
    assert freezer.names() == []
    assert guard.fence(str(tmp_path), freezer) == []


def test_a_deadline_that_moves_meanwhile_saves_the_rest(tmp_path: Path) -> None:
    root, run = tmp_path / "cgroup", tmp_path / "run"
    freezer = tree(root, hybrid=False)
    for name in ("a", "b"):
        group(root, run, name, "7")
    answers = iter([True, False])
    assert guard.fence(str(run), freezer, lambda: next(answers)) == ["default_a_1: frozen"]


def test_a_group_that_goes_away_is_no_error(tmp_path: Path) -> None:
    freezer = tree(tmp_path, hybrid=False)
    assert not freezer.freeze("gone")
    assert not freezer.frozen("gone")
    freezer.thaw("gone")
    freezer.kill("gone")
    assert freezer.pids("gone") == []


# --- how often jobs are looked at ---


class EndedError(Exception):
    """The test has seen enough."""


class Turns(Beat):
    """A beat without waiting: each turn takes so many seconds of the clock."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        super().__init__("n1")
        self._clock, self._seconds = clock, list(seconds)

    async def sleep(self, seconds: float) -> None:
        if not self._seconds:
            raise EndedError
        self._clock.now += self._seconds.pop(0)


@pytest.mark.parametrize(
    ("turns", "lease", "looks"),
    [
        ([1.0] * 25, 1000.0, [0, 10, 20]),
        ([1.0, 1.0, 5.0, 1.0], 1000.0, [0, 7]),  # we hung, and the guard may have acted
        ([1.0] * 4, 3.5, [0, 2, 3, 4]),  # the deadline passes
    ],
)
async def test_jobs_are_looked_at_seldom_unless_something_is_wrong(
    tmp_path: Path, clock: Clock, turns: list[float], lease: float, looks: list[float]
) -> None:
    fence, begun, seen = made(tmp_path, clock), clock.now, []
    fence.hold(begun + lease)

    async def look() -> None:
        seen.append(clock.now - begun)

    with pytest.raises(EndedError):
        await fence.run(look, Turns(clock, *turns))
    assert seen == looks
