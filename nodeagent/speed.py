"""How fast a core of this machine is, measured once at the agent's start: some hundredths of a second of CPU time.

A fixed piece of work of the kind that programs do (bytecode, dictionaries, integers, sorting) is timed by CPU time, so that waiting
for the CPU does not count, and the best of several tries holds, so that a disturbance does not. The best over all starts is kept in
the state directory: a busy host makes a core look slow, nothing makes it look fast. What is alike is made equal by who reads it
(reconciler/controllers/speeds.py).
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

UNIT = 0.00085
"""Seconds that one piece takes on a core of speed 1."""
TRIES = (3, 12)
"""At least, and at most."""
ENOUGH = 0.03
"""Seconds of CPU time after which it is not tried again."""
FILE = "speed"


def piece() -> int:
    """The work. What it returns depends on all of it."""
    table: dict[int, int] = {}
    value = 1
    for number in range(2500):
        value = (value * 1103515245 + 12345 + number) & 0x7FFFFFFF
        table[value & 1023] = table.get(value & 1023, 0) + (value >> 7)
    return sum(sorted(table.values())[::3]) ^ pow(3, value, (1 << 521) - 1) & 0xFFFF


def measure(clock: Callable[[], float] = time.thread_time) -> float:
    """Speed of the core that runs this; 1 is an ordinary one of 2020. ``clock`` is CPU seconds of this thread."""
    began, best = clock(), float("inf")
    for number in range(TRIES[1]):
        start = clock()
        if number >= TRIES[0] and start - began > ENOUGH:
            break
        piece()
        best = min(best, clock() - start)
    return round(UNIT / max(best, 1e-9), 4)


def speed_of(state: Path, processor: str, measured: Callable[[], float] = measure) -> float:
    """The best that this machine's agents ever measured of this processor. What cannot be kept is measured anew next time."""
    file = state / FILE
    found = max(measured(), _known(file, processor))
    try:
        state.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{FILE}")
        fresh.write_text(json.dumps({"processor": processor, "speed": found}), encoding="utf-8")
        fresh.replace(file)
    except OSError as error:
        log.warning("the speed of this machine cannot be kept: %s", error)
    return found


def _known(file: Path, processor: str) -> float:
    """0 at the first start, or when what stands there is not what we wrote."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return float(known["speed"]) if known["processor"] == processor else 0.0
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
