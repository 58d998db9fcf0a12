"""Whether there is room for a checkpoint: asked before the freeze, because afterwards it costs the job its time."""

import shutil
from pathlib import Path

import psutil

from nodeagent.errors import MoveFailed

SLACK = 8 << 20  # bytes beside the pages: small images, the shim, what criu itself needs


def images_need(memory: int) -> int:
    """Bytes of images of a job with ``memory`` resident bytes. What is resident is dumped at most once, so little is added."""
    return memory + memory // 32 + SLACK


def check_room(directory: Path, memory: int, *, restored: bool, node_free: int) -> None:
    """Raises MoveFailed unless ``directory`` (a tmpfs) and the memory can hold the images and, if ``restored``, the job as well.

    ``node_free`` is what the node has left under a limit of its own, in bytes; the machine may have more.
    """
    need = images_need(memory)
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < need:
        raise MoveFailed(f"no room for images: {need} bytes are needed, {free} are free in {directory}")
    total = need + (memory if restored else 0)
    available = min(psutil.virtual_memory().available, node_free)
    if available < total:
        raise MoveFailed(f"no memory: {total} bytes are needed for images{' and job' if restored else ''}, {available} are free")


def make_fresh(directory: Path) -> None:
    """Empty and there. Raises OSError."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
