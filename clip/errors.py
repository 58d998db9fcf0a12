"""What can go wrong while provisioning.

ClipError
├── ImageError   an image could not be built
└── Busy         somebody else holds the lock for longer than we wait
"""

BUILD_FAILED = "BuildFailed"
DISK_FULL = "DiskFull"
MIRROR_AWAY = "MirrorAway"
NO_BUILDER = "NoBuilder"
NO_KERNEL = "NoKernel"
UNKNOWN_PACKAGE = "UnknownPackage"
UNKNOWN_ACCOUNT = "UnknownAccount"


class ClipError(Exception):
    """Root of all errors of this room; one line: what failed, why, what to do next."""


class ImageError(ClipError):
    """A node image could not be built. ``reason`` is one CamelCase word for machines: the reason of the condition Built."""

    def __init__(self, message: str, reason: str = BUILD_FAILED) -> None:
        super().__init__(message)
        self.reason = reason


class SourceChanged(ImageError):  # noqa: N818 - reads as what it says
    """What was copied is not what the layer's name was made from."""


class Busy(ClipError):  # noqa: N818 - reads as what it says
    """Another process holds the lock."""
