"""File locks: flock, fcntl and a lock of an open file description; another process must find them taken at each step."""

import fcntl
import os
import struct
import subprocess
import sys
import tempfile

from witness import steps

OFD_SETLK = 37
WHOLE = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
TRY = """
import fcntl, struct, sys
for path, take in zip(sys.argv[1:], (lambda f: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB),
                                     lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB),
                                     lambda f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB))):
    with open(path, "r+") as file:
        try:
            take(file)
        except BlockingIOError:
            continue
        print("free:", path)
"""
directory = tempfile.mkdtemp()
paths = [os.path.join(directory, name) for name in ("flock", "posix", "ofd")]
files = [open(path, "w+") for path in paths]
fcntl.flock(files[0], fcntl.LOCK_EX)
fcntl.lockf(files[1], fcntl.LOCK_EX)
fcntl.fcntl(files[2], OFD_SETLK, WHOLE)


def check(n):
    if n % 5 == 0:
        said = subprocess.run([sys.executable, "-c", TRY, *paths], capture_output=True, text=True, timeout=60, check=True).stdout
        assert said == "", said


steps(check)
