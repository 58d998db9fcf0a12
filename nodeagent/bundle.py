"""Modules from one file: a daemon's start on a machine whose programs are on a server.

There each module costs half a dozen questions to the server, and a daemon imports some four hundred. So the image has their
compiled code in one file more, in the order in which they are imported. It only saves time: what is not in it, or was made for
another Python, is imported as ever. bundler.py makes it.

Layout: the interpreter's magic number, 8 bytes with the length of the index, the index ``{module: (file, directories or None,
offset, size)}``, then the code.
"""

import gc
import marshal
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER, spec_from_file_location
from types import CodeType, ModuleType

Index = dict[str, tuple[str, list[str] | None, int, int]]
LENGTH = 8
"""Bytes of the number that tells how long the index is."""


class _Loader(SourceFileLoader):
    """As for a file, but for the code."""

    def __init__(self, name: str, path: str, descriptor: int, offset: int, size: int) -> None:
        super().__init__(name, path)
        self._at = (descriptor, size, offset)

    def get_code(self, fullname: str) -> CodeType:
        descriptor, size, offset = self._at
        code: CodeType = marshal.loads(os.pread(descriptor, size, offset))
        return code


class _Finder:
    """Knows the modules of one bundle."""

    def __init__(self, descriptor: int, index: Index, start: int) -> None:
        self._descriptor, self._index, self._start = descriptor, index, start

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        found = self._index.get(name)
        if found is None:
            return None
        file, directories, offset, size = found
        loader = _Loader(name, file, self._descriptor, self._start + offset, size)
        return spec_from_file_location(name, file, loader=loader, submodule_search_locations=directories)


def use(file: str) -> bool:
    """From now on modules come from there. False when there is none for this Python.

    Who has imported all switches the garbage collector on again: it would look at what stays anyway, a tenth of the time.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    head = len(MAGIC_NUMBER) + LENGTH
    begin = os.pread(descriptor, head, 0)
    if begin[: len(MAGIC_NUMBER)] != MAGIC_NUMBER:
        os.close(descriptor)
        return False
    size = int.from_bytes(begin[len(MAGIC_NUMBER) :])
    index: Index = marshal.loads(os.pread(descriptor, size, head))
    gc.disable()
    sys.meta_path.insert(0, _Finder(descriptor, index, head + size))
    return True
