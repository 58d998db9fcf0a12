"""The journal keeps the last intact line of each job, whatever a crash tore; steps go by the tables."""

from pathlib import Path

import pytest

from crds.job import JobSpec
from crds.states import DESTINATION_MOVE, SOURCE_MOVE, DestinationStep, SourceStep
from nodeagent.journal import KEPT_LINES, Journal, JournalBroken, Record, Stage, Step, check_step


def record(step: Step = Stage.HELD, name: str = "w", epoch: int = 1) -> Record:
    return Record(
        namespace="default", name=name, uid="u1", epoch=epoch, copy_epoch=1, step=step, spec=JobSpec(command=["x"], env={"A": "ü"})
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def file_of(directory: Path) -> Path:
    (file,) = directory.glob("*.jsonl")
    return file


def test_what_was_written_is_read_back(directory: Path) -> None:
    journal = Journal(directory)
    journal.write(record(Stage.START))
    journal.write(record(Stage.HELD))
    journal.write(record(SourceStep.SENT, name="x.y"))
    assert Journal(directory).load() == {"default/w": record(Stage.HELD), "default/x.y": record(SourceStep.SENT, name="x.y")}


def test_removed_is_gone(directory: Path) -> None:
    journal = Journal(directory)
    journal.write(record())
    journal.remove("default/w")
    journal.remove("default/w")
    assert Journal(directory).load() == {}
    journal.write(record(Stage.START))
    assert Journal(directory).load() == {"default/w": record(Stage.START)}


def test_a_torn_last_line_is_passed_over_wherever_it_was_torn(directory: Path) -> None:
    journal = Journal(directory)
    journal.write(record(SourceStep.FREEZING))
    whole = file_of(directory).read_bytes()
    journal.write(record(SourceStep.SENT))
    both = file_of(directory).read_bytes()
    for length in range(len(whole), len(both)):
        file_of(directory).write_bytes(both[:length])
        assert Journal(directory).load()["default/w"].at == SourceStep.FREEZING, length


def test_a_line_after_a_torn_one_counts(directory: Path) -> None:
    journal = Journal(directory)
    journal.write(record(SourceStep.FREEZING))
    with file_of(directory).open("ab") as file:
        file.write(b"01234567 {half")
    again = Journal(directory)
    again.load()
    again.write(record(SourceStep.RESUMED))
    assert Journal(directory).load()["default/w"].at == SourceStep.RESUMED


def test_a_flipped_bit_is_noticed(directory: Path) -> None:
    journal = Journal(directory)
    journal.write(record(epoch=1))
    raw = bytearray(file_of(directory).read_bytes())
    raw[raw.index(b'"epoch":1') + 8] = ord("7")
    file_of(directory).write_bytes(raw)
    assert Journal(directory).load() == {}
    assert [path.suffix for path in directory.iterdir()] == [".broken"]


def test_a_file_stays_short(directory: Path) -> None:
    journal = Journal(directory)
    for epoch in range(1, 3 * KEPT_LINES):
        journal.write(record(epoch=epoch))
    assert file_of(directory).read_bytes().count(b"\n") <= KEPT_LINES
    assert Journal(directory).load()["default/w"].epoch == 3 * KEPT_LINES - 1


@pytest.mark.parametrize("old", [step for step in SourceStep if step != SourceStep.RESUMED])
@pytest.mark.parametrize("new", list(SourceStep))
def test_the_source_goes_by_its_table(old: SourceStep, new: SourceStep) -> None:
    if new == old or new in SOURCE_MOVE[old]:
        check_step(record(old), new)
    else:
        with pytest.raises(JournalBroken):
            check_step(record(old), new)


@pytest.mark.parametrize("old", list(DestinationStep))
@pytest.mark.parametrize("new", list(DestinationStep))
def test_the_destination_goes_by_its_table(old: DestinationStep, new: DestinationStep) -> None:
    if new == old or new in DESTINATION_MOVE[old]:
        check_step(record(old), new)
    else:
        with pytest.raises(JournalBroken):
            check_step(record(old), new)


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        (Stage.HELD, SourceStep.CONNECTING, True),
        (SourceStep.RESUMED, SourceStep.CONNECTING, True),
        (DestinationStep.RUNNING, SourceStep.CONNECTING, True),
        (Stage.START, SourceStep.CONNECTING, False),
        (Stage.ENDED, SourceStep.CONNECTING, False),
        (Stage.HELD, SourceStep.SENT, False),
        (DestinationStep.COMMITTED, SourceStep.CONNECTING, False),
        (Stage.HELD, DestinationStep.RECEIVING, False),
        (Stage.START, Stage.HELD, True),
        (SourceStep.FREEZING, Stage.ENDED, True),
        (SourceStep.GONE, Stage.HELD, False),
        (DestinationStep.REFUSED, Stage.HELD, False),
    ],
)
def test_between_moves(old: Step, new: Step, allowed: bool) -> None:
    if allowed:
        check_step(record(old), new)
    else:
        with pytest.raises(JournalBroken):
            check_step(record(old), new)
