"""timerfd, eventfd and signalfd, all waited for by one epoll."""

import ctypes
import os
import select
import signal
import struct

from witness import steps

libc = ctypes.CDLL(None, use_errno=True)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
timer, event = libc.timerfd_create(1, 0), os.eventfd(0)
signals = libc.signalfd(-1, (ctypes.c_ulong * 16)(1 << (signal.SIGUSR1 - 1)), 0)
assert min(timer, event, signals) >= 0
poll = select.epoll()
for descriptor in (timer, event, signals):
    poll.register(descriptor, select.EPOLLIN)


def await_one(descriptor, size):
    found = poll.poll(60)
    assert [each for each, _ in found] == [descriptor], found
    return os.read(descriptor, size)


def check(n):
    os.eventfd_write(event, n + 1)
    assert struct.unpack("Q", await_one(event, 8)) == (n + 1,)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert struct.unpack_from("I", await_one(signals, 128)) == (signal.SIGUSR1,)
    assert libc.timerfd_settime(timer, 0, struct.pack("qqqq", 0, 0, 0, 50_000_000), None) == 0
    assert struct.unpack("Q", await_one(timer, 8)) == (1,)


steps(check, 0.05)
