"""POSIX shared memory between two processes."""

import os
import time
from multiprocessing import shared_memory

from witness import steps

memory = shared_memory.SharedMemory(create=True, size=16)
if os.fork() == 0:
    while True:
        memory.buf[8:16] = memory.buf[0:8]
        time.sleep(0.01)


def check(n):
    memory.buf[0:8] = n.to_bytes(8, "big")
    for _ in range(6000):
        if bytes(memory.buf[8:16]) == n.to_bytes(8, "big"):
            return
        time.sleep(0.01)
    raise AssertionError("the other process does not see it")


steps(check)
