"""Obstacles among kernel objects that programs hold by a descriptor or a mapping: io_uring and others criu does not know."""

import stat
from collections.abc import Iterator

from crds.report import Obstacle
from nodeagent.preflight.scene import Scene

IO_URING = "IoUring"
UNKNOWN = "UnsupportedDescriptor"
RING = "anon_inode:[io_uring]"
PREFIX = "anon_inode:"
KNOWN = frozenset({"[eventfd]", "[eventpoll]", "[signalfd]", "[timerfd]", "[pidfd]", "inotify", "[inotify]", "[fanotify]"})
"""What criu dumps; everything else without a name in the file system it does not."""


def io_uring(scene: Scene) -> Iterator[Obstacle]:
    """Also when only the mapping is left: a ring lives as long as either."""
    for process in scene.processes:
        if RING in {*(each.target for each in process.descriptors), *(each.target for each in process.mappings)}:
            yield Obstacle(
                reason=IO_URING,
                message=f"{process} uses io_uring: run it again with spec.migration.ioUring false (mxctl run --no-io-uring), "
                "or set sysctl kernel.io_uring_disabled=2 on the nodes before it starts",
            )


def unknown(scene: Scene) -> Iterator[Obstacle]:
    for process in scene.processes:
        for each in process.descriptors:
            odd = each.target.startswith(PREFIX) and each.target != RING and each.target.removeprefix(PREFIX) not in KNOWN
            if odd or stat.S_ISBLK(each.mode):
                yield Obstacle(
                    reason=UNKNOWN,
                    message=f"{process} holds {each.target} (descriptor {each.number}), which cannot be moved: let it close that",
                )
