"""What to do with one job on this node: a pure function of its placement, its record and what its processes did.

It is asked again after everything that happens, and by a restarted agent; so there is no other place where a half-made move is
cleaned up. Tables, one for each way in which the placement relates to the record; a pair that no table names is a contradiction,
and on a contradiction nothing is done but saying so: the invariant (at most one running copy, never lost) stands above tidiness.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from crds.job import Fencing
from crds.placement import Placement, Role
from crds.states import DestinationStep, SourceStep
from nodeagent.journal import RUNS_HERE, STEPS, Record, Stage, Step


class Do(StrEnum):
    """One action; each ends with the record somewhere else, or with everything as it is to be (HOLD, KEEP, WAIT, NOTHING)."""

    NOTHING = "nothing"
    """The job is no matter of this node."""
    START = "start"
    REBUILD = "rebuild"
    """There is a report but no record: take from the report what can be known."""
    CLEAR = "clear"
    """Remove what is left of a job that is neither placed nor recorded here."""
    HOLD = "hold"
    """It runs here and is to."""
    END = "end"
    """It ended by itself: say so."""
    KEEP = "keep"
    """It ended; the report stays until the job is deleted."""
    INHERIT = "inherit"
    """No process of it is anywhere: have its directory, as if it had ended here."""
    STOP = "stop"
    """The job was deleted: end it, and remove its directory."""
    LOSE = "lose"
    """It should be here and is not."""
    LEAVE = "leave"
    """Begin to send it."""
    SEND = "send"
    WAIT = "wait"
    """Frozen and sent: only a new placement says how it goes on."""
    RESUME = "resume"
    """The move failed: it goes on here."""
    SERVE = "serve"
    """It runs elsewhere: kill the frozen copy, and hand out the rest of its memory."""
    LEFT = "left"
    """It runs elsewhere: kill the frozen copy."""
    PREPARE = "prepare"
    """Begin to receive it."""
    RECEIVE = "receive"
    REFUSE = "refuse"
    """It will never run here: say so, irrevocably."""
    ASK = "ask"
    """The claim may stand: ask for it."""
    GO = "go"
    """The claim stands: let it run."""
    THAW = "thaw"
    """It stands still since the node lost touch; it is still ours: let it go on as it was, then look again."""
    FETCH = "fetch"
    """It runs here: wait for the rest of its memory."""
    FORGET = "forget"
    """Remove what is here of it; it lives elsewhere, so its directory stays."""
    CHECKPOINT = "checkpoint"
    """It runs here, and a checkpoint of it is ordered."""
    REVIVE = "revive"
    """Begin to let it go on from a checkpoint."""
    RESTORE = "restore"
    CONTRADICTION = "contradiction"


class Relation(StrEnum):
    """How the placement relates to the record."""

    GONE = "gone"
    """None, or that of another job of the same name."""
    OLDER = "older"
    SAME = "same"
    NEWER = "newer"
    REBORN = "reborn"
    """The placement is of a later life of the job: it was started anew, or goes on from a checkpoint."""


Table = Mapping[Step, Do]

_ARRIVING: Table = {
    DestinationStep.COMMITTING: Do.ASK,
    DestinationStep.COMMITTED: Do.GO,
    DestinationStep.FETCHING: Do.FETCH,
}
_PLACED: Table = {
    **_ARRIVING,
    Stage.START: Do.START,
    Stage.STARTING: Do.START,
    Stage.HELD: Do.HOLD,
    Stage.ENDED: Do.KEEP,
    SourceStep.RESUMED: Do.HOLD,
    DestinationStep.RUNNING: Do.HOLD,
}
_NOT_HERE: Table = {
    SourceStep.SERVING: Do.SERVE,
    SourceStep.GONE: Do.LOSE,
    DestinationStep.PREPARING: Do.LOSE,
    DestinationStep.RECEIVING: Do.LOSE,
    DestinationStep.RESTORING: Do.LOSE,
    DestinationStep.REFUSED: Do.LOSE,
}
_CALLED_OFF: Table = {
    SourceStep.CONNECTING: Do.RESUME,
    SourceStep.FREEZING: Do.RESUME,
    SourceStep.SENT: Do.RESUME,
}
_HALF_ARRIVED: Table = {
    DestinationStep.PREPARING: Do.FORGET,
    DestinationStep.RECEIVING: Do.FORGET,
    DestinationStep.RESTORING: Do.FORGET,
    DestinationStep.REFUSED: Do.FORGET,
}
_SENT_AWAY: Table = {SourceStep.SENT: Do.FORGET, SourceStep.SERVING: Do.FORGET, SourceStep.GONE: Do.FORGET}

GONE: Table = {
    **_HALF_ARRIVED,
    **_SENT_AWAY,
    Stage.START: Do.STOP,
    Stage.STARTING: Do.STOP,
    Stage.RESTORE: Do.STOP,
    Stage.HELD: Do.STOP,
    Stage.ENDED: Do.STOP,
    SourceStep.CONNECTING: Do.STOP,
    SourceStep.FREEZING: Do.STOP,
    SourceStep.RESUMED: Do.STOP,
    DestinationStep.COMMITTING: Do.ASK,
    DestinationStep.COMMITTED: Do.STOP,
    DestinationStep.FETCHING: Do.STOP,
    DestinationStep.RUNNING: Do.STOP,
}
_RESTORED: Table = {
    Stage.RESTORE: Do.RESTORE,
    Stage.HELD: Do.HOLD,
    Stage.ENDED: Do.KEEP,
}
SAME: Mapping[Role, Table] = {
    Role.RESTORE: _RESTORED,
    Role.RUN: _PLACED,
    Role.LEAVE: {
        SourceStep.CONNECTING: Do.SEND,
        SourceStep.FREEZING: Do.RESUME,
        SourceStep.SENT: Do.WAIT,
        SourceStep.SERVING: Do.SERVE,
        SourceStep.RESUMED: Do.HOLD,
        SourceStep.GONE: Do.LEFT,
        Stage.ENDED: Do.KEEP,
    },
    Role.ARRIVE: {
        **_ARRIVING,
        DestinationStep.PREPARING: Do.RECEIVE,
        DestinationStep.RECEIVING: Do.REFUSE,
        DestinationStep.RESTORING: Do.REFUSE,
        DestinationStep.REFUSED: Do.REFUSE,
        DestinationStep.RUNNING: Do.HOLD,
        Stage.ENDED: Do.KEEP,
    },
    Role.INHERIT: {Stage.ENDED: Do.KEEP},
}
NEWER: Mapping[Role, Table] = {
    Role.RESTORE: _RESTORED,
    Role.RUN: {**_PLACED, **_NOT_HERE, **_CALLED_OFF},
    Role.LEAVE: {
        **_PLACED,
        **_NOT_HERE,
        **_CALLED_OFF,
        Stage.HELD: Do.LEAVE,
        SourceStep.RESUMED: Do.LEAVE,
        DestinationStep.RUNNING: Do.LEAVE,
    },
    Role.ARRIVE: {
        **_HALF_ARRIVED,
        **_SENT_AWAY,
        DestinationStep.COMMITTING: Do.ASK,
        Stage.ENDED: Do.KEEP,
    },
    Role.INHERIT: {**_HALF_ARRIVED, **_SENT_AWAY, Stage.ENDED: Do.KEEP},
}
DROPPED: Table = dict.fromkeys(STEPS.values(), Do.FORGET)
"""It was taken away while this node was silent: whatever is here is stale, and must not execute one more instruction."""

FENCED: Mapping[Do, Do] = {
    Do.START: Do.THAW,
    Do.HOLD: Do.THAW,
    Do.STOP: Do.THAW,
    Do.LEAVE: Do.THAW,
    Do.SEND: Do.THAW,
    Do.CHECKPOINT: Do.THAW,
    Do.RESUME: Do.THAW,
    Do.RECEIVE: Do.THAW,
    Do.GO: Do.THAW,
    Do.FETCH: Do.THAW,
}
"""What has to wait until the copy does not stand still any more by fencing. All else is done to it as it stands: what ends a stale
copy must not let it run before, and what was sent or waits for its claim stands still anyway."""

_ENDS = RUNS_HERE | {SourceStep.CONNECTING, SourceStep.FREEZING, DestinationStep.COMMITTED}


@dataclass(frozen=True, slots=True)
class View:
    """All that counts. ``reported`` is the uid of the report that stands without a record, "" when none does."""

    placement: Placement | None
    record: Record | None
    reported: str = ""
    reported_life: int = 0
    """The life which that report is about."""
    ended: bool = False
    """The processes of the copy have ended (or are gone)."""
    failed: bool = False
    """The activity of this step was tried and failed."""
    fenced: bool = False
    """The copy stands still because the node lost touch."""
    busy: bool = False
    """The activity of this step is under way."""
    checkpoint_due: bool = False
    """The placement orders a checkpoint of which nothing is known yet."""


def relation(placement: Placement | None, record: Record) -> Relation:
    """By uid first, then by life, then by epoch."""
    if placement is None or placement.uid != record.uid:
        return Relation.GONE
    if placement.life != record.life:
        return Relation.REBORN if placement.life > record.life else Relation.OLDER
    if placement.epoch == record.epoch:
        return Relation.SAME
    return Relation.NEWER if placement.epoch > record.epoch else Relation.OLDER


def decide(view: View) -> Do:
    """The one thing to do now."""
    if view.busy:
        return Do.THAW if view.fenced else Do.WAIT
    what = _decide(view)
    return FENCED.get(what, what) if view.fenced else what


def needs_life(view: View) -> bool:
    """Whether the copy is to go on here, fenced or not, in whatever way."""
    return _decide(view) in FENCED


def guarded(record: Record, wish: Fencing) -> Fencing:
    """What becomes of the copy when the node loses touch. What does not run (yet) need not be killed: it is frozen."""
    return Fencing.FREEZE if wish == Fencing.KILL and record.at not in RUNS_HERE else wish


def _decide(view: View) -> Do:
    if view.record is None:
        return _unrecorded(view)
    step = view.record.at
    how = relation(view.placement, view.record)
    if how == Relation.OLDER:
        return Do.CONTRADICTION
    if how != Relation.GONE and view.placement is not None and view.placement.role == Role.DROP:
        return DROPPED[step]
    if how == Relation.GONE or view.placement is None:
        return GONE.get(step, Do.CONTRADICTION)
    if how == Relation.REBORN:
        return Do.FORGET
    if view.ended and step in _ENDS:
        return Do.END
    if view.failed and step == SourceStep.CONNECTING:
        return Do.RESUME
    if view.failed and step == DestinationStep.PREPARING and view.placement.role == Role.ARRIVE and how == Relation.SAME:
        return Do.REFUSE
    tables = SAME if how == Relation.SAME else NEWER
    what = tables[view.placement.role].get(step, Do.CONTRADICTION)
    return Do.CHECKPOINT if what == Do.HOLD and view.checkpoint_due and how == Relation.SAME else what


def decide_offline(record: Record) -> Do:
    """What needs no placement, so that a restarted agent does not keep a job waiting for etcd."""
    offline: Table = {
        Stage.HELD: Do.HOLD,
        SourceStep.CONNECTING: Do.HOLD,
        SourceStep.RESUMED: Do.HOLD,
        SourceStep.FREEZING: Do.RESUME,
        DestinationStep.RUNNING: Do.HOLD,
        DestinationStep.COMMITTED: Do.GO,
    }
    return offline.get(record.at, Do.NOTHING)


def _unrecorded(view: View) -> Do:
    if view.placement is None or view.placement.role == Role.DROP:
        return Do.CLEAR if view.reported else Do.NOTHING
    if view.reported:
        same = view.reported == view.placement.uid and view.reported_life == view.placement.life
        return Do.REBUILD if same else Do.CLEAR
    return _UNRECORDED[view.placement.role]


_UNRECORDED: Mapping[Role, Do] = {
    Role.RUN: Do.START,
    Role.ARRIVE: Do.PREPARE,
    Role.LEAVE: Do.LOSE,
    Role.RESTORE: Do.REVIVE,
    Role.INHERIT: Do.INHERIT,
}
