"""can-migrate: yes or no for each node, with why, before anything is moved."""

import json

import pytest

from crds import keys
from crds.job import MIGRATABLE, Job, JobPhase
from crds.load import Alive
from crds.meta import set_condition
from crds.node import READY, Node
from store.objects import utcnow
from tests.resources import node
from tests.unit.mxctl.terminal import Terminal, job

WHY = "IoUring: node (pid 2) uses io_uring"


def runs(found: Job) -> None:
    found.status.phase, found.status.node = JobPhase.RUNNING, "n1"


def hindered(found: Job) -> None:
    runs(found)
    found.status.conditions = set_condition([], MIGRATABLE, False, "IoUring", WHY, utcnow())


def ready(found: Node) -> None:
    found.status.conditions = set_condition([], READY, True, "Ready", "", utcnow())


@pytest.fixture
def three(terminal: Terminal) -> Terminal:
    """w runs on n1; n2 could take it, n3 has another processor."""
    terminal.create(*(node(name) for name in ("n1", "n2", "n3")), job("w"))
    for name, flags in {"n1": "avx2 sse2", "n2": "avx2 avx512f sse2", "n3": "sse2"}.items():
        terminal.status(Node, name, ready)
        alive = Alive(boot_id="b", agent_version="1", address=f"{name}:1", cpu=1.0, memory=2**40, cpu_flags=flags, since=utcnow())
        terminal.put(keys.alive(name), alive)
    terminal.status(Job, "w", runs)
    return terminal


def test_says_it_for_every_node(three: Terminal) -> None:
    said = three.run("can-migrate", "w")
    assert (said.code, said.err) == (0, "")
    assert [line.split(maxsplit=2) for line in said.out.splitlines()] == [
        ["NODE", "CAN", "REASON"],
        ["n1", "no", "it is there already"],
        ["n2", "yes", "-"],
        ["n3", "no", "its processor lacks avx2"],
    ]


@pytest.mark.parametrize(("name", "code"), [("n1", 1), ("n2", 0), ("n3", 1)])
def test_the_exit_code_is_about_the_node_that_is_named(three: Terminal, name: str, code: int) -> None:
    said = three.run("can-migrate", "job/w", name, "--no-headers")
    assert said.code == code and said.out.split()[0] == name and len(said.out.splitlines()) == 1


def test_an_obstacle_holds_for_every_node(three: Terminal) -> None:
    three.status(Job, "w", hindered)
    said = three.run("can-migrate", "w", "-o", "json")
    assert said.code == 1
    data = json.loads(said.out)
    assert data["canMigrate"] is False and data["nodes"][1] == {"node": "n2", "canMigrate": False, "reason": WHY}


def test_a_job_that_does_not_run(three: Terminal) -> None:
    three.create(job("v"))
    said = three.run("can-migrate", "v", "n2", "--no-headers")
    assert said.code == 1 and said.out.split(maxsplit=2)[1:] == ["no", "it is Pending\n"]


@pytest.mark.parametrize("words", [("nobody",), ("w", "n9")])
def test_what_is_not_there_is_an_error(three: Terminal, words: tuple[str, ...]) -> None:
    said = three.run("can-migrate", *words)
    assert said.code == 1 and "does not exist" in said.err and said.out == ""
