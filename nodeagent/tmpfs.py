"""A tmpfs of its own for images: with large pages writing and reading them costs the processor a half to a fifth.

Not so in a virtual machine whose host takes back every large page that is free ("free page reporting"): there each is fetched anew
from the host, which takes many times as long as writing it, and small pages, of which some are at hand, are faster.

Only where nothing can be lost by it: an agent that finds copies of a former life leaves everything as it is, as their shims see the
mounts of their own start. Where it cannot be mounted images lie on the tmpfs of ``run``, which is slower, and said once.
"""

import ctypes
import logging
import os
import subprocess
from pathlib import Path

log = logging.getLogger(__name__)

SECONDS = 10
_REMOUNT = 32
"""MS_REMOUNT of mount(2)."""
LARGE = "huge=within_size,mode=0700"
"""within_size: a small file takes small pages, so that hundreds of small images do not take two megabytes each."""
SMALL = "huge=never,mode=0700"
BALLOONS = Path("/sys/bus/virtio/drivers/virtio_balloon")
_REPORTING = 5
"""Bit of a virtio balloon's features (virtio 1.2, 5.5.3)."""


def mount_images(images: Path, copies: Path) -> bool:
    """True when ``images`` is a file system of its own now. ``copies``: the directory of what lives on this node."""
    images.mkdir(parents=True, exist_ok=True)
    if images.is_mount():
        return True
    if _holds(copies) or _holds(images):
        log.info("%s: jobs of a former agent are here, so it stays as it is until the next start of this node", images)
        return False
    command = ["mount", "-t", "tmpfs", "-o", SMALL if gives_back() else LARGE, "mx-images", str(images)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS, env={"PATH": os.defpath})
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        log.warning("%s: no tmpfs of their own, moves take longer: %s", images, " ".join(said.split()))
        return False
    return True


def limit(images: Path, size: int) -> None:
    """From now on images may take ``size`` bytes; without effect where they have no file system of their own. Raises OSError."""
    if not images.is_mount():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, os.fsencode(images), None, ctypes.c_ulong(_REMOUNT), f"size={size}".encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(images))


def gives_back(balloons: Path = BALLOONS) -> bool:
    """Whether the host takes free memory from this machine."""
    features = [device / "features" for device in balloons.glob("virtio*")]
    return any(file.is_file() and file.read_text()[_REPORTING : _REPORTING + 1] == "1" for file in features)


def _holds(directory: Path) -> bool:
    return directory.exists() and any(directory.iterdir())
