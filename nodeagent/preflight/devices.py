"""Obstacles among device files: a device stays on its node, and so does what its driver knows of the program."""

import os
import stat
from collections.abc import Iterator

from crds.report import Obstacle
from nodeagent.preflight.scene import Process, Scene

DEVICE = "DeviceFile"
GPU = "Gpu"
TERMINAL = "Terminal"

MEMORY_MAJOR = 1
MEMORY_MINORS = frozenset({3, 5, 7, 8, 9})
"""null, zero, full, random, urandom: the same everywhere, and without memory."""
TTY_MAJORS = frozenset({5, *range(136, 144)})
"""/dev/tty, /dev/ptmx and the ends in /dev/pts."""
GPUS = ("/dev/nvidia", "/dev/dri/", "/dev/kfd", "/dev/mali", "/dev/davinci")


def devices(scene: Scene) -> Iterator[Obstacle]:
    """Open ones, and those that are only mapped any more."""
    for process in scene.processes:
        opened = [each.path for each in process.descriptors if stat.S_ISCHR(each.mode) and not harmless(each.device)]
        mapped = [each.target for each in process.mappings if each.target.startswith("/dev/") and _is_device(each.target)]
        for path in dict.fromkeys([*opened, *mapped]):
            yield _obstacle(process, path)


def harmless(device: int) -> bool:
    """Whether a device of that number moves along."""
    major, minor = os.major(device), os.minor(device)
    return (major == MEMORY_MAJOR and minor in MEMORY_MINORS) or major in TTY_MAJORS


def _is_device(target: str) -> bool:
    """/dev/zero mapped shared is memory without a name, and /dev/shm holds files."""
    return not target.startswith(("/dev/zero", "/dev/shm/"))


def _obstacle(process: Process, path: str) -> Obstacle:
    if path.startswith(GPUS):
        return Obstacle(reason=GPU, message=f"{process} uses the GPU {path}: what is in a GPU's memory cannot be moved")
    return Obstacle(reason=DEVICE, message=f"{process} uses the device {path}, which is this node's: let it close the device")
