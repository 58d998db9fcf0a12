"""Makes a bundle (bundle.py) of all that importing MODULE imports: ``python -m nodeagent.bundler FILE MODULE [FROM TO]``.

Run by the image's own Python, with everything compiled already.
"""

import importlib
import marshal
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from nodeagent.bundle import LENGTH, Index

_PYC_HEAD = 16
"""Bytes before the code in a .pyc (PEP 552)."""


def pack(module: str, seen_at: str = "", belongs_at: str = "") -> bytes:
    """Imports it; the bundle of all compiled Python modules that have been imported then.

    What lies below ``seen_at`` now will lie below ``belongs_at``.
    """
    importlib.import_module(module)
    index: Index = {}
    codes: list[bytes] = []
    offset = 0
    for name, each in list(sys.modules.items()):
        spec = each.__spec__
        if name == "__main__" or spec is None or not isinstance(spec.loader, SourceFileLoader) or not _is_compiled(spec):
            continue
        code = Path(spec.cached or "").read_bytes()[_PYC_HEAD:]
        places = [spec.origin or "", *(spec.submodule_search_locations or ())]
        file, *directories = [_moved(place, seen_at, belongs_at) for place in places]
        index[name] = (file, None if spec.submodule_search_locations is None else directories, offset, len(code))
        codes.append(code)
        offset += len(code)
    table = marshal.dumps(index, 2)  # the plain form, which is the same each time
    return b"".join([MAGIC_NUMBER, len(table).to_bytes(LENGTH), table, *codes])


def _is_compiled(spec: ModuleSpec) -> bool:
    return spec.cached is not None and Path(spec.cached).exists()


def _moved(place: str, seen_at: str, belongs_at: str) -> str:
    return belongs_at + place.removeprefix(seen_at) if seen_at and place.startswith(f"{seen_at}/") else place


def main(file: str, *what: str) -> None:
    """Makes one."""
    Path(file).write_bytes(pack(*what))


if __name__ == "__main__":
    main(*sys.argv[1:])
