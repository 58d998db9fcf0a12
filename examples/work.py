"""An ordinary CPU-bound program, as people write it: numpy, a loop, a line of output now and then. It knows nothing of MX.

    work.py CPU_SECONDS [MEGABYTES]

It works for CPU_SECONDS, keeping MEGABYTES of memory whose checksum must be right at the end, and prints a line for each
iteration: its number, the CPU seconds it took and the time of day. Whoever reads the lines sees whether an iteration was lost or
done twice, how much work it was, and when the program stood still. The first line tells what starting cost, the last one how many
iterations there were.
"""

import itertools
import sys
import time

import numpy as np

SIDE = 160


def work(matrix: np.ndarray) -> np.ndarray:
    """Some ten milliseconds of arithmetic that cannot be skipped."""
    for _ in range(20):
        matrix = np.tanh(matrix * 1.001 + 0.1)
    return matrix


def main() -> None:
    seconds = float(sys.argv[1])
    megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    ballast = np.random.default_rng(1).random(megabytes * 2**17)
    checksum = ballast.sum()
    matrix = np.random.default_rng(2).random((SIDE, SIDE))
    before, done = time.process_time(), 0.0
    print("start", f"{before:.6f}", f"{time.time():.6f}", flush=True)
    for number in itertools.count():
        matrix = work(matrix)
        now = time.process_time()
        # A restored process starts its CPU clock anew: that one iteration counts as nothing.
        spent = max(0.0, now - before)
        before, done = now, done + spent
        print(number, f"{spent:.6f}", f"{time.time():.6f}", flush=True)
        if done >= seconds:
            break
    if ballast.sum() != checksum:
        sys.exit("the memory changed on the way")
    print("end", number + 1, flush=True)


if __name__ == "__main__":
    main()
