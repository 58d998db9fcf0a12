"""The decision tables: what is never done, and what always is."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from crds.job import Fencing, JobSpec
from crds.placement import MoveOrder, Placement, Role
from crds.states import DestinationStep, SourceStep
from nodeagent.decide import Do, View, decide, decide_offline, guarded, needs_life
from nodeagent.journal import HERE, RUNS_HERE, STEPS, Record, Stage, Step

SPEC = JobSpec(command=["x"])
ORDER = MoveOrder(migration="m", source="a", destination="b", peer="b:1", ticket="t", deadline=datetime(2030, 1, 1, tzinfo=UTC))
RUNNABLE = {Do.START, Do.HOLD, Do.RESUME, Do.GO}
"""What may let a copy run here."""
KILLING = {Do.STOP, Do.FORGET, Do.LEFT, Do.REFUSE, Do.LOSE}


def placed(role: Role, epoch: int = 2, uid: str = "u") -> Placement:
    return Placement(uid=uid, epoch=epoch, role=role, spec=SPEC, move=None if role == Role.RUN else ORDER)


def record(step: Step, epoch: int = 2, life: int = 0) -> Record:
    return Record(namespace="d", name="w", uid="u", epoch=epoch, copy_epoch=1, life=life, step=step, spec=SPEC, order=ORDER)


def do(role: Role | None, step: Step, epoch: int = 2, *, ended: bool = False, failed: bool = False) -> Do:
    return decide(View(placed(role, epoch) if role else None, record(step), ended=ended, failed=failed))


@pytest.mark.parametrize(
    ("placement", "reported", "expected"),
    [
        (None, "", Do.NOTHING),
        (None, "u", Do.CLEAR),
        (placed(Role.RUN), "", Do.START),
        (placed(Role.RUN), "u", Do.REBUILD),
        (placed(Role.RUN), "another", Do.CLEAR),
        (placed(Role.ARRIVE), "", Do.PREPARE),
        (placed(Role.ARRIVE), "u", Do.REBUILD),
        (placed(Role.LEAVE), "", Do.LOSE),
        (placed(Role.RESTORE), "", Do.REVIVE),
        (placed(Role.RESTORE), "u", Do.REBUILD),
        (placed(Role.INHERIT), "", Do.INHERIT),
        (placed(Role.INHERIT), "another", Do.CLEAR),
    ],
)
def test_without_a_record(placement: Placement | None, reported: str, expected: Do) -> None:
    assert decide(View(placement, None, reported)) == expected


@pytest.mark.parametrize(
    ("role", "step", "expected"),
    [
        (Role.RUN, Stage.START, Do.START),
        (Role.RUN, Stage.HELD, Do.HOLD),
        (Role.RUN, Stage.ENDED, Do.KEEP),
        (Role.RUN, DestinationStep.RUNNING, Do.HOLD),
        (Role.RUN, DestinationStep.COMMITTING, Do.ASK),
        (Role.RUN, DestinationStep.COMMITTED, Do.GO),
        (Role.LEAVE, SourceStep.CONNECTING, Do.SEND),
        (Role.LEAVE, SourceStep.FREEZING, Do.RESUME),
        (Role.LEAVE, SourceStep.SENT, Do.WAIT),
        (Role.LEAVE, SourceStep.RESUMED, Do.HOLD),
        (Role.LEAVE, SourceStep.GONE, Do.LEFT),
        (Role.ARRIVE, DestinationStep.PREPARING, Do.RECEIVE),
        (Role.ARRIVE, DestinationStep.RECEIVING, Do.REFUSE),
        (Role.ARRIVE, DestinationStep.RESTORING, Do.REFUSE),
        (Role.ARRIVE, DestinationStep.COMMITTING, Do.ASK),
        (Role.ARRIVE, DestinationStep.COMMITTED, Do.GO),
        (Role.ARRIVE, DestinationStep.RUNNING, Do.HOLD),
        (Role.ARRIVE, DestinationStep.REFUSED, Do.REFUSE),
    ],
)
def test_under_the_order_it_acts_on(role: Role, step: Step, expected: Do) -> None:
    assert do(role, step) == expected


@pytest.mark.parametrize(
    ("role", "step", "expected"),
    [
        (Role.LEAVE, Stage.HELD, Do.LEAVE),
        (Role.LEAVE, SourceStep.RESUMED, Do.LEAVE),
        (Role.LEAVE, DestinationStep.RUNNING, Do.LEAVE),
        (Role.LEAVE, SourceStep.SENT, Do.RESUME),
        (Role.RUN, SourceStep.CONNECTING, Do.RESUME),
        (Role.RUN, SourceStep.FREEZING, Do.RESUME),
        (Role.RUN, SourceStep.SENT, Do.RESUME),
        (Role.RUN, SourceStep.GONE, Do.LOSE),
        (Role.RUN, DestinationStep.REFUSED, Do.LOSE),
        (Role.ARRIVE, SourceStep.SENT, Do.FORGET),
        (Role.ARRIVE, SourceStep.GONE, Do.FORGET),
        (Role.ARRIVE, DestinationStep.REFUSED, Do.FORGET),
        (Role.ARRIVE, DestinationStep.RECEIVING, Do.FORGET),
        (Role.ARRIVE, DestinationStep.COMMITTING, Do.ASK),
        (Role.ARRIVE, Stage.HELD, Do.CONTRADICTION),
    ],
)
def test_under_a_newer_placement(role: Role, step: Step, expected: Do) -> None:
    assert do(role, step, epoch=3) == expected


@pytest.mark.parametrize("step", STEPS.values())
def test_deletion_stops_what_is_ours_and_only_forgets_what_lives_elsewhere(step: Step) -> None:
    elsewhere = {
        SourceStep.SENT,
        SourceStep.SERVING,
        SourceStep.GONE,
        DestinationStep.PREPARING,
        DestinationStep.RECEIVING,
        DestinationStep.RESTORING,
        DestinationStep.REFUSED,
    }
    expected = Do.FORGET if step in elsewhere else Do.ASK if step == DestinationStep.COMMITTING else Do.STOP
    assert do(None, step) == expected
    assert decide(View(placed(Role.RUN, 1, uid="another"), record(step))) == expected


ALL = [(role, step, epoch) for role, step, epoch in itertools.product(Role, STEPS.values(), (1, 2, 3))]


@pytest.mark.parametrize(("role", "step", "epoch"), ALL)
def test_the_source_never_runs_again_by_itself_after_sent(role: Role, step: Step, epoch: int) -> None:
    if step in (SourceStep.SENT, SourceStep.SERVING, SourceStep.GONE) and not (epoch == 3 and role in (Role.RUN, Role.LEAVE)):
        assert do(role, step, epoch) not in RUNNABLE


@pytest.mark.parametrize(("role", "step", "epoch"), ALL)
def test_the_destination_never_runs_before_the_claim(role: Role, step: Step, epoch: int) -> None:
    if isinstance(step, DestinationStep) and step not in (
        DestinationStep.COMMITTED,
        DestinationStep.FETCHING,
        DestinationStep.RUNNING,
    ):
        assert do(role, step, epoch) not in RUNNABLE


@pytest.mark.parametrize(("role", "step", "epoch"), ALL)
def test_what_is_committed_or_runs_is_never_killed_by_a_placement(role: Role, step: Step, epoch: int) -> None:
    if role != Role.DROP and (step in RUNS_HERE or step == DestinationStep.COMMITTED):
        assert do(role, step, epoch) not in KILLING


@pytest.mark.parametrize(("role", "step"), list(itertools.product(Role, STEPS.values())))
def test_an_older_placement_is_never_acted_on(role: Role, step: Step) -> None:
    assert do(role, step, epoch=1) == Do.CONTRADICTION


@pytest.mark.parametrize("step", [*sorted(RUNS_HERE), SourceStep.CONNECTING, SourceStep.FREEZING, DestinationStep.COMMITTED])
@pytest.mark.parametrize("role", [Role.RUN, Role.LEAVE, Role.ARRIVE])
def test_an_end_is_told_whatever_the_placement_says(role: Role, step: Step) -> None:
    assert do(role, step, ended=True) == (Do.FORGET if role == Role.DROP else Do.END)


@pytest.mark.parametrize("step", STEPS.values())
@pytest.mark.parametrize("role", list(Role))
def test_an_earlier_life_is_removed_and_its_directory_is_not(role: Role, step: Step) -> None:
    placement = placed(role, epoch=9).model_copy(update={"life": 3})
    for ended in (False, True):
        assert decide(View(placement, record(step, epoch=2, life=2), ended=ended)) == Do.FORGET
    assert decide(View(placement, record(step, epoch=2, life=4))) == Do.CONTRADICTION, "a later life than the placement's"
    assert decide(View(placement, None, "u", 2)) == Do.CLEAR, "its report goes before anything is started"


@pytest.mark.parametrize("step", STEPS.values())
@pytest.mark.parametrize("epoch", [2, 3])
def test_what_lives_elsewhere_is_removed_and_its_directory_is_not(step: Step, epoch: int) -> None:
    assert do(Role.DROP, step, epoch) == Do.FORGET
    assert decide(View(placed(Role.DROP), None)) == Do.NOTHING
    assert decide(View(placed(Role.DROP), None, "u")) == Do.CLEAR


@pytest.mark.parametrize(("role", "step", "epoch"), ALL)
def test_only_the_order_to_restore_restores(role: Role, step: Step, epoch: int) -> None:
    restores = role == Role.RESTORE and step == Stage.RESTORE and epoch > 1
    assert (do(role, step, epoch) == Do.RESTORE) == restores


@pytest.mark.parametrize(("role", "step", "epoch"), ALL)
def test_a_checkpoint_is_taken_only_of_what_runs_and_is_to(role: Role, step: Step, epoch: int) -> None:
    due = View(placed(role, epoch), record(step), checkpoint_due=True)
    taken = decide(due) == Do.CHECKPOINT
    assert taken == (do(role, step, epoch) == Do.HOLD and epoch == 2)
    assert not taken or step in HERE
    assert decide(View(placed(role, epoch), record(step), checkpoint_due=True, ended=True)) != Do.CHECKPOINT


def test_a_frozen_copy_that_vanishes_after_sent_is_no_end() -> None:
    assert do(Role.LEAVE, SourceStep.SENT, ended=True) == Do.WAIT


@pytest.mark.parametrize(("role", "epoch"), [(Role.RUN, 2), (Role.ARRIVE, 2), (Role.RUN, 3), (Role.LEAVE, 3)])
def test_nothing_else_is_done_with_a_job_before_all_its_memory_is_here(role: Role, epoch: int) -> None:
    assert do(role, DestinationStep.FETCHING, epoch) == Do.FETCH


@pytest.mark.parametrize("ended", [False, True])
def test_what_was_severed_is_never_taken_back(ended: bool) -> None:
    for role, epoch in ((Role.LEAVE, 2), (Role.RUN, 3), (Role.LEAVE, 3)):
        assert do(role, SourceStep.SERVING, epoch, ended=ended) == Do.SERVE


def test_a_failed_attempt_is_not_repeated() -> None:
    assert do(Role.LEAVE, SourceStep.CONNECTING, failed=True) == Do.RESUME
    assert do(Role.ARRIVE, DestinationStep.PREPARING, failed=True) == Do.REFUSE


@pytest.mark.parametrize("step", STEPS.values())
@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("fenced", [False, True])
def test_what_was_taken_away_is_stale_whatever_it_is(step: Step, ended: bool, fenced: bool) -> None:
    view = View(placed(Role.DROP, 3), record(step), ended=ended, fenced=fenced)
    assert decide(view) == Do.FORGET, "killed as it stands, and its directory stays, for it lives elsewhere"


def test_what_was_taken_away_and_has_no_record_is_only_cleared() -> None:
    assert decide(View(placed(Role.DROP), None, "u")) == Do.CLEAR
    assert decide(View(placed(Role.DROP), None, "")) == Do.NOTHING


@pytest.mark.parametrize(("role", "step", "epoch"), ALL)
def test_a_fenced_copy_is_let_go_on_before_anything_that_needs_it_to_live(role: Role, step: Step, epoch: int) -> None:
    view = View(placed(role, epoch), record(step))
    plain, fenced = decide(view), decide(replace(view, fenced=True))
    if plain in RUNNABLE | {Do.STOP, Do.LEAVE, Do.SEND, Do.RECEIVE, Do.FETCH}:
        assert fenced == Do.THAW
        assert needs_life(view)
    else:
        assert fenced == plain
        assert not needs_life(view)


@pytest.mark.parametrize(("role", "step", "epoch"), ALL)
def test_a_stale_or_older_placement_never_thaws(role: Role, step: Step, epoch: int) -> None:
    if role == Role.DROP or epoch == 1:
        assert decide(View(placed(role, epoch), record(step), fenced=True)) != Do.THAW


def test_what_is_sent_or_ended_stands_as_it_is() -> None:
    assert decide(View(placed(Role.LEAVE), record(SourceStep.SENT), fenced=True)) == Do.WAIT
    assert decide(View(placed(Role.ARRIVE), record(DestinationStep.COMMITTING), fenced=True)) == Do.ASK
    assert decide(View(placed(Role.RUN), record(Stage.HELD), ended=True, fenced=True)) == Do.END


def test_criu_waits_for_a_fenced_copy_and_so_the_copy_is_let_go_on() -> None:
    view = View(placed(Role.LEAVE), record(SourceStep.FREEZING), busy=True)
    assert decide(view) == Do.WAIT
    assert decide(replace(view, fenced=True)) == Do.THAW


@pytest.mark.parametrize("step", STEPS.values())
def test_only_what_runs_is_killed_by_fencing(step: Step) -> None:
    assert guarded(record(step), Fencing.KILL) == (Fencing.KILL if step in RUNS_HERE else Fencing.FREEZE)
    assert guarded(record(step), Fencing.KEEP) == Fencing.KEEP
    assert guarded(record(step), Fencing.FREEZE) == Fencing.FREEZE


@pytest.mark.parametrize("step", STEPS.values())
def test_offline_only_what_is_safe_without_a_placement(step: Step) -> None:
    what = decide_offline(record(step))
    assert what in (Do.NOTHING, Do.HOLD, Do.RESUME, Do.GO)
    if step in (SourceStep.SENT, SourceStep.GONE, Stage.START, DestinationStep.COMMITTING, DestinationStep.RESTORING):
        assert what == Do.NOTHING
