"""Why a build failed, from what the failing program or the file system said.

mmdebstrap, apt, dpkg and pip say it at length and in the middle of other things; people get one line with what to do.
"""

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from clip.errors import BUILD_FAILED, DISK_FULL, MIRROR_AWAY, UNKNOWN_PACKAGE, ImageError

_FULL = re.compile(r"No space left on device|Disk quota exceeded|don't have enough free space", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"Unable to locate package (?P<a>\S+)|Package '?(?P<b>[a-z0-9.+-]+)'? has no installation candidate|"
    r"Couldn't find any package by (?:glob|regex) '(?P<c>[^']+)'"
)
_AWAY = re.compile(
    r"Could not resolve|Temporary failure resolving|Could not connect|Unable to connect|Connection (?:failed|timed out|refused)|"
    r"Cannot initiate the connection|Failed to fetch|does not have a Release file|Could not find a version that satisfies|"
    r"NewConnectionError|ReadTimeoutError|Network is unreachable|Err:\d+ ",
    re.IGNORECASE,
)
_LONGEST = 400


def explain(program: str, code: int, said: Sequence[str]) -> ImageError:
    """The error for a program that ended with ``code`` after saying these lines."""
    for line in said:
        if _FULL.search(line):
            return disk_full()
    for line in said:
        if unknown := _UNKNOWN.search(line):
            name = next(group for group in unknown.groups() if group)
            return ImageError(
                f"node image: there is no package {name.rstrip('.')}; correct spec.packages or spec.kernel",
                UNKNOWN_PACKAGE,
            )
    for line in said:
        if _AWAY.search(line):
            return ImageError(
                f"node image: the mirror does not answer ({_short(line)}); check network and apt's sources",
                MIRROR_AWAY,
            )
    return ImageError(f"node image: {program} ended with {code}: {tail(said)}; repair what it names, try again", BUILD_FAILED)


def disk_full() -> ImageError:
    """The file system of the shelf has no room left."""
    return ImageError(
        "node image: no space is left for it on the head; make room, e.g. by mxctl image rm of old revisions, then try again",
        DISK_FULL,
    )


@contextmanager
def told_as_image_errors() -> Iterator[None]:
    """What the file system refuses becomes an ImageError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(str(error)):
            raise disk_full() from error
        raise ImageError(f"node image: {error}; repair that, try again") from error


def tail(lines: Sequence[str]) -> str:
    """The end of what was said, in one line."""
    return " | ".join(line for line in lines if line)[-_LONGEST:] or "it said nothing"


def _short(line: str) -> str:
    words = " ".join(line.split())
    return words if len(words) <= 160 else f"{words[:157]}..."
