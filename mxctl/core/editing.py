"""Notices when somebody edits files: the reason to apply them once more."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

SETTLE_SECONDS = 0.3  # an editor writes, renames and removes; what it leaves is read when it is quiet again
_CHANGES = {"created", "modified", "moved", "deleted", "closed"}


class Edits:
    """``async for`` yields once whenever the files have changed and are quiet again."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notice(self) -> None:
        """Something changed."""
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[None]:
        while True:
            await self._changed.wait()
            while self._changed.is_set():
                self._changed.clear()
                await asyncio.sleep(SETTLE_SECONDS)
            yield


class _Handler(FileSystemEventHandler):
    """Runs in watchdog's thread."""

    def __init__(self, edits: Edits, loop: asyncio.AbstractEventLoop, wanted: set[Path]) -> None:
        self._edits, self._loop, self._wanted = edits, loop, wanted

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _CHANGES and concerns(event, self._wanted):
            self._loop.call_soon_threadsafe(self._edits.notice)


def concerns(event: FileSystemEvent, wanted: set[Path]) -> bool:
    """Whether it happened to one of the wanted files, or below one of the wanted directories."""
    paths = [Path(str(path)) for path in (event.src_path, event.dest_path) if path]
    return any(path in wanted or wanted & set(path.parents) for path in paths)


@asynccontextmanager
async def watch_files(names: Sequence[str]) -> AsyncIterator[Edits]:
    """Watches files and directories (with all below them) until the block is left.

    Of a file its directory is watched, for editors put a new file in the old one's place.
    """
    paths = {Path(name).resolve() for name in names}
    edits = Edits()
    handler = _Handler(edits, asyncio.get_running_loop(), paths)
    observer = Observer()
    for directory in {path if path.is_dir() else path.parent for path in paths}:
        observer.schedule(handler, str(directory), recursive=directory in paths)
    observer.start()
    try:
        yield edits
    finally:
        observer.stop()
        await asyncio.to_thread(observer.join)
