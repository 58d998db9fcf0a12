"""Traces in the Standard Workload Format: a line a job, 18 numbers, -1 for what is not known; lines with ; are comments.

Format: Chapin et al., "Benchmarks and standards for the evaluation of parallel job schedulers" (1999); what archives of real
clusters use.
A job of p processors becomes p jobs of one task: processes that move one by one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.simulation.work import Work

FIELDS = 18
SUBMIT, RUN, PROCESSORS, CPU, MEMORY, WANTED_PROCESSORS = 1, 3, 4, 5, 6, 7
KIB = 1024


@dataclass(frozen=True, slots=True)
class BrokenTrace(ValueError):  # noqa: N818 - it is the trace that is broken
    """A line (from 1) that is no job."""

    line: int
    message: str


def read_trace(text: str, *, most: int = 0, memory: int = 0, faster: float = 1.0) -> list[Work]:
    """Its jobs, arrivals counted from the first one, ``faster`` times as quick. Raises BrokenTrace.

    ``most``: so many of them, 0 all. ``memory``: bytes by process where the trace does not say.
    """
    works: list[Work] = []
    first: float | None = None
    lines = 0
    for number, values in _lines(text):
        if most and lines >= most:
            break
        processors = int(values[PROCESSORS] if values[PROCESSORS] > 0 else max(1.0, values[WANTED_PROCESSORS]))
        seconds = values[CPU] if values[CPU] > 0 else values[RUN]
        if seconds <= 0:
            continue  # cancelled before it ran
        if values[SUBMIT] < 0:
            raise BrokenTrace(number, f"submit time {values[SUBMIT]:g} is before the trace begins")
        first = values[SUBMIT] if first is None else first
        size = int(values[MEMORY] * KIB) if values[MEMORY] > 0 else memory
        lines += 1
        arrival = max(0.0, (values[SUBMIT] - first) / faster)
        works += _parts(f"l{number}", processors, seconds, arrival, size)
    return works


def _parts(name: str, processors: int, seconds: float, arrival: float, size: int) -> Iterator[Work]:
    if processors == 1:
        yield Work(name, seconds, arrival=arrival, memory=size)
        return
    for part in range(processors):
        yield Work(f"{name}.{part}", seconds, arrival=arrival, memory=size, batch=name)


def _lines(text: str) -> Iterator[tuple[int, list[float]]]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition(";")[0].split()
        if not words:
            continue
        if len(words) < FIELDS:
            raise BrokenTrace(number, f"{len(words)} fields; a job of the Standard Workload Format has {FIELDS}")
        try:
            yield number, [float(word) for word in words[:FIELDS]]
        except ValueError:
            wrong = next(word for word in words if not _is_number(word))
            raise BrokenTrace(number, f'"{wrong}" is not a number') from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
