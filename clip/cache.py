"""The shelf of image layers: immutable directories ``images/<name>/root`` below the state directory.

A layer is built beside its place and renamed when it is complete, so whoever sees it sees all of it. A half-built one is removed by
its builder, also when that is killed (see ``clip/janitor.py``); the next builder looks, too: only the holder of the lock builds, so
what it finds is dead. Users of a layer are files in ``images/<name>/users/``; a layer with a user is never removed.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clip.errors import Busy, ImageError
from clip.janitor import cleared_on_death
from clip.lock import locked

_LOCK_SECONDS = 900.0  # longer than the slowest build
_UNFINISHED = ".building-"
_SPARE_SECONDS = 3600.0  # between ensuring a layer and using it
_SPARE_DEAR_SECONDS = 7 * 86400.0
BASE = "base-"
DEAR = (BASE, "kernel-", "head-")
"""Layers that take long to build, and are seldom others."""

Build = Callable[[Path, int], None]
"""Makes ``root`` in a layer's directory. The descriptor is for child processes to inherit: the lock is then held until they are
gone too, even when the builder is killed."""


def state_dir() -> Path:
    """Where MX keeps everything: MX_STATE, else /var/lib/mx."""
    return Path(os.environ.get("MX_STATE") or "/var/lib/mx").absolute()


@dataclass(frozen=True, slots=True)
class Shelf:
    """All layers of one state directory."""

    directory: Path

    @classmethod
    def of(cls, state: Path) -> "Shelf":
        """The shelf of that state directory."""
        return cls(state / "images")

    def root(self, name: str) -> Path:
        """The tree of a layer, there or not."""
        return self.directory / name / "root"

    def has(self, name: str) -> bool:
        """The layer is there."""
        return self.root(name).is_dir()

    def ensure(self, name: str, build: Build) -> Path:
        """The tree of layer ``name``; ``build`` makes it when it is not there. Leaves nothing behind when that fails."""
        if not self.has(name):
            with self._building() as lock:
                if not self.has(name):
                    self._build(name, build, lock, lambda _: name)
        os.utime(self.directory / name)  # last use, for prune
        return self.root(name)

    def rebuild(self, name: str, build: Build, choose: Callable[[Path], str]) -> str:
        """Builds anew, whatever is there; ``choose`` names what was built, by its directory. One of that name stays as it is."""
        with self._building() as lock:
            chosen = self._build(name, build, lock, choose)
        os.utime(self.directory / chosen)
        return chosen

    @contextmanager
    def _building(self) -> Iterator[int]:
        with locked(self.directory / ".lock", timeout=_LOCK_SECONDS, what="the image cache") as lock:
            self._remove_unfinished()
            yield lock

    def _build(self, name: str, build: Build, lock: int, choose: Callable[[Path], str]) -> str:
        unfinished = self.directory / f"{_UNFINISHED}{name}"
        with cleared_on_death(unfinished, lock):
            unfinished.mkdir(mode=0o755)
            try:
                build(unfinished, lock)
                (unfinished / "users").mkdir()
                chosen = choose(unfinished)
                if not self.has(chosen):
                    unfinished.rename(self.directory / chosen)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return chosen

    def is_busy(self) -> bool:
        """Somebody is building, or removing layers, right now."""
        try:
            with locked(self.directory / ".lock", timeout=0, what="the image cache"):
                return False
        except Busy:
            return True

    def sweep(self) -> None:
        """Removes what dead builders left. Waits for living ones."""
        with self._building():
            pass

    def _remove_unfinished(self) -> None:
        for leftover in self.directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover)

    def hold(self, name: str, user: str) -> None:
        """Keeps a layer from being removed until ``user`` releases it. Twice is once. ImageError when it is gone."""
        try:
            (self.directory / name / "users" / user).touch()
        except FileNotFoundError as error:
            raise ImageError(f"layer {name} is not on the shelf any more; build the image again") from error

    def release(self, name: str, user: str) -> None:
        """The opposite; no error when it was not held or is gone."""
        (self.directory / name / "users" / user).unlink(missing_ok=True)

    def held(self, user: str) -> frozenset[str]:
        """The layers that ``user`` holds."""
        return frozenset(file.parent.parent.name for file in self.directory.glob(f"[!.]*/users/{user}"))

    def held_since(self, name: str, user: str) -> float:
        """When ``user`` last said that it holds the layer, unix seconds; 0 when it does not."""
        try:
            return (self.directory / name / "users" / user).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(self, name: str) -> bool:
        """Takes a layer off the shelf unless somebody holds it; whether it is gone."""
        with locked(self.directory / ".lock", timeout=_LOCK_SECONDS, what="the image cache"):
            if self.has(name) and not self._is_held(name):
                self._take_off(name)
        return not self.has(name)

    def prune(self, keep: frozenset[str], now: float | None = None) -> list[str]:
        """Removes layers that nobody holds, that are not in ``keep`` and were not used for long; returns their names.

        Long is an hour, a week for what takes long to build.
        """
        now = time.time() if now is None else now
        removed = []
        with locked(self.directory / ".lock", timeout=_LOCK_SECONDS, what="the image cache"):
            for layer in sorted(self.directory.glob("[!.]*")):
                oldest = now - (_SPARE_DEAR_SECONDS if layer.name.startswith(DEAR) else _SPARE_SECONDS)
                if layer.name not in keep and layer.stat().st_mtime < oldest and not self._is_held(layer.name):
                    self._take_off(layer.name)
                    removed.append(layer.name)
        return removed

    def _is_held(self, name: str) -> bool:
        return any((self.directory / name / "users").iterdir())

    def _take_off(self, name: str) -> None:
        dying = self.directory / f"{_UNFINISHED}{name}"
        (self.directory / name).rename(dying)  # atomically; a crash now leaves a leftover, not half a layer
        shutil.rmtree(dying)
