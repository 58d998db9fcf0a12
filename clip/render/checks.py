"""What may stand in the files of other programs. They are not careful: for one bad line dnsmasq does not start."""

import re
from ipaddress import AddressValueError, IPv4Address

from clip.errors import ClipError

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_PATH = re.compile(r"/[A-Za-z0-9_.+/-]*")
_WORDS = re.compile(r"[A-Za-z0-9_.,:=+@%/ -]*")


class RenderError(ClipError):
    """Something must not be written into a configuration; names it, and what is wrong with it."""


def mac(value: str) -> str:
    """A network card's address in lower case; never a group's."""
    if not _MAC.fullmatch(value) or int(value[:2], 16) & 1:
        raise RenderError(f"{value!r} is no MAC of a network card: write it like 52:54:00:77:00:01")
    return value


def name(value: str) -> str:
    """A node's name; never a word that dnsmasq reads as something else."""
    if not _NAME.fullmatch(value) or value in ("ignore", "infinite") or re.fullmatch(r"[0-9]+[smhdw]?", value):
        raise RenderError(
            f"{value!r} cannot be the name of a machine that is booted: choose letters, digits and '-', a letter first"
        )
    return value


def address(value: str) -> str:
    """An IPv4 address."""
    try:
        return str(IPv4Address(value))
    except AddressValueError as error:
        raise RenderError(f"{value!r} is no IPv4 address: {error}") from error


def path(value: str) -> str:
    """An absolute path without anything that could end a quoted word."""
    if not _PATH.fullmatch(value) or ".." in value.split("/"):
        raise RenderError(f"{value!r} cannot be a directory of the head: only letters, digits and _ . + - / are allowed")
    return value


def words(value: str) -> str:
    """Words of a kernel's command line: none that iPXE or a shell would read as something else."""
    if not _WORDS.fullmatch(value):
        raise RenderError(f"kernel arguments {value!r}: only letters, digits and _ . , : = + @ % / - are allowed")
    return value
