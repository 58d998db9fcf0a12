"""Eight threads that hand a number on in a ring."""

import queue
import threading

from witness import steps

RING = [queue.Queue() for _ in range(8)]


def hand_on(here, there):
    while True:
        there.put(here.get() + 1)


for number in range(7):
    threading.Thread(target=hand_on, args=(RING[number], RING[number + 1]), daemon=True).start()


def check(n):
    RING[0].put(n)
    assert RING[7].get(timeout=60) == n + 7


steps(check)
