"""Reads what the demo's jobs wrote and tells whether anything was lost: the jobs are the witnesses, not MX.

The lines are those of examples/work.py: ``start CPU TIME``, then ``NUMBER CPU TIME`` from 0 up, at the end ``end COUNT``.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statement:
    """What one job wrote. ``faults`` counts iterations that are missing, repeated or unreadable, and a missing end."""

    iterations: int
    faults: int
    cpu_seconds: float
    longest_pause: float
    """Longest time between two lines, seconds: it holds every freeze the job has seen."""


def read_statement(lines: Iterable[str]) -> Statement:
    """Check the lines of one finished job."""
    expected, faults, cpu, pause, last = 0, 0, 0.0, 0.0, 0.0
    ended = False
    for line in lines:
        match line.split():
            case ["start", spent, moment] if expected == 0 and not last:
                pass
            case [number, spent, moment] if number.isdigit() and not ended:
                faults += abs(int(number) - expected)
                expected = int(number) + 1
            case ["end", count] if count == str(expected) and not ended:
                ended = True
                continue
            case _:
                faults += 1
                continue
        cpu += float(spent)
        pause = max(pause, float(moment) - last if last else 0.0)
        last = float(moment)
    return Statement(expected, faults + (not ended), cpu, pause)
