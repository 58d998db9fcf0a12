"""mxctl rollout: what is asked for, and how its course is told."""

from typing import Any

import pytest

from crds.assignment import Assignment
from crds.image import Image, Revision
from crds.meta import set_condition
from crds.node import IMAGE_DRIFT, Node
from crds.rollout import NodeUpdate, Rollout, RolloutPhase, UpdateStep
from store.objects import utcnow
from store.store import Store
from tests.resources import node
from tests.unit.mxctl.terminal import Terminal, appears

V1, V2 = (Assignment(image="numpy", revision=digest) for digest in ("aaa", "bbb"))


@pytest.fixture
def rack(terminal: Terminal) -> Terminal:
    one, two = node("n1"), node("n2")
    one.spec.image = two.spec.image = "numpy"
    terminal.create(Image.model_validate({"metadata": {"name": "numpy"}}), one, two)

    def built(found: Image) -> None:
        found.status.revisions = [
            Revision(number=n, digest=a.revision, layers=["l"], boot="b", kernel="6", built=utcnow(), recipe="r")
            for n, a in enumerate((V1, V2), 1)
        ]
        found.status.current = 2

    terminal.status(Image, "numpy", built)
    return terminal


def ends(phase: RolloutPhase, step: UpdateStep, message: str) -> Any:
    """A reconciler that makes that of the next rollout, or of its way back."""

    async def work(store: Store) -> None:
        made = await appears(store, Rollout)

        def update(found: Node) -> None:
            found.status.update = NodeUpdate(
                rollout=made.name,
                uid=made.metadata.uid or "",
                created=utcnow(),
                since=utcnow(),
                step=step,
                target=V2,
                message=message,
            )

        def over(found: Rollout) -> None:
            found.status.phase, found.status.updated, found.status.total, found.status.message = phase, 1, 2, message
            found.status.undone, found.status.observed_generation = found.spec.undo, found.metadata.generation

        await store.change_status(Node, "n1", None, update)
        await store.change_status(Rollout, made.name, None, over)

    return work


def test_an_image_is_rolled_out_and_its_course_told(rack: Terminal) -> None:
    said = rack.run(
        "rollout", "image", "numpy", "--name", "r", "--max-unavailable", "2", "--deadline", "3m",
        meanwhile=ends(RolloutPhase.COMPLETE, UpdateStep.UPDATED, "runs what it should"),
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.out.splitlines()[0] == "rollout/r created"
    assert "node/n1 Updated: runs what it should" in said.out
    assert said.out.splitlines()[-1] == "rollout/r is complete: 1 of 2 nodes: runs what it should"
    made = rack.do(lambda store: store.get(Rollout, "r"))
    assert (made.spec.image, made.spec.max_unavailable, made.spec.deadline, made.spec.revision) == ("numpy", 2, 180.0, None)
    assert made.metadata.finalizers == ["mx/rollout"]


def test_one_that_stops_says_why_and_what_can_be_done(rack: Terminal) -> None:
    said = rack.run(
        "rollout", "node", "n1", "--name", "r", meanwhile=ends(RolloutPhase.STOPPED, UpdateStep.REVERTED, "n1: not Ready")
    )
    assert said.code == 1
    assert said.err.startswith("Error: rollout/r n1: not Ready; when that is repaired: mxctl rollout resume r")


@pytest.mark.parametrize(("word", "digest"), [("1", "aaa"), ("bbb", "bbb")])
def test_a_revision_is_named_by_number_or_digest(rack: Terminal, word: str, digest: str) -> None:
    assert rack.run("rollout", "image", "numpy", "--to", word, "--name", "r", "--no-wait").code == 0
    assert rack.do(lambda store: store.get(Rollout, "r")).spec.revision == digest


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["image", "numpy", "--to", "7"], "Error: image/numpy has no revision 7; there are: 1 (aaa), 2 (bbb)"),
        (["image", "nothing"], "Error from server (NotFound): image/nothing does not exist"),
        (["node", "n9"], "Error from server (NotFound): node/n9 does not exist"),
        (["node", "bare"], "Error: node/bare has no image"),
        (["pause", "r"], "Error from server (NotFound): rollout/r does not exist"),
    ],
)
def test_nothing_is_written_on_bad_input(rack: Terminal, words: list[str], error: str) -> None:
    rack.create(node("bare"))
    before = rack.revision
    said = rack.run("rollout", *words)
    assert said.code == 1
    assert said.err.startswith(error)
    assert rack.revision == before


def test_pause_resume_and_undo(rack: Terminal) -> None:
    rack.run("rollout", "cluster", "--name", "r", "--no-wait")
    assert rack.run("rollout", "pause", "r").out == "rollout/r paused\n"
    assert rack.do(lambda store: store.get(Rollout, "r")).spec.paused
    rack.run("rollout", "resume", "r")
    spec = rack.do(lambda store: store.get(Rollout, "r")).spec
    assert (spec.paused, spec.attempt) == (False, 0)
    rack.status(Rollout, "r", lambda found: setattr(found.status, "phase", RolloutPhase.STOPPED))
    rack.run("rollout", "resume", "r")
    assert rack.do(lambda store: store.get(Rollout, "r")).spec.attempt == 1
    assert rack.run("rollout", "undo", "r", "--no-wait").out == "rollout/r is being undone\n"
    assert rack.do(lambda store: store.get(Rollout, "r")).spec.undo


def test_status_shows_where_nodes_stand_and_what_would_change(rack: Terminal) -> None:
    assert rack.run("rollout", "status").out == "every node runs what it should\n"

    def drifts(found: Node) -> None:
        found.status.conditions = set_condition([], IMAGE_DRIFT, True, "ByRollout", "changes numpy aaa -> numpy bbb", utcnow())

    rack.status(Node, "n2", drifts)
    assert rack.run("rollout", "status").out.splitlines()[1].split()[:2] == ["n2", "ByRollout"]
    rack.run("rollout", "cluster", "--name", "r", meanwhile=ends(RolloutPhase.COMPLETE, UpdateStep.UPDATED, "done"))
    said = rack.run("rollout", "status", "r").out.splitlines()
    assert said[0] == "rollout/r Complete: 1 of 2 nodes: done"
    assert said[2].split() == ["n1", "Updated", "(over)", "numpy", "bbb", "done"]
