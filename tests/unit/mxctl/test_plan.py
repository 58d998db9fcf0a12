"""plan and explain-move: what the balancer would do, from its own code, without doing it."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from crds import keys
from crds.balancepolicy import BalancePolicy
from crds.job import Job, JobPhase
from crds.load import Alive, JobLoad, LoadVector
from crds.meta import set_condition
from crds.node import READY, Node
from crds.placement import Placement, Role
from store.objects import utcnow
from tests.resources import node
from tests.unit.mxctl.terminal import Terminal, job

GIGA = 2**30


def ready(found: Node) -> None:
    found.status.conditions = set_condition([], READY, True, "Ready", "", utcnow())


def runs_on(name: str):  # type: ignore[no-untyped-def]
    def change(found: Job) -> None:
        found.status.phase, found.status.node, found.status.reason = JobPhase.RUNNING, name, "asked for"
        found.status.started_at = utcnow() - timedelta(seconds=600)

    return change


def place(terminal: Terminal, name: str, on: str, **spec: object) -> None:
    terminal.create(job(name, **spec))
    terminal.status(Job, name, runs_on(on))
    found = terminal.do(lambda store: store.get(Job, name))
    placement = Placement(uid=found.metadata.uid or "", epoch=1, role=Role.RUN, spec=found.spec)
    terminal.put(keys.placement(on, "default", name), placement)


@pytest.fixture
def pile(terminal: Terminal) -> Terminal:
    """Three busy jobs on n1, nothing on n2; ``fixed`` must not move."""
    terminal.create(node("n1"), node("n2"))
    for name, jobs in {"n1": ["a", "b", "fixed"], "n2": []}.items():
        terminal.status(Node, name, ready)
        alive = Alive(boot_id="b", agent_version="1", address=f"{name}:1", cpu=1.0, memory=GIGA, since=utcnow())
        terminal.put(keys.alive(name), alive)
        loads = {f"default/{each}": JobLoad(cpu_demand=1.0, cpu_used=0.3, memory=2**20, age=600) for each in jobs}
        demand, used = float(len(jobs)), len(jobs) * 2**20
        vector = LoadVector(time=utcnow(), cpu_capacity=1.0, cpu_demand=demand, memory_capacity=GIGA, memory_used=used, jobs=loads)
        terminal.put(keys.load(name), vector)
    for name in ("a", "b"):
        place(terminal, name, "n1")
    place(terminal, "fixed", "n1", migration={"allowed": False})
    return terminal


def with_policy(terminal: Terminal, **spec: object) -> None:
    terminal.create(BalancePolicy.model_validate({"metadata": {"name": "default"}, "spec": spec}))


def test_the_plan_is_shown_and_changes_nothing(pile: Terminal) -> None:
    with_policy(pile)
    before = pile.revision
    said = pile.run("plan", "-o", "json")
    assert (said.code, said.err) == (0, "") and pile.revision == before
    data = json.loads(said.out)
    assert data["policy"] == "default" and data["balanced"] is False and data["imbalance"] == 1.0
    assert [(m["job"], m["source"], m["destination"]) for m in data["moves"]] == [("default/a", "n1", "n2")]
    assert all(move["reason"] for move in data["moves"])
    kept = {each["job"]: each["reason"] for each in data["kept"]}
    assert kept["default/fixed"] == "migration is not allowed"
    text = pile.run("plan").out
    assert "default/a" in text and "migration is not allowed" in text and "Ignored:   nothing" in text


def test_samples_that_are_not_believed_are_named(pile: Terminal) -> None:
    with_policy(pile)
    pile.put(keys.load("n2"), LoadVector(time=utcnow() - timedelta(minutes=5), cpu_capacity=1.0, memory_capacity=GIGA))
    data = json.loads(pile.run("plan", "-o", "json").out)
    assert data["moves"] == [] and any("n2" in line and "old" in line for line in data["ignored"])


def test_without_a_policy_nothing_moves_and_another_can_be_tried(pile: Terminal, tmp_path: Path) -> None:
    said = pile.run("plan")
    assert said.code == 0 and "no BalancePolicy" in said.out
    file = tmp_path / "policy.yaml"
    file.write_text("apiVersion: mx/v1\nkind: BalancePolicy\nmetadata: {name: trial}\nspec: {goal: none}\n")
    data = json.loads(pile.run("plan", "-f", str(file), "-o", "json").out)
    assert data["policy"] == "trial" and data["moves"] == [] and data["reason"] == "SwitchedOff"
    file.write_text("apiVersion: mx/v1\nkind: BalancePolicy\nmetadata: {name: trial}\n")
    assert json.loads(pile.run("plan", "-f", str(file), "-o", "json").out)["moves"]


def test_explains_a_job_that_would_move(pile: Terminal) -> None:
    with_policy(pile)
    data = json.loads(pile.run("explain-move", "a", "-o", "json").out)
    assert data["now"]["moves"] is True and data["now"]["to"] == "n2" and data["here"] == "asked for"


def test_says_what_would_change_it(pile: Terminal) -> None:
    with_policy(pile)
    data = json.loads(pile.run("explain-move", "job/fixed", "-o", "json").out)
    assert data["now"] == {"moves": False, "reason": "migration is not allowed"}
    assert data["wouldMove"][0]["change"].startswith("if it could be moved (migration is not allowed)")
    pile.do(lambda store: store.change(BalancePolicy, "default", None, lambda p: setattr(p.spec, "goal", "none")))
    data = json.loads(pile.run("explain-move", "a", "-o", "json").out)
    assert data["now"]["moves"] is False
    assert {"change": "if goal were opportunity-cost", "to": "n2"}.items() <= data["wouldMove"][0].items()
    text = pile.run("explain-move", "a").out
    assert "if goal were opportunity-cost" in text and "Could be moved to:" in text and "Moves:" in text


def test_a_job_that_runs_nowhere(pile: Terminal) -> None:
    pile.create(job("new"))
    said = pile.run("explain-move", "new")
    assert said.code == 0 and "stays: it is Pending" in said.out
    said = pile.run("explain-move", "nobody")
    assert said.code == 1 and "does not exist" in said.err
