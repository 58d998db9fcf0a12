"""Builds the base layer: runs mmdebstrap and pip by the recipe, then checks that what came out works.

Both run at once, as one waits for the network while the other unpacks.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clip import apt, recipe
from clip.errors import ImageError
from clip.progress import Report

_BUILD_SECONDS = 1200
_CHECK_SECONDS = 120
PHASES = 9  # mmdebstrap's own messages and ours, for the bar


def build(layer: Path, plan: recipe.Recipe, report: Report, lock: int) -> None:
    """Makes ``layer/root``; ImageError with the tail of what the failing program said. ``lock`` is inherited by mmdebstrap."""
    need_root_and_mmdebstrap()
    root = layer / "root"
    with tempfile.TemporaryDirectory(prefix="mx-wheels-") as wheels, ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(_fetch_wheels, Path(wheels), plan)
        _debian_tree(layer, root, plan.extra, report, lock)
        report("adding Python packages")
        fetched.result()
        shutil.copytree(wheels, root / recipe.DEPENDENCIES, symlinks=True)
    _forget_host(root)
    _in_image(root, "python3", "-m", "compileall", "-q", f"/{recipe.DEPENDENCIES}")
    report("checking the programs in it")
    _check(root)
    (layer / "recipe.txt").write_text(plan.text(), encoding="utf-8")


def need_root_and_mmdebstrap() -> None:
    """ImageError where no layer can be built."""
    if os.geteuid() != 0:
        raise ImageError("node image: building needs root; run it with sudo")
    if shutil.which("mmdebstrap") is None:
        raise ImageError("node image: mmdebstrap is missing; run scripts/setup as root, or apt-get install mmdebstrap")


def _debian_tree(layer: Path, root: Path, extra: tuple[str, ...], report: Report, lock: int) -> None:
    report("asking apt for its mirror")
    preferences = layer / "preferences"
    preferences.write_text(recipe.preferences(), encoding="utf-8")
    run_mmdebstrap(recipe.mmdebstrap(str(root), apt.mirror(), str(preferences), apt.proxy_options(), extra), report, lock)


def run_mmdebstrap(command: list[str], report: Report, lock: int) -> None:
    """Runs it to its end and reports its phases. ``lock`` is inherited. ImageError."""
    said: list[str] = []
    # pdeathsig: when this process is killed, the build must not go on alone.
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", "--", "timeout", f"{_BUILD_SECONDS}", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(lock,),
    ) as running:
        assert running.stderr is not None
        try:
            for line in running.stderr:
                said.append(line.strip())
                if line.startswith("I: ") and line.rstrip().endswith("..."):  # the others are asides
                    report(line[3:].strip().removesuffix("..."))
        except BaseException:  # Ctrl-C: it must be gone before its directory is removed
            running.terminate()
            raise
    if running.returncode:
        raise ImageError(f"node image: mmdebstrap ended with {running.returncode}: {_tail(said)}; check the mirror, try again")


def _fetch_wheels(target: Path, plan: recipe.Recipe) -> None:
    _run([sys.executable, "-m", "pip", *recipe.pip_arguments(str(target), plan.machine, plan.pins)], _BUILD_SECONDS)


def _forget_host(root: Path) -> None:
    for trace in recipe.HOST_TRACES:
        (root / trace).unlink(missing_ok=True)
    for directory in ("dev", "var/lib/etcd"):
        shutil.rmtree(root / directory, ignore_errors=True)
    (root / "dev").mkdir()
    (root / "shared").mkdir()


def _check(root: Path) -> None:
    for program, least in recipe.LEAST_VERSIONS.items():
        found = recipe.version_of(_in_image(root, program, "--version"))
        if found < least:
            raise ImageError(
                f"node image: {program} is {_dotted(found)}, {_dotted(least)} or later is needed; use a fresher mirror"
            )
    imports = f"import sys; sys.path.insert(0, '/{recipe.DEPENDENCIES}'); import {', '.join(recipe.IMPORTS)}"
    _in_image(root, "python3", "-c", imports)


def _in_image(root: Path, *command: str) -> str:
    return _run(["chroot", str(root), "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin", *command], _CHECK_SECONDS)


def _run(command: list[str], seconds: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            f"node image: {' '.join(command[:4])} did not end in {seconds:.0f} s; check the network, try again"
        ) from error
    if done.returncode:
        said = _tail((done.stderr or done.stdout).splitlines())
        raise ImageError(f"node image: {' '.join(command[:4])} ended with {done.returncode}: {said}")
    return done.stdout + done.stderr


def _tail(lines: list[str]) -> str:
    return " | ".join(line for line in lines if line)[-600:] or "it said nothing"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "of an unknown version"
