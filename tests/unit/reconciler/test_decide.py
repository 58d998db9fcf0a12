"""The table of how a move is decided."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from crds.job import JobRestart, JobSpec, MigrationMode, RestartPolicy
from crds.placement import MoveOrder, Placement, Role
from crds.report import Claim, JobReport, MoveReport, ReportPhase, Verdict
from reconciler.controllers.moving import MARGIN, CallOff, Move, Succeed, TakeBack, Wait, Wish, decide
from reconciler.controllers.readiness import Silence
from reconciler.grid import Seen

from .virtual_clock import EPOCH

DEADLINE = 60.0


def report(phase: ReportPhase, *, epoch: int = 1, move: MoveReport | None = None) -> JobReport:
    return JobReport(uid="u", epoch=epoch, phase=phase, boot_id="b", move=move)


def claim(verdict: Verdict, reason: str = "") -> Claim:
    return Claim(uid="u", epoch=2, verdict=verdict, reason=reason)


def move(**state: Any) -> Move:
    order = MoveOrder(
        migration="m", source="n1", destination="n2", peer="p", ticket="t", deadline=EPOCH + timedelta(seconds=DEADLINE)
    )
    ends = {
        role: Seen(node, 5, Placement(uid="u", epoch=2, role=role, spec=JobSpec(command=["x"]), move=order))
        for node, role in (("n1", Role.LEAVE), ("n2", Role.ARRIVE))
    }
    usual: dict[str, Any] = {
        "claim": None,
        "source_report": report(ReportPhase.RUNNING),
        "destination_report": report(ReportPhase.ARRIVING, epoch=2),
        "destination_ready": True,
    }
    return Move(order, "default/w", "u", 2, ends[Role.LEAVE], ends[Role.ARRIVE], **(usual | state))


GAVE_UP = MoveReport(migration="m", step="Resumed", ok=False, message="no")
ACCEPTED, REFUSED = claim(Verdict.ACCEPTED), claim(Verdict.REFUSED, "full")
FETCHING, SERVING = MoveReport(migration="m", step="Fetching"), MoveReport(migration="m", step="Serving", ok=True)
RUNNING_THERE = report(ReportPhase.RUNNING, epoch=2)


@pytest.mark.parametrize(
    ("state", "after", "expected"),
    [
        ({}, 0, "wait 62"),
        ({"source_report": report(ReportPhase.FROZEN)}, 0, "wait 62"),
        ({}, 61, "wait 1"),
        ({}, DEADLINE + MARGIN, "DeadlineExceeded"),
        ({"source_report": report(ReportPhase.FAILED)}, 0, "JobEnded"),
        ({"source_report": report(ReportPhase.LOST)}, 0, "JobEnded"),
        ({"source_report": report(ReportPhase.RUNNING, epoch=2, move=GAVE_UP)}, 0, "Refused"),
        ({"source_report": report(ReportPhase.RUNNING, epoch=1, move=GAVE_UP)}, 0, "wait 62"),
        (
            {"source_report": report(ReportPhase.RUNNING, epoch=2, move=GAVE_UP.model_copy(update={"migration": "older"}))},
            0,
            "wait 62",
        ),
        ({"source_report": report(ReportPhase.RUNNING, epoch=2, move=GAVE_UP.model_copy(update={"ok": None}))}, 0, "wait 62"),
        ({"source_report": None}, 0, "wait 62"),
        ({"destination_ready": False}, 0, "NodeNotReady"),
        ({"claim": REFUSED}, 0, "Refused"),
        ({"claim": REFUSED, "destination_ready": False}, 1000, "Refused"),
        ({"claim": REFUSED, "source_report": report(ReportPhase.FAILED)}, 0, "JobEnded"),
        ({"claim": ACCEPTED}, 0, "wait"),
        ({"claim": ACCEPTED}, 1000, "wait"),
        ({"claim": ACCEPTED, "destination_ready": False}, 1000, "wait"),
        ({"claim": ACCEPTED, "source_report": report(ReportPhase.FAILED)}, 0, "wait"),
        ({"claim": ACCEPTED, "destination_report": None}, 0, "wait"),
        ({"claim": ACCEPTED, "destination_report": RUNNING_THERE}, 0, "succeed"),
        ({"claim": ACCEPTED, "destination_report": RUNNING_THERE, "destination_ready": False}, 1000, "succeed"),
        ({"claim": ACCEPTED, "destination_report": report(ReportPhase.RUNNING, epoch=1)}, 0, "wait"),
        ({"claim": ACCEPTED, "destination_report": report(ReportPhase.SUCCEEDED, epoch=2)}, 0, "succeed"),
        ({"claim": ACCEPTED, "destination_report": report(ReportPhase.LOST, epoch=2)}, 0, "succeed"),
        ({"destination_report": RUNNING_THERE}, 0, "wait 62"),
        ({"claim": ACCEPTED, "destination_report": report(ReportPhase.RUNNING, epoch=2, move=FETCHING)}, 1000, "wait"),
        ({"claim": ACCEPTED, "destination_report": report(ReportPhase.LOST, epoch=2, move=FETCHING)}, 0, "succeed"),
    ],
)
def test_decide(state: dict[str, Any], after: float, expected: str) -> None:
    decision = decide(move(**state), EPOCH + timedelta(seconds=after))
    if isinstance(decision, CallOff):
        assert decision.reason == expected
    elif isinstance(decision, Wait):
        assert expected == ("wait" if decision.after is None else f"wait {decision.after:g}")
    else:
        assert isinstance(decision, Succeed) and expected == "succeed"


FROZEN = report(ReportPhase.FROZEN, epoch=2)
FENCED = Silence(True, "it stands still there since its node's lease ran out")
LOST = {"claim": ACCEPTED, "source_report": FROZEN, "destination_ready": False, "silence": FENCED}


def restarting(given: Move, policy: RestartPolicy) -> Move:
    """With that policy in the placement at the source."""
    assert given.source is not None
    spec = given.source.value.spec.model_copy(update={"restart": JobRestart(policy=policy)})
    seen = replace(given.source, value=given.source.value.model_copy(update={"spec": spec}))
    return replace(given, source=seen)


@pytest.mark.parametrize(
    ("state", "policy", "cancelled", "expected"),
    [
        ({}, RestartPolicy.FROM_CHECKPOINT, False, "NodeNotReady"),
        ({}, RestartPolicy.NEVER, True, "Cancelled"),
        ({}, RestartPolicy.FROM_CHECKPOINT, True, "Cancelled"),
        ({}, RestartPolicy.NEVER, False, "mxctl migrate --cancel m lets it go on at node/n1"),
        ({}, RestartPolicy.ON_FAILURE, False, "NodeNotReady"),
        ({"silence": Silence(False, "its node stops it", 4.0)}, RestartPolicy.FROM_CHECKPOINT, True, "its node stops it"),
        ({"silence": Silence(False, "it runs on")}, RestartPolicy.FROM_CHECKPOINT, False, "it runs on; bring node/n2 back"),
        ({"source_report": report(ReportPhase.LEFT, epoch=2)}, RestartPolicy.FROM_CHECKPOINT, True, "succeed"),
        ({"source_report": report(ReportPhase.FROZEN)}, RestartPolicy.FROM_CHECKPOINT, False, "nothing whole of it is left"),
        ({"source": None}, RestartPolicy.FROM_CHECKPOINT, True, "succeed"),
        ({"destination_ready": True}, RestartPolicy.FROM_CHECKPOINT, True, ""),
        ({"destination_report": RUNNING_THERE}, RestartPolicy.FROM_CHECKPOINT, True, "succeed"),
    ],
)
def test_a_destination_that_is_lost_with_the_job(
    state: dict[str, Any], policy: RestartPolicy, cancelled: bool, expected: str
) -> None:
    found = restarting(move(**LOST), policy)
    decision = decide(replace(found, **state), EPOCH + timedelta(seconds=1000), Wish(cancelled))
    if isinstance(decision, TakeBack):
        assert decision.reason == expected
    elif isinstance(decision, Wait):
        assert expected in decision.why
        assert (decision.why == "") == (expected == "")
    else:
        assert isinstance(decision, Succeed)
        assert expected == "succeed"


def test_whose_memory_is_to_follow_is_a_checkpoint_until_it_is_killed() -> None:
    found = restarting(move(**LOST), RestartPolicy.FROM_CHECKPOINT)
    follows = replace(found, order=found.order.model_copy(update={"mode": MigrationMode.POST_COPY}))
    there = replace(follows, destination_report=report(ReportPhase.RUNNING, epoch=2, move=FETCHING))
    assert isinstance(decide(there, EPOCH), TakeBack)
    serving = replace(there, source_report=report(ReportPhase.LEFT, epoch=2, move=SERVING))
    decision = decide(serving, EPOCH, Wish(cancelled=True))
    assert isinstance(decision, Wait), "the destination may still get it"
    assert "nothing whole" in decision.why
    assert isinstance(decide(serving, EPOCH, Wish(deleted=True)), Succeed), "its node stops what is left of it when it is back"
    served = replace(there, source_report=report(ReportPhase.LEFT, epoch=2, move=SERVING.model_copy(update={"step": "Gone"})))
    assert isinstance(decide(served, EPOCH), Succeed)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, "Cancelled"),
        ({"source_report": report(ReportPhase.FROZEN)}, "Cancelled"),
        ({"destination_ready": False}, "Cancelled"),
        ({"source_report": report(ReportPhase.FAILED)}, "JobEnded"),
        ({"claim": REFUSED}, "Refused"),
        ({"claim": ACCEPTED}, "wait"),
        ({"claim": ACCEPTED, "source_report": report(ReportPhase.FROZEN)}, "wait"),
        ({"claim": ACCEPTED, "destination_report": RUNNING_THERE}, "succeed"),
    ],
)
def test_what_is_cancelled_ends_unless_it_is_claimed(state: dict[str, Any], expected: str) -> None:
    decision = decide(move(**state), EPOCH, Wish(cancelled=True))
    assert expected == (decision.reason if isinstance(decision, CallOff) else type(decision).__name__.lower())
