"""Who waits for the beat wakes with all others, and never at once."""

import math

from hypothesis import example, given
from hypothesis import strategies as st

from nodeagent.beat import Beat

TIMES = st.floats(0, 1e7)


@given(TIMES, st.sampled_from([0.02, 1.0, 3.0, 10.0]))
@example(0.0, 1.0)
def test_the_next_beat_is_near_but_not_now(now: float, seconds: float) -> None:
    assert 0 < Beat("n1").until(seconds, now) <= seconds


@given(TIMES)
def test_a_beat_of_three_seconds_falls_on_one_of_a_second(now: float) -> None:
    beat = Beat("n1")
    late = now + beat.until(3.0, now)
    rest = beat.until(1.0, late)
    assert math.isclose(rest, 1.0, abs_tol=1e-5) or math.isclose(rest, 0.0, abs_tol=1e-5)


def test_nodes_of_one_machine_do_not_wake_together() -> None:
    assert len({round(Beat(f"n{i}").until(1.0, 0.0), 3) for i in range(20)}) > 15
