"""Whether there is room for a checkpoint: asked before the freeze, because afterwards it costs the job its time.

What several moves were promised at once counts together: ``Room`` knows what each of them has still to take.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from nodeagent.engine import Copy
from nodeagent.errors import MoveFailed
from nodeagent.tmpfs import limit

_RESERVE = "reserve"
log = logging.getLogger(__name__)

SLACK = 8 << 20  # bytes beside the pages: small images, the shim, what criu itself needs
LEFT = 16 << 20
"""Bytes that images leave to the node: its agent must go on, whatever is dumped."""
PAGE = 4096


def images_need(memory: int) -> int:
    """Bytes of images of a job with ``memory`` resident bytes. What is resident is dumped at most once, so little is added."""
    return memory + memory // 32 + SLACK


@dataclass(slots=True)
class Promise:
    """Room that one end of a move may take. Bytes."""

    images: int
    job: int
    """For its processes, when it is restored here; otherwise 0."""
    came: Callable[[], int] = lambda: 0
    """Of the images: how many are here already, and so do not count twice."""

    @property
    def images_to_come(self) -> int:
        return max(0, self.images - self.came())

    @property
    def to_come(self) -> int:
        return self.images_to_come + self.job


class Room:
    """Memory of one node for moves. ``images`` is a tmpfs; ``node_free`` is what the node has left under a limit of its own.

    A promise lasts as long as its body. An agent that dies breaks all it gave: what was arriving then is refused by the next
    one and its images are removed; what was restored already is memory in use, and needs no promise any more.
    """

    def __init__(self, images: Path, node_free: Callable[[], int], limit: Callable[[Path, int], None] = limit) -> None:
        self._images = images
        self._node_free = node_free
        self._limit = limit
        self._limited: int | None = None
        self._promises: list[Promise] = []

    @contextmanager
    def promise(self, memory: int, *, restored: bool, follows: bool = False, ahead: bool = False) -> Iterator[Promise]:
        """Room for a job of ``memory`` resident bytes: its images, and itself if ``restored``. MoveFailed when there is none.

        Where its memory ``follows`` the job there are small images only; where it goes ``ahead`` it is there twice."""
        pages = images_need(0 if follows else memory)
        promise = Promise(pages + memory if ahead else pages, memory if restored else 0)
        self._check(promise)
        self._promises.append(promise)
        try:
            yield promise
        finally:
            self._promises = [other for other in self._promises if other is not promise]

    def promise_most(self, memory: int, *, restored: bool, follows: bool, ahead: bool, held: ExitStack) -> tuple[Promise, bool]:
        """Like ``promise``, until ``held`` is closed; gives up the wish that memory goes ``ahead`` where room for it is missing.

        Returns also whether it may."""
        if ahead:
            try:
                return held.enter_context(self.promise(memory, restored=restored, follows=follows, ahead=True)), True
            except MoveFailed as error:
                log.info("no memory goes ahead: %s", error)
        return held.enter_context(self.promise(memory, restored=restored, follows=follows)), False

    def most(self, promise: Promise) -> int:
        """Bytes of images it may take at most: jobs grow between promise and freeze, but nobody takes what others were promised."""
        others = sum(other.images_to_come for other in self._promises if other is not promise)
        return max(promise.images, shutil.disk_usage(self._images).free - others - promise.job)

    def fit(self) -> None:
        """Lets images take what memory is left and no more, so that a job which has grown since its move was promised (it forked,
        and what its processes share is dumped for each) cannot be dumped, instead of costing the node its agent. Raises MoveFailed.
        """
        usage = shutil.disk_usage(self._images)
        if self._limited is not None and usage.total < self._limited:
            return  # somebody else wants them to take less
        size = (usage.used + max(0, self._available() - LEFT)) // PAGE * PAGE
        try:
            self._limit(self._images, size)
        except OSError as error:
            raise MoveFailed(f"{self._images}: its size cannot be set: {error.strerror}") from error
        self._limited = size

    def check_restore(self, promise: Promise, images: int) -> None:
        """All ``images`` bytes are here: is there memory for what they say? They may have become more than was promised."""
        wanted = promise.job + max(0, images - promise.images)
        free = self._available()
        if free < wanted:
            raise MoveFailed(f"no memory: the job has grown to {wanted} bytes, {free} are free")

    def _available(self) -> int:
        return min(psutil.virtual_memory().available, self._node_free())

    def _check(self, wanted: Promise) -> None:
        self._images.mkdir(parents=True, exist_ok=True)
        self.fit()
        moves = f", {len(self._promises)} other moves counted" if self._promises else ""
        free = shutil.disk_usage(self._images).free - sum(each.images_to_come for each in self._promises)
        if free < wanted.images:
            raise MoveFailed(
                f"no room for images: {wanted.images} bytes are needed, {max(0, free)} are free in {self._images}{moves}"
            )
        available = self._available() - sum(each.to_come for each in self._promises)
        if available < wanted.to_come:
            what = "images and job" if wanted.job else "images"
            raise MoveFailed(f"no memory: {wanted.to_come} bytes are needed for {what}, {max(0, available)} are free{moves}")


def make_fresh(directory: Path) -> None:
    """Empty and there. Raises OSError."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)


async def reserve(directory: Path, size: int) -> None:
    """Takes ``size`` bytes of memory for images before the job is frozen, until ``release``. OSError when they are not there.

    So what is missing is noticed while the job still runs; and the kernel, or a hypervisor below it, has found the memory by then,
    which can take longer than everything else in a freeze.
    """

    def take() -> None:
        with (directory / _RESERVE).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, size))

    await asyncio.to_thread(take)


def release(directory: Path) -> None:
    """For the images that come now. May be repeated."""
    (directory / _RESERVE).unlink(missing_ok=True)


def image_name(copy: Copy) -> str:
    """Of the directory of that copy's images; what else lies beside it for the same copy begins so, too."""
    return f"{copy.namespace}_{copy.name}_{copy.epoch}"


def remove_strays(images: Path, copies: Iterable[Copy]) -> list[str]:
    """Removes what belongs to none of these copies, and would hold memory for nothing; returns its names. Raises OSError."""
    named = tuple(image_name(copy) for copy in copies)
    strays = sorted(path for path in images.iterdir() if not path.name.startswith(named)) if images.exists() else []
    for path in strays:
        shutil.rmtree(path)
    return [path.name for path in strays]
