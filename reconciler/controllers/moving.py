"""How a move stands and what follows: the reconciler's part of the two-phase commit, as a pure function.

The destination's claim is the commit point. Only these things end a move, and etcd lets only one of them happen:
    Succeed   the claim is there and says accepted, and the destination's copy runs (or ran)
    CallOff   no accepted claim is there; the write that calls the move off compares the very absence (or refusal) we saw here
    TakeBack  the destination has accepted, is silent and must have fenced itself; the copy at the source still stands frozen,
              whole, and is used as the checkpoint that it is: unless the restart policy is Never, or if people call the move off
Anything else is waited for. In particular an accepted claim whose node is silent is waited for without end if its copy may still
run: two copies are worse than none.
"""

from dataclasses import dataclass
from datetime import datetime

from crds.job import RestartPolicy
from crds.migration import CANCELLED, JOB_ENDED, NODE_NOT_READY, REFUSED, TIMED_OUT
from crds.placement import MoveOrder, Placement, Role
from crds.report import ENDED, Claim, JobReport, ReportPhase, Verdict
from crds.states import DestinationStep, SourceStep
from reconciler.controllers.readiness import HEARD, Silence, is_ready
from reconciler.grid import Seen
from reconciler.world import World, split_key

MARGIN = 2.0
"""Seconds after the deadline before a move is called off: the agents give up by themselves first, which is gentler."""


@dataclass(frozen=True, slots=True)
class Move:
    """A move under way. Reports and the claim are those of this very job and epoch, or None."""

    order: MoveOrder
    job: str
    """The job's key."""
    uid: str
    epoch: int
    """Of the placement at the destination; the job ran at one less."""
    source: Seen[Placement] | None
    destination: Seen[Placement] | None
    claim: Claim | None
    source_report: JobReport | None
    destination_report: JobReport | None
    destination_ready: bool
    silence: Silence = HEARD
    """What is known of the job at the destination while that is silent."""


@dataclass(frozen=True, slots=True)
class Succeed:
    """The job belongs to the destination."""

    report: JobReport


@dataclass(frozen=True, slots=True)
class CallOff:
    """The job goes on at the source."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TakeBack(CallOff):
    """The job goes on at the source from the moment of its freeze; what the destination's copy did since does not count."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What people want meanwhile."""

    cancelled: bool = False
    """The move called off."""
    deleted: bool = False
    """The job deleted."""


NO_WISH = Wish()


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be said yet; ``after`` seconds from now something may be (None: wait for the destination)."""

    after: float | None
    why: str = ""
    """For people, when it takes them to go on."""


def find_move(world: World, namespace: str, migration: str, job: str | None) -> Move | None:
    """The move that carries out that Migration; None when there is none (any more).

    ``job`` is the job's key. None: the Migration's object was deleted meanwhile; the move is then found by its orders alone.
    """
    candidates = [job] if job else sorted({key for _, key, _ in world.placements if split_key(key)[0] == namespace})
    for key in candidates:
        ordered = {node: seen for node, seen in world.placements.of_job(key).items() if _is_ordered_by(seen.value, migration)}
        if ordered:
            return _move(world, key, ordered)
    return None


def _is_ordered_by(placement: Placement, migration: str) -> bool:
    return placement.role != Role.RUN and placement.move is not None and placement.move.migration == migration


def _move(world: World, job: str, ordered: dict[str, Seen[Placement]]) -> Move:
    first = next(iter(ordered.values())).value
    order, uid, epoch = first.move, first.uid, first.epoch
    if order is None:
        raise AssertionError("only placements with an order come here")
    claim = world.claims.find(order.destination, job)
    return Move(
        order=order,
        job=job,
        uid=uid,
        epoch=epoch,
        source=ordered.get(order.source),
        destination=ordered.get(order.destination),
        claim=claim.value if claim and (claim.value.uid, claim.value.epoch) == (uid, epoch) else None,
        source_report=_report(world, order.source, job, uid),
        destination_report=_report(world, order.destination, job, uid),
        destination_ready=is_ready(world, order.destination),
    )


def decide(move: Move, now: datetime, wish: Wish = NO_WISH) -> Succeed | CallOff | Wait:
    """What follows from what was seen. That the job ended is a better reason than that its destination got nothing of it.

    To call it off is too late once the destination has claimed the job.
    """
    report = move.source_report
    refused = move.claim is not None and move.claim.verdict == Verdict.REFUSED
    if (move.claim is None or refused) and report is not None and report.phase in ENDED:
        return CallOff(JOB_ENDED, f"the job ended on node/{move.order.source} before it could be moved")
    if move.claim is not None:
        return _claimed(move, move.claim, wish)
    if wish.cancelled:
        return CallOff(CANCELLED, "called off by request")
    if report is not None and _source_gave_up(move, report):
        return CallOff(REFUSED, f"node/{move.order.source}: {report.move.message if report.move else ''}")
    if not move.destination_ready:
        return CallOff(NODE_NOT_READY, f"node/{move.order.destination} does not answer and has not taken the job")
    left = (move.order.deadline - now).total_seconds() + MARGIN
    if left <= 0:
        return CallOff(TIMED_OUT, f"not taken by node/{move.order.destination} within its deadline")
    return Wait(left)


def _claimed(move: Move, claim: Claim, wish: Wish) -> Succeed | CallOff | Wait:
    if claim.verdict == Verdict.REFUSED:
        return CallOff(REFUSED, f"node/{move.order.destination}: {claim.reason or 'refused'}")
    report = move.destination_report
    if report is not None and report.epoch == move.epoch:
        fetching = _is_fetching(report)  # while memory follows the job, both nodes are needed
        if report.phase in (ReportPhase.RUNNING, *ENDED) and not fetching:
            return Succeed(report)
    return Wait(None) if move.destination_ready else _lost(move, wish)


def _lost(move: Move, wish: Wish) -> Succeed | TakeBack | Wait:
    """The destination has taken the job, is silent, and never said that it runs."""
    source, destination = f"node/{move.order.source}", f"node/{move.order.destination}"
    taken = f"{destination} has taken the job and does not answer"
    if move.destination_report is not None and (_has_left(move) or (wish.deleted and move.silence.fenced)):
        return Succeed(move.destination_report)  # what is left to be decided is not the move's matter
    if not move.silence.fenced:
        return Wait(move.silence.after, f"{taken}: {move.silence.why}; bring {destination} back")
    if not _stands_whole(move):
        return Wait(None, f"{taken}, and nothing whole of it is left on {source}: bring {destination} back, or delete the job")
    if wish.cancelled:
        return TakeBack(CANCELLED, f"{taken}; called off by request, so the job goes on at {source} as it was when it was frozen")
    if move.source is not None and move.source.value.spec.restart.policy != RestartPolicy.NEVER:
        return TakeBack(NODE_NOT_READY, f"{taken}; the job goes on at {source} as it was when it was frozen")
    how = f"mxctl migrate --cancel {move.order.migration} lets it go on at {source} as it was when it was frozen"
    return Wait(None, f"{taken}; {move.silence.why}: bring {destination} back, or {how}")


def _has_left(move: Move) -> bool:
    """Whether the source says that nothing of it is there any more, nor any memory that the destination may still get."""
    report = move.source_report
    left = report is not None and report.phase == ReportPhase.LEFT and report.epoch == move.epoch
    return move.source is None or (left and not _is_serving(report))


def _stands_whole(move: Move) -> bool:
    """Whether the source still has the frozen copy, with all its memory, however much of it the destination has got.

    It says so before it kills it, by a write that our placement would defeat."""
    report = move.source_report
    return move.source is not None and report is not None and report.phase == ReportPhase.FROZEN and report.epoch == move.epoch


def _is_fetching(report: JobReport) -> bool:
    return report.phase == ReportPhase.RUNNING and report.move is not None and report.move.step == DestinationStep.FETCHING


def _is_serving(report: JobReport | None) -> bool:
    return report is not None and report.move is not None and report.move.step == SourceStep.SERVING


def _source_gave_up(move: Move, report: JobReport) -> bool:
    """The source resumed the job itself, which it does only before the destination could have had everything.

    Its report carries the epoch of the order, so that of an earlier move of the same name says nothing.
    """
    about = report.move
    if about is None or about.migration != move.order.migration or report.epoch != move.epoch:
        return False
    return about.ok is False and report.phase == ReportPhase.RUNNING


def _report(world: World, node: str, job: str, uid: str) -> JobReport | None:
    seen = world.reports.find(node, job)
    return seen.value if seen and seen.value.uid == uid else None
