"""The table of how a move is decided."""

from datetime import timedelta
from typing import Any

import pytest

from crds.job import JobSpec
from crds.placement import MoveOrder, Placement, Role
from crds.report import Claim, JobReport, MoveReport, ReportPhase, Verdict
from reconciler.controllers.moving import MARGIN, CallOff, Move, Succeed, Wait, decide
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
FETCHING = MoveReport(migration="m", step="Fetching")
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
    decision = decide(move(**state), EPOCH, cancelled=True)
    assert expected == (decision.reason if isinstance(decision, CallOff) else type(decision).__name__.lower())
