"""checkpoint, and what run says of checkpoints and restarts."""

import pytest

from crds.checkpoint import READY, Checkpoint, CheckpointPhase
from crds.job import Job, JobPhase, RestartPolicy
from crds.meta import set_condition
from store.objects import utcnow
from store.store import Store
from tests.unit.mxctl.terminal import Terminal, appears, job


def ends(phase: CheckpointPhase, message: str = ""):  # type: ignore[no-untyped-def]
    """What the reconciler makes of the next checkpoint."""

    def change(found: Checkpoint) -> None:
        found.status.phase, found.status.bytes, found.status.freeze_ms, found.status.message = phase, 3 << 20, 71.6, message
        ok = phase == CheckpointPhase.READY
        found.status.conditions = set_condition([], READY, ok, "Taken" if ok else "NotTaken", message, utcnow(), 1)

    async def work(store: Store) -> None:
        made = await appears(store, Checkpoint)
        await store.change_status(Checkpoint, made.name, None, change)

    return work


def test_it_is_asked_for_and_belongs_to_the_job(terminal: Terminal) -> None:
    terminal.create(job("w"))
    said = terminal.run("checkpoint", "job/w", "--name", "c", "--reason", "new kernel", "--timeout", "30s")
    assert (said.code, said.out) == (0, "checkpoint/c created\n")
    made = terminal.do(lambda store: store.get(Checkpoint, "c"))
    assert (made.spec.job, made.spec.reason, made.spec.deadline, made.spec.requested_by) == ("w", "new kernel", 30, "user")
    assert [(owner.kind, owner.name) for owner in made.metadata.owner_references] == [("Job", "w")]
    assert made.metadata.finalizers == ["mx/files"]
    assert terminal.run("get", "cp").out.splitlines()[1].split()[:3] == ["c", "w", "Pending"]


def test_it_is_waited_for(terminal: Terminal) -> None:
    terminal.create(job("w"))
    said = terminal.run("checkpoint", "w", "--name", "c", "--wait", meanwhile=ends(CheckpointPhase.READY))
    assert (said.code, said.out.splitlines()[-1]) == (0, "checkpoint/c is there: 3.0Mi, w stood still for 72 ms")


def test_one_that_is_not_taken_says_why(terminal: Terminal) -> None:
    terminal.create(job("w"))
    said = terminal.run("checkpoint", "w", "--name", "c", "--wait", meanwhile=ends(CheckpointPhase.FAILED, "io_uring"))
    assert (said.code, said.err) == (1, "Error: checkpoint/c was not taken: io_uring\n")


def test_of_an_ended_job_there_is_none(terminal: Terminal) -> None:
    terminal.create(job("w"))
    terminal.do(lambda store: store.change_status(Job, "w", None, lambda found: setattr(found.status, "phase", JobPhase.FAILED)))
    said = terminal.run("checkpoint", "w")
    assert (said.code, said.err) == (1, "Error: job/w has ended (Failed): there is nothing to keep\n")


def test_run_with_checkpoints_and_restarts(terminal: Terminal) -> None:
    options = ["--restart", "FromCheckpoint", "--checkpoint-interval", "10m", "--keep", "3"]
    assert terminal.run("run", "--name", "w", *options, "--", "true").code == 0
    spec = terminal.do(lambda store: store.get(Job, "w")).spec
    assert (spec.restart.policy, spec.checkpoint.interval, spec.checkpoint.keep) == (RestartPolicy.FROM_CHECKPOINT, 600, 3)
    assert terminal.run("run", "--name", "v", "--", "true").code == 0
    spec = terminal.do(lambda store: store.get(Job, "v")).spec
    assert (spec.restart.policy, spec.checkpoint.interval, spec.checkpoint.keep) == (RestartPolicy.NEVER, None, 2)


@pytest.mark.parametrize("options", [["--restart", "Always"], ["--keep", "0"], ["--checkpoint-interval", "soon"]])
def test_run_refuses_what_makes_no_sense(terminal: Terminal, options: list[str]) -> None:
    assert terminal.run("run", *options, "--", "true").code == 1
