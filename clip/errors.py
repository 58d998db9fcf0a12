"""What can go wrong while provisioning.

ClipError
├── ImageError   an image could not be built
└── Busy         somebody else holds the lock for longer than we wait
"""


class ClipError(Exception):
    """Root of all errors of this room; one line: what failed, why, what to do next."""


class ImageError(ClipError):
    """A node image could not be built."""


class SourceChanged(ImageError):  # noqa: N818 - reads as what it says
    """What was copied is not what the layer's name was made from."""


class Busy(ClipError):  # noqa: N818 - reads as what it says
    """Another process holds the lock."""
