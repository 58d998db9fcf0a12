"""Which moves were mistakes."""

import pytest

from reconciler.planning.undone import Step, returns, wasted

THERE, BACK = Step(10.0, "w", "n1", "n2"), Step(40.0, "w", "n2", "n1")


def test_back_and_nothing_had_happened() -> None:
    assert returns([BACK, THERE]) == [(10.0, 40.0)] == wasted([THERE, BACK], [])


@pytest.mark.parametrize(("news", "mistakes"), [([5.0, 50.0], 1), ([10.0], 0), ([25.0], 0), ([40.0], 0)])
def test_when_jobs_came_or_ended_meanwhile_it_is_none(news: list[float], mistakes: int) -> None:
    assert len(wasted([THERE, BACK], news)) == mistakes


def test_elsewhere_later_or_by_rotation_is_no_return() -> None:
    assert returns([THERE, Step(40.0, "w", "n2", "n3"), Step(50.0, "v", "n2", "n1")]) == []
    assert returns([THERE, Step(611.0, "w", "n2", "n1")]) == []
    assert returns([THERE, Step(40.0, "w", "n2", "n1", announced=True)]) == []


def test_every_return_counts() -> None:
    steps = [Step(float(n), "w", *(("n1", "n2") if n % 2 else ("n2", "n1"))) for n in range(1, 6)]
    assert len(wasted(steps, [])) == 4
