"""The job whose freeze is measured: MEGABYTES of memory, idle or writing all over it, and a witness of its own freezes.

    python3 job.py MEGABYTES idle|writing FILE

A line ``unix_time gap_ms`` is appended to FILE whenever two looks at the clock lie more than 15 ms apart. CLOCK_REALTIME: criu
restores into a new time namespace, which hides a freeze from the monotonic clock. Standard library only: it runs in a node.
"""

import sys
import time

LEAST = 0.015  # seconds
PIECE = 1 << 20


def main(megabytes: int, writing: bool, path: str) -> None:
    memory = [bytearray(bytes(range(1, 256)) * (PIECE // 255 + 1)) for _ in range(megabytes)]
    with open(path, "a", buffering=1) as out:  # noqa: PTH123 - no imports that are not needed
        out.write(f"{time.time()} 0\n")
        last, turn = time.time(), 0
        while True:
            if writing:
                memory[turn % len(memory)][::4096] = bytes([turn // len(memory) % 256]) * len(memory[0][::4096])
                turn += 1
            time.sleep(0.001)
            now = time.time()
            if now - last > LEAST:
                out.write(f"{now} {(now - last) * 1000:.1f}\n")
            last = now


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "writing", sys.argv[3])
