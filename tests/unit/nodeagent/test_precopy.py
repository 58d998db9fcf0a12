"""How many rounds of pre-copy are made, and what criu is told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.criu import dump_command, last_dump_command, pre_dump_command
from nodeagent.precopy import MOST_ROUNDS, Passed, directory_of, parent_of, worth_another

MEGA = 1 << 20


def rounds(*megabytes: float) -> list[Passed]:
    """At 100 MB a second."""
    return [Passed(int(size * MEGA), size / 100) for size in megabytes]


@pytest.mark.parametrize(
    ("sent", "budget", "expected"),
    [
        ((), None, True),
        ((1000,), None, True),
        ((1000, 100), None, True),
        ((1000, 100, 9), None, False),
        ((1000, 100), 2.0, False),
        ((1000,), 20.0, False),
        ((1000, 900), None, False),
        ((1000, 700), None, True),
        ((1000, 700, 600), None, False),
    ],
)
def test_rounds_go_on_while_they_shrink_and_the_freeze_is_too_long(
    sent: tuple[float, ...], budget: float | None, expected: bool
) -> None:
    assert worth_another(rounds(*sent), budget) == expected


@given(st.lists(st.floats(0, 1e5), min_size=MOST_ROUNDS), st.none() | st.floats(0.001, 100))
def test_rounds_come_to_an_end(sent: list[float], budget: float | None) -> None:
    assert not worth_another(rounds(*sent), budget)


def test_criu_is_told_where_the_round_before_lies() -> None:
    images, log = Path("/run/mx/images/a"), Path("/run/mx/log")
    first = pre_dump_command(7, directory_of(images, 1), log, None)
    assert first == ["criu", "pre-dump", "-t", "7", "-D", "/run/mx/images/a/round-1", "--track-mem", "-o", "/run/mx/log"]
    second = pre_dump_command(7, directory_of(images, 2), log, parent_of(2))
    assert second[6:9] == ["--track-mem", "--prev-images-dir", "../round-1"]
    assert (directory_of(images, 2) / parent_of(2)).resolve() == directory_of(images, 1)
    last = last_dump_command(7, images, log, "round-2")
    assert last == [*dump_command(7, images, log), "--track-mem", "--prev-images-dir", "round-2"]
