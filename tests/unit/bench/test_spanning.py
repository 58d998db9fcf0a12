"""What makespans are compared with: the published table of 300 s jobs on 16 nodes comes out."""

import pytest

from bench.spanning.bounds import idle_only, lengths_of, preemptive, static


@pytest.mark.parametrize(
    ("count", "still", "idle", "bound"),
    [
        (16, 300, 300, 300),
        (17, 600, 450, 318.75),
        (24, 600, 450, 450),
        (25, 600, 525, 468.75),
        (33, 900, 700, 618.75),
        (40, 900, 750, 750),
        (48, 900, 900, 900),
    ],
)
def test_the_published_table(count: int, still: float, idle: float, bound: float) -> None:
    lengths = [300.0] * count
    assert static(lengths, 16) == still
    assert idle_only(lengths, 16) == pytest.approx(idle)
    assert preemptive(lengths, 16) == bound


def test_nobody_beats_the_bound() -> None:
    for seed in range(50):
        lengths = lengths_of("random", 5 + seed % 20, 30.0, seed)
        assert preemptive(lengths, 8) <= idle_only(lengths, 8) + 1e-6 <= static(lengths, 8) + 1e-3
