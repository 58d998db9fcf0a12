"""Files deleted while open: a small one, one of 5 MB, and one that has another name left."""

import os
import tempfile

from witness import steps

BIG = 5_000_000
small, big = tempfile.TemporaryFile(), tempfile.TemporaryFile()
big.write(b"x" * BIG)
big.flush()
first = os.path.join(tempfile.mkdtemp(), "first")
linked = open(first, "w+b", buffering=0)
os.link(first, first + ".second")
os.unlink(first)


def check(n):
    word = b"%020d" % n
    for file in (small, linked):
        file.seek(0)
        file.write(word)
        file.flush()
        file.seek(0)
        assert file.read(20) == word
    assert open(first + ".second", "rb").read(20) == word
    big.seek(n * 4096 % BIG)
    assert big.read(1) == b"x"


steps(check)
