"""Watches a directory: each file it makes there must be told, by its name."""

import ctypes
import os
import struct
import tempfile

from witness import steps

CREATED = 0x100
directory = tempfile.mkdtemp()
watcher = ctypes.CDLL(None).inotify_init()
assert ctypes.CDLL(None).inotify_add_watch(watcher, directory.encode(), CREATED) > 0


def check(n):
    path = os.path.join(directory, str(n))
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    data = os.read(watcher, 4096)
    _, mask, _, length = struct.unpack_from("iIII", data)
    assert mask & CREATED and data[16 : 16 + length].rstrip(b"\0") == str(n).encode()
    os.unlink(path)


steps(check)
