"""The job's directory on the shared file system: its log, its /tmp and /dev/shm. It moves with the job by staying where it is."""

import asyncio
import contextlib
import shutil
from pathlib import Path

from nodeagent.engine import Copy

LOG = "output.log"
SCRATCH = ("tmp", "shm")
CHECKPOINTS = "checkpoints"
REMOVAL = 60.0  # seconds a slow file server may take


def job_directory(shared: Path, copy: Copy) -> Path:
    """Where it is, on every node."""
    return shared / ".mx" / "jobs" / copy.namespace / f"{copy.name}-{copy.uid[:8]}"


async def remove_scratch(directory: Path) -> None:
    """At the job's end: the log stays. Raises OSError or TimeoutError."""
    for name in SCRATCH:
        await _remove(directory / name)


async def remove_all(directory: Path) -> None:
    """When the job is deleted. Raises OSError or TimeoutError."""
    await _remove(directory)


async def _remove(directory: Path) -> None:
    async with asyncio.timeout(REMOVAL):
        await asyncio.to_thread(remove_tree, directory)


def remove_tree(directory: Path) -> None:
    """With all that is in it; no error when it is not there, or when another thread removes it at the same time. Raises OSError."""
    while directory.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)
