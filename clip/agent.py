"""Builds the agent layer: this project's own packages and their entry scripts, on top of the base layer.

It is a layer of its own so that a change of our source costs a second, not an image. The entry scripts decide how the
processes look in ``ps``: the shim's line must not contain the words nodeagent, reconciler or etcd, as people kill daemons
with ``pkill -f`` and jobs have to survive that.
"""

import hashlib
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

from clip import systemd
from clip.errors import SourceChanged
from clip.recipe import CONSTRAINTS, DEPENDENCIES
from clip.workshop import HOST, Workshop

PACKAGES = ("crds", "store", "nodeagent", "reconciler", "clip")
LIBRARY = "usr/lib/mx"
UNITS = "usr/lib/systemd/system"
PYPROJECT = "pyproject.toml"
SUFFIXES = frozenset({".py", ".json", ".yaml", ".sh", ".cnf"})
ENTRIES = {
    "mx-nodeagent": ("nodeagent", "-sE", True),
    "mx-reconciler": ("reconciler", "-sE", True),
    "mx-clip": ("clip.service", "-sE", True),
    "mx-join": ("clip.join", "-sE", True),
    "mx-guard": ("nodeagent.guard", "-ISE", False),
    "mx-shim": ("nodeagent.shim", "-ISE", False),  # no site packages: it starts on the way into every move
    "mx-relay": ("nodeagent.relay", "-ISE", False),  # nor here: a job's memory waits for it
    "mx-stdio": ("nodeagent.stdio", "-ISE", False),  # nor here: it is frozen and sent with its job
}
BUNDLE = "nodeagent"
"""What is imported from one file, as machines wait for it at every boot; see nodeagent/bundler.py."""
_COMPILE_SECONDS = 60


def entry_script(module: str, flags: str, dependencies: bool) -> str:
    """A script that runs ``module`` of the image; ``flags`` are the interpreter's."""
    paths = [f"/{LIBRARY}", f"/{DEPENDENCIES}"] if dependencies else [f"/{LIBRARY}"]
    return (
        f"#!/usr/bin/python3 {flags}\n"
        "import runpy\nimport sys\n\n"
        f"sys.path[:0] = {paths!r}\n"
        + (_USE_BUNDLE if module == BUNDLE else "")
        + f'runpy.run_module({module!r}, run_name="__main__", alter_sys=True)\n'
    )


_USE_BUNDLE = (
    f'import os\n\nfrom nodeagent.bundle import use\n\nuse("/{LIBRARY}/{BUNDLE}.bundle")\n'
    "os.environ.update("
    'PYDANTIC_DISABLE_PLUGINS="__all__",'  # else it reads about every package that is installed
    'PYTHONTZPATH="/usr/share/zoneinfo")\n'  # else zoneinfo looks through all that Python was built with
)


def source_files(project: Path) -> Iterator[Path]:
    """Every file that goes into the layer, sorted, relative to ``project``."""
    for package in PACKAGES:
        for path in sorted((project / package).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and not path.name.startswith("."):
                yield path.relative_to(project)


def digest(project: Path, base: str) -> str:
    """12 hexadecimal digits over the source, the entry scripts and the base layer it was compiled with."""
    total = hashlib.sha256(f"agent 2 {base}\n".encode())
    for name, entry in ENTRIES.items():
        total.update(f"{name}\n{entry_script(*entry)}".encode())
    total.update(version(project).encode())
    total.update("".join(systemd.UNITS.values()).encode())
    for path in source_files(project):
        total.update(f"{path}\n{hashlib.sha256((project / path).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:12]


def build(layer: Path, project: Path, base_root: Path, expected: str, workshop: Workshop = HOST) -> None:
    """Makes ``layer/root`` from the source at ``project``, compiled by the image's own Python.

    SourceChanged when what was copied is not what ``expected`` (a digest) was taken from.
    """
    library = layer / "root" / LIBRARY
    for path in source_files(project):
        target = library / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project / path, target)
    _add_version(library, project)
    if digest(library, base_root.parent.name) != expected:
        raise SourceChanged("agent layer: the source changed while it was copied; try again")
    units = layer / "root" / UNITS
    units.mkdir(parents=True)
    for name, text in systemd.UNITS.items():
        (units / name).write_text(text, encoding="utf-8")
    programs = layer / "root/usr/bin"
    programs.mkdir()
    for name, entry in ENTRIES.items():
        (programs / name).write_text(entry_script(*entry), encoding="utf-8")
        (programs / name).chmod(0o755)
    _compile(library, base_root, workshop)


def version(project: Path) -> str:
    """This project's version, as pyproject.toml says it."""
    found: str = tomllib.loads((project / PYPROJECT).read_text(encoding="utf-8"))["project"]["version"]
    return found


def _add_version(library: Path, project: Path) -> None:
    """So that importlib.metadata knows on the node what it runs."""
    for file in (PYPROJECT, CONSTRAINTS):
        shutil.copyfile(project / file, library / file)
    information = library / "mx.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mx\nVersion: {version(project)}\n", encoding="utf-8")


def _compile(library: Path, base_root: Path, workshop: Workshop) -> None:
    """Compiles inside the base layer; the bind mount lives and dies with a mount namespace of its own."""
    # by hash and never looked at again, as in the base
    python = f"/usr/bin/python3 -ISE -m compileall -q --invalidation-mode=unchecked-hash -s /mnt -p /{LIBRARY} /mnt"
    paths = f"env -i PATH=/usr/bin PYTHONPATH=/mnt:/{DEPENDENCIES} PYDANTIC_DISABLE_PLUGINS=__all__ PYTHONTZPATH=/"
    bundle = f"{paths} /usr/bin/python3 -sB -m nodeagent.bundler /mnt/{BUNDLE}.bundle {BUNDLE}.__main__ /mnt /{LIBRARY}"
    script = f'mount --bind "$1" "$2/mnt" && chroot "$2" {python} && exec chroot "$2" {bundle}'
    workshop.run(["unshare", "--mount", "--", "sh", "-c", script, "sh", str(library), str(base_root)], _COMPILE_SECONDS)
