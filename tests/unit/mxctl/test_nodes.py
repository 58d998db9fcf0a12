"""cordon, drain and top: what a person does with nodes."""

from datetime import timedelta
from typing import Any

import pytest

from crds import keys
from crds.job import MIGRATABLE, Job, JobPhase
from crds.load import Alive, JobLoad, LoadVector
from crds.meta import set_condition
from crds.migration import Migration, MigrationPhase
from crds.node import Node
from store.objects import utcnow
from store.store import Store
from tests.resources import node
from tests.unit.mxctl.terminal import Terminal, job


def on(name: str, phase: JobPhase = JobPhase.RUNNING) -> Any:
    def change(found: Job) -> None:
        found.status.node, found.status.phase = name, phase

    return change


async def obliging(store: Store) -> None:
    """A reconciler that moves whatever is asked for to n2."""
    async for _ in store.kv.watch(keys.OBJECTS, revision=1):
        for wish in (await store.list(Migration)).items:
            if wish.status.phase == MigrationPhase.PENDING:

                def done(found: Migration) -> None:
                    found.status.source, found.status.destination, found.status.phase = "n1", "n2", MigrationPhase.SUCCEEDED

                await store.change_status(Job, wish.spec.job, None, on("n2"))
                await store.change_status(Migration, wish.name, None, done)


@pytest.fixture
def busy(terminal: Terminal) -> Terminal:
    terminal.create(node("n1"), node("n2"), job("a"), job("b"), job("elsewhere"), job("over"))
    for name in ("a", "b"):
        terminal.status(Job, name, on("n1"))
    terminal.status(Job, "elsewhere", on("n2"))
    terminal.status(Job, "over", on("n1", JobPhase.SUCCEEDED))
    terminal.put(keys.object_key(Job, "bad", "default"), b"{}")
    return terminal


def test_cordon_and_uncordon(terminal: Terminal) -> None:
    terminal.create(node("n1"))
    assert terminal.run("cordon", "n1").out == "node/n1 cordoned\n"
    assert terminal.run("cordon", "n1").out == "node/n1 already cordoned\n"
    assert terminal.do(lambda store: store.get(Node, "n1")).spec.unschedulable
    assert terminal.run("uncordon", "n1").out == "node/n1 uncordoned\n"
    assert not terminal.do(lambda store: store.get(Node, "n1")).spec.unschedulable
    assert terminal.run("cordon", "n9").code == 1


def test_drain_moves_what_runs_there_and_nothing_else(busy: Terminal) -> None:
    said = busy.run("drain", "n1", "--wait", meanwhile=obliging)
    assert said.code == 0, said.err
    assert said.out.startswith("node/n1 cordoned\n")
    assert {line for line in said.out.splitlines() if "moved" in line} == {f"job/{name} moved from n1 to n2" for name in "ab"}
    made = busy.do(lambda store: store.list(Migration)).items
    assert sorted((found.spec.job, found.spec.requested_by) for found in made) == [("a", "drain"), ("b", "drain")]
    assert "job/bad" in said.err


def test_drain_without_waiting_only_asks(busy: Terminal) -> None:
    said = busy.run("drain", "n1")
    assert said.code == 0
    assert len(busy.do(lambda store: store.list(Migration)).items) == 2


@pytest.mark.parametrize(
    ("spec", "phase", "why"),
    [
        (
            {"placement": {"node": "n1", "pinned": True}},
            JobPhase.RUNNING,
            "job/stuck cannot be moved away: it is pinned to node n1",
        ),
        (
            {"migration": {"allowed": False}},
            JobPhase.RUNNING,
            "job/stuck cannot be moved away: its spec.migration.allowed is false",
        ),
        ({}, JobPhase.STARTING, "job/stuck is Starting, so it cannot be moved now: drain again, or add --wait"),
    ],
    ids=["pinned", "not allowed", "starting"],
)
def test_drain_names_what_has_to_stay(busy: Terminal, spec: dict[str, Any], phase: JobPhase, why: str) -> None:
    busy.create(job("stuck", **spec))
    busy.status(Job, "stuck", on("n1", phase))
    said = busy.run("drain", "n1")
    assert said.code == 1
    assert f"Error: {why}" in said.err.splitlines()
    assert len(busy.do(lambda store: store.list(Migration)).items) == 2


def test_drain_names_what_cannot_be_moved(busy: Terminal) -> None:
    def hindered(found: Job) -> None:
        on("n1", JobPhase.RUNNING)(found)
        message = "IoUring: node (pid 2) uses io_uring"
        found.status.conditions = set_condition([], MIGRATABLE, False, "IoUring", message, utcnow())

    busy.create(job("stuck"))
    busy.status(Job, "stuck", hindered)
    said = busy.run("drain", "n1")
    assert said.code == 1
    assert "Error: job/stuck cannot be moved away: IoUring: node (pid 2) uses io_uring" in said.err.splitlines()
    assert len(busy.do(lambda store: store.list(Migration)).items) == 2


def test_drain_that_waits_moves_the_others_although_one_is_pinned(busy: Terminal) -> None:
    busy.create(job("stuck", placement={"node": "n1", "pinned": True}))
    busy.status(Job, "stuck", on("n1"))
    said = busy.run("drain", "n1", "--wait", meanwhile=obliging)
    assert said.code == 1
    assert sum("moved from n1 to n2" in line for line in said.out.splitlines()) == 2
    assert said.err.splitlines()[-1] == "Error: node/n1 is cordoned, but not all jobs can leave it"


def test_drain_says_what_is_left_when_time_is_up(busy: Terminal) -> None:
    said = busy.run("drain", "n1", "--wait", "--timeout=50ms")
    assert said.code == 1
    assert said.err.splitlines()[-1] == "Error: node/n1 is not empty after 0.05 s; still there: job/a, job/b"


def test_a_job_that_ends_instead_of_moving_has_left_too(busy: Terminal) -> None:
    async def ending(store: Store) -> None:
        async for _ in store.kv.watch(keys.kind_prefix(Migration), revision=1):
            for wish in (await store.list(Migration)).items:
                if wish.status.phase == MigrationPhase.PENDING:
                    await store.change_status(Job, wish.spec.job, None, on("n1", JobPhase.SUCCEEDED))
                    await store.change_status(
                        Migration, wish.name, None, lambda m: setattr(m.status, "phase", MigrationPhase.FAILED)
                    )

    said = busy.run("drain", "n1", "--wait", meanwhile=ending)
    assert said.code == 0, said.err
    assert "job/a ended before it was moved" in said.out.splitlines()


def test_drain_tells_a_failed_move(busy: Terminal) -> None:
    async def refusing(store: Store) -> None:
        failed = 0
        async for _ in store.kv.watch(keys.kind_prefix(Migration), revision=1):
            for wish in (await store.list(Migration)).items:
                if wish.status.phase == MigrationPhase.PENDING:
                    failed += 1

                    def fail(found: Migration) -> None:
                        found.status.phase, found.status.message = MigrationPhase.FAILED, "nowhere to go"

                    await store.change_status(Migration, wish.name, None, fail)
            if failed == 2:
                return

    said = busy.run("drain", "n1", "--wait", meanwhile=refusing)
    assert said.code == 1
    assert "Error: job/a was not moved: Failed: nowhere to go" in said.err.splitlines()


@pytest.fixture
def loaded(terminal: Terminal) -> Terminal:
    now = utcnow()
    jobs = {
        "default/w": JobLoad(cpu_demand=2.0, cpu_used=0.35, memory=30 << 20),
        "alice/v": JobLoad(cpu_demand=1.0, memory=300 << 20),
    }
    busy = LoadVector(
        time=now, cpu_capacity=0.35, cpu_demand=3.0, cpu_used=0.35, memory_capacity=1 << 30, memory_used=512 << 20, jobs=jobs
    )
    terminal.put(keys.load("n1"), busy)
    terminal.put(keys.alive("n1"), Alive(boot_id="b", agent_version="0.1.0", address="x:1", since=now))
    terminal.put(keys.load("n2"), LoadVector(time=now - timedelta(minutes=5), cpu_capacity=0.35))
    terminal.put(keys.alive("n2"), Alive(boot_id="b", agent_version="0.1.0", address="x:1", since=now))
    terminal.put(keys.load("n3"), LoadVector(time=now, cpu_capacity=0.35))
    terminal.put(keys.load("n4"), b"{")
    return terminal


def test_top_nodes_says_which_figures_can_be_believed(loaded: Terminal) -> None:
    said = loaded.run("top", "nodes", "--no-headers")
    rows = {line.split()[0]: line for line in said.out.splitlines()}
    assert rows["n1"].split()[1:9] == ["3.00", "0.35", "0.35", "857%", "512Mi", "1.0Gi", "50%", "2"]
    assert [rows[name].split("ago")[1].strip() for name in ("n1", "n2", "n3")] == ["ok", "stale", "no heartbeat"]
    assert "n4" not in rows
    assert said.err.startswith("Warning: nodeload/n4")


def test_top_jobs_of_one_namespace(loaded: Terminal) -> None:
    assert [line.split() for line in loaded.run("top", "jobs", "--no-headers").out.splitlines()] == [
        ["w", "n1", "2.00", "0.35", "30Mi", "ok"]
    ]
    assert loaded.run("top", "jobs", "--no-headers", "-n", "alice").out.split()[0] == "v"


def test_top_of_nothing(terminal: Terminal) -> None:
    said = terminal.run("top", "nodes")
    assert (said.code, said.out, said.err) == (0, "", "No node reports its load.\n")
