"""System V: a shared memory segment, a semaphore and a message queue between two processes."""

import ctypes
import errno
import os
import struct
import time

from witness import steps

CREATE = 0o1600
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p


def call(name, *arguments):
    """The call's result; begun again after EINTR, which semop gives to everyone who was stopped (signal(7))."""
    while True:
        result = getattr(libc, name)(*arguments)
        if result not in (-1, None, ctypes.c_void_p(-1).value):
            return result
        if ctypes.get_errno() != errno.EINTR:
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


segment = call("shmget", 4711, 4096, CREATE)
address = call("shmat", segment, None, 0)
queue = call("msgget", 4712, CREATE)
semaphore = call("semget", 4713, 1, CREATE)
memory = (ctypes.c_uint64 * 2).from_address(address)
MESSAGE = struct.Struct("lQ")

if os.fork() == 0:
    message = ctypes.create_string_buffer(MESSAGE.size)
    while True:
        call("msgrcv", queue, message, 8, 1, 0)
        memory[1] = MESSAGE.unpack(message.raw)[1]
        call("semop", semaphore, struct.pack("=HhH", 0, 1, 0), 1)


def check(n):
    memory[0] = n
    call("msgsnd", queue, MESSAGE.pack(1, n), 8, 0)
    call("semop", semaphore, struct.pack("=HhH", 0, -1, 0), 1)
    assert (memory[0], memory[1]) == (n, n)
    time.sleep(0)


steps(check)
