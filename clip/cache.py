"""The shelf of image layers: immutable directories ``images/<name>/root`` below the state directory.

A layer is built beside its place and renamed when it is complete, so whoever sees it sees all of it. Half-built ones are
removed by the next builder: only the holder of the lock builds, so what it finds is dead. Users of a layer are files in
``images/<name>/users/``; a layer with a user is never pruned.
"""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clip.lock import locked

_LOCK_SECONDS = 900.0  # longer than the slowest build
_UNFINISHED = ".building-"
_SPARE_SECONDS = 3600.0  # between ensuring a layer and using it
_SPARE_BASE_SECONDS = 7 * 86400.0  # a base layer takes minutes to build, and is seldom another
BASE = "base-"


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

    def ensure(self, name: str, build: Callable[[Path, int], None]) -> Path:
        """The tree of layer ``name``; when it is not there, ``build(layer_directory, lock_descriptor)`` makes its ``root``.

        The descriptor is for child processes to inherit: the lock is then held until they are gone too, even when the
        builder is killed. Raises what ``build`` raises, and leaves nothing behind then.
        """
        if not self.root(name).is_dir():
            with locked(self.directory / ".lock", timeout=_LOCK_SECONDS, what="the image cache") as lock:
                self._remove_unfinished()
                if not self.root(name).is_dir():
                    self._build(name, build, lock)
        os.utime(self.directory / name)  # last use, for prune
        return self.root(name)

    def _build(self, name: str, build: Callable[[Path, int], None], lock: int) -> None:
        unfinished = self.directory / f"{_UNFINISHED}{name}"
        unfinished.mkdir(mode=0o755)
        try:
            build(unfinished, lock)
            (unfinished / "users").mkdir()
            unfinished.rename(self.directory / name)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _remove_unfinished(self) -> None:
        for leftover in self.directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover)

    def hold(self, name: str, user: str) -> None:
        """Keeps a layer from being pruned until ``user`` releases it. Twice is once."""
        (self.directory / name / "users" / user).touch()

    def release(self, name: str, user: str) -> None:
        """The opposite; no error when it was not held or is gone."""
        (self.directory / name / "users" / user).unlink(missing_ok=True)

    def prune(self, keep: frozenset[str], now: float | None = None) -> list[str]:
        """Removes layers that nobody holds, that are not in ``keep`` and were not used for long; returns their names.

        Long is an hour, a week for base layers.
        """
        now = time.time() if now is None else now
        removed = []
        with locked(self.directory / ".lock", timeout=_LOCK_SECONDS, what="the image cache"):
            for layer in sorted(self.directory.glob("[!.]*")):
                oldest = now - (_SPARE_BASE_SECONDS if layer.name.startswith(BASE) else _SPARE_SECONDS)
                if layer.name not in keep and layer.stat().st_mtime < oldest and not any((layer / "users").iterdir()):
                    dying = self.directory / f"{_UNFINISHED}{layer.name}"
                    layer.rename(dying)  # atomically off the shelf; a crash now leaves a leftover, not half a layer
                    shutil.rmtree(dying)
                    removed.append(layer.name)
        return removed
