"""For the matrix's Python programs: prints 0, 1, 2, … one a step, after the step has checked its own data."""

import itertools
import sys
import time

PAUSE = 0.1  # seconds between two steps


def steps(check, pause=PAUSE):
    """Calls ``check(n)`` before it says n; what it raises ends the job, and the test finds it in the output."""
    for n in itertools.count():
        check(n)
        sys.stdout.write(f"{n}\n")
        sys.stdout.flush()
        time.sleep(pause)
