"""A memfd, and memory that a parent and its child share; both are read back."""

import mmap
import os
import time

from witness import steps

file = os.memfd_create("matrix")
os.ftruncate(file, 4096)
anonymous = mmap.mmap(-1, 4096)
mapped = mmap.mmap(file, 4096)
if os.fork() == 0:
    while True:
        anonymous[0:8] = mapped[0:8]
        time.sleep(0.01)


def check(n):
    mapped[0:8] = n.to_bytes(8, "big")
    assert os.pread(file, 8, 0) == n.to_bytes(8, "big")
    for _ in range(6000):
        if anonymous[0:8] == n.to_bytes(8, "big"):
            return
        time.sleep(0.01)
    raise AssertionError("the child does not answer")


steps(check)
