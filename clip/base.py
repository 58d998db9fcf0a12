"""Builds the base layer: runs mmdebstrap and pip by the recipe, then checks that what came out works.

Both run at once, as one waits for the network while the other unpacks.
"""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clip import apt, recipe
from clip.errors import ImageError
from clip.progress import Report
from clip.workshop import HOST, Workshop

_FETCH_SECONDS = 1200
_CHECK_SECONDS = 120
PHASES = 9  # mmdebstrap's own messages and ours, for the bar


def build(layer: Path, plan: recipe.Recipe, report: Report, lock: int, workshop: Workshop = HOST) -> None:
    """Makes ``layer/root``; ImageError with the reason. ``lock`` is inherited by mmdebstrap."""
    root, wheels = layer / "root", layer / "wheels"
    with ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(_fetch_wheels, wheels, plan, workshop)
        _debian_tree(layer, plan, workshop, report, lock)
        report("adding Python packages")
        fetched.result()
    target = root / recipe.DEPENDENCIES
    target.parent.mkdir(parents=True, exist_ok=True)
    wheels.rename(target)
    target.chmod(0o755)  # pip leaves it as its own temporary directory was
    _forget_host(root)
    # by hash and never looked at again: no date goes into the image, and a node's Python asks for none
    compiling = ("python3", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash", f"/{recipe.DEPENDENCIES}")
    _in_image(workshop, root, *compiling)
    report("checking the programs in it")
    _check(workshop, root)
    (layer / "recipe.txt").write_text(plan.text(), encoding="utf-8")


def _debian_tree(layer: Path, plan: recipe.Recipe, workshop: Workshop, report: Report, lock: int) -> None:
    report("asking apt for its mirror")
    preferences = layer / "preferences"
    preferences.write_text(recipe.preferences(), encoding="utf-8")
    options = apt.proxy_options()
    workshop.debian(recipe.mmdebstrap(str(layer / "root"), apt.mirror(), str(preferences), options, plan.extra), report, lock)


def _fetch_wheels(target: Path, plan: recipe.Recipe, workshop: Workshop) -> None:
    workshop.run([sys.executable, "-m", "pip", *recipe.pip_arguments(str(target), plan.machine, plan.pins)], _FETCH_SECONDS)


def _forget_host(root: Path) -> None:
    """What came from the building machine, or tells of the build: a node has its own, and the digest must not follow it."""
    for pattern in recipe.HOST_TRACES:
        for trace in root.glob(pattern):
            trace.unlink()
    for directory in ("dev", "var/lib/etcd"):
        shutil.rmtree(root / directory, ignore_errors=True)
    for directory in ("dev", "shared"):
        (root / directory).mkdir()
        (root / directory).chmod(0o755)


def _check(workshop: Workshop, root: Path) -> None:
    for program, least in recipe.LEAST_VERSIONS.items():
        found = recipe.version_of(_in_image(workshop, root, program, "--version"))
        if found < least:
            raise ImageError(
                f"node image: {program} is {_dotted(found)}, {_dotted(least)} or later is needed; use a fresher mirror"
            )
    imports = f"import sys; sys.path.insert(0, '/{recipe.DEPENDENCIES}'); import {', '.join(recipe.IMPORTS)}"
    _in_image(workshop, root, "python3", "-B", "-c", imports)


def _in_image(workshop: Workshop, root: Path, *command: str) -> str:
    clean = ("/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin", "PYTHONHASHSEED=0")
    return workshop.run(["chroot", str(root), *clean, *command], _CHECK_SECONDS)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "of an unknown version"
